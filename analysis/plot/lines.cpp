#include "analysis/plot/lines.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "analysis/plot/drawing.h"

namespace epsim {
namespace {

constexpr double kLeft = 78, kPlotWidth = 600, kPlotHeight = 210, kPanelGap = 34, kRight = 24, kLegendLine = 20;
constexpr std::string_view kColours[] = {"#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#222222", "#b8a800"};

/// A range of numbers with round ticks.
struct Axis {
  double low = 0, high = 1, step = 0.2;

  double share(double v) const { return (v - low) / (high - low); }
};

Axis axis_of(const std::vector<LinesFigure::Line>& lines, bool of_x, bool from_zero) {
  double low = from_zero ? 0 : std::numeric_limits<double>::infinity(), high = -std::numeric_limits<double>::infinity();
  for (const LinesFigure::Line& line : lines)
    for (std::size_t i = 0; i < line.x.size(); ++i)
      if (std::isfinite(line.y[i])) low = std::min(low, of_x ? line.x[i] : line.y[i]), high = std::max(high, of_x ? line.x[i] : line.y[i]);
  Axis axis;
  if (!(low < high)) low = std::isfinite(low) && std::isfinite(high) ? low : 0, high = low + 1;
  axis.step = tick_step(high - low);
  axis.low = std::floor(low / axis.step + 1e-9) * axis.step, axis.high = std::ceil(high / axis.step - 1e-9) * axis.step;
  return axis;
}

std::string style_of(int series) {
  const auto colours = static_cast<int>(std::size(kColours));
  return fmt::format(R"(stroke="{}"{})", kColours[series % colours], series >= colours ? R"( stroke-dasharray="5 3")" : "");
}

/// Draws the legend in as many lines as it takes and gives the place below it.
double draw_legend(Drawing& d, const LinesFigure& figure) {
  double x = kLeft, y = 76;
  for (std::size_t s = 0; s < figure.series.size(); ++s) {
    const double width = 26 + width_of(figure.series[s], 12.5) + 22;
    if (x > kLeft && x + width > kLeft + kPlotWidth) x = kLeft, y += kLegendLine;
    d.add(R"(<path d="M{:.1f} {:.1f}h20" {} stroke-width="2.6"/>)", x, y - 4, style_of(static_cast<int>(s)));
    d.text(x + 26, y, "start", 12.5, kInk, figure.series[s]);
    x += width;
  }
  return y + 14;
}

void draw_panel(Drawing& d, const LinesFigure& figure, const LinesFigure::Panel& panel, const Axis& x, double top) {
  const Axis y = axis_of(panel.lines, false, panel.from_zero);
  const auto right = [&](double v) { return kLeft + kPlotWidth * x.share(v); };
  const auto up = [&](double v) { return top + kPlotHeight * (1 - y.share(v)); };
  for (int i = 0; y.low + i * y.step <= y.high + y.step / 2; ++i) {
    const double v = y.low + i * y.step;
    d.add(R"(<path d="M{:.1f} {:.1f}h{:.1f}" stroke="{}" stroke-width="1"/>)", kLeft, up(v), kPlotWidth, i == 0 ? kInk : kGrid);
    d.text(kLeft - 8, up(v) + 4, "end", 11.5, kFaint, fmt::format("{:.6g}", std::abs(v) < y.step / 2 ? 0.0 : v));
  }
  for (int i = 0; x.low + i * x.step <= x.high + x.step / 2; ++i) d.text(right(x.low + i * x.step), top + kPlotHeight + 16, "middle", 11.5, kFaint, fmt::format("{:.6g}", x.low + i * x.step));
  d.upright(22, top + kPlotHeight / 2, "middle", 12.5, kInk, panel.axis_title);
  for (const LinesFigure::Line& line : panel.lines) {
    std::string path;
    for (std::size_t i = 0; i < line.x.size(); ++i)
      if (std::isfinite(line.y[i])) path += fmt::format("{}{:.1f} {:.1f}", path.empty() ? "M" : "L", right(line.x[i]), up(line.y[i]));
    if (!path.empty()) d.add(R"(<path d="{}" fill="none" {} stroke-width="1.6" stroke-linejoin="round"/>)", path, style_of(line.series));
  }
  if (&panel == &figure.panels.back()) d.text(kLeft + kPlotWidth / 2, top + kPlotHeight + 36, "middle", 12.5, kInk, figure.x_title);
}

}  // namespace

std::string to_svg(const LinesFigure& figure) {
  Drawing d;
  d.text(kLeft, 30, "start", 17, kInk, figure.title, R"( font-weight="600")");
  d.text(kLeft, 50, "start", 12.5, kFaint, figure.subtitle);
  double top = draw_legend(d, figure);
  std::vector<LinesFigure::Line> all;
  for (const LinesFigure::Panel& panel : figure.panels) all.insert(all.end(), panel.lines.begin(), panel.lines.end());
  const Axis x = axis_of(all, true, true);
  for (const LinesFigure::Panel& panel : figure.panels) {
    draw_panel(d, figure, panel, x, top);
    top += kPlotHeight + kPanelGap;
  }
  return d.svg(kLeft + kPlotWidth + kRight, top + 16, figure.title);
}

}  // namespace epsim
