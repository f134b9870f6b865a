#include "analysis/plot/lines.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

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

/// Marks a point: shapes differ, so that of two that coincide both are seen.
void draw_mark(Drawing& d, double x, double y, int series) {
  constexpr const char* kShapes[] = {"m-3.6 0a3.6 3.6 0 1 0 7.2 0a3.6 3.6 0 1 0 -7.2 0z", "m-4.6 0l4.6 -4.6l4.6 4.6l-4.6 4.6z", "m-3.4 -3.4h6.8v6.8h-6.8z", "m-4.4 3.2l4.4 -7.4l4.4 7.4z"};
  d.add(R"(<path d="M{:.1f} {:.1f}{}" fill="#ffffff" fill-opacity="0.6" stroke="{}" stroke-width="1.6"/>)", x, y, kShapes[static_cast<std::size_t>(series) % std::size(kShapes)],
        kColours[static_cast<std::size_t>(series) % std::size(kColours)]);
}

std::vector<std::size_t> finite_points(const LinesFigure::Line& line) {
  std::vector<std::size_t> points;
  for (std::size_t i = 0; i < line.x.size(); ++i)
    if (std::isfinite(line.y[i])) points.push_back(i);
  return points;
}

bool marked(const LinesFigure& figure, const LinesFigure::Line& line) { return !figure.x_ticks.empty() || finite_points(line).size() == 1; }

/// Draws the legend from `y` on in as many lines as it takes and gives the place below it.
double draw_legend(Drawing& d, const LinesFigure& figure, double y) {
  std::set<int> with_marks, with_curves;
  for (const LinesFigure::Panel& panel : figure.panels)
    for (const LinesFigure::Line& line : panel.lines) {
      if (marked(figure, line)) with_marks.insert(line.series);
      if (finite_points(line).size() > 1) with_curves.insert(line.series);
    }
  double x = kLeft;
  for (std::size_t s = 0; s < figure.series.size(); ++s) {
    const int series = static_cast<int>(s);
    const double width = 26 + width_of(figure.series[s], 12.5) + 22;
    if (x > kLeft && x + width > kLeft + kPlotWidth) x = kLeft, y += kLegendLine;
    if (with_curves.contains(series) || !with_marks.contains(series)) d.add(R"(<path d="M{:.1f} {:.1f}h20" {} stroke-width="2.6"/>)", x, y - 4, style_of(series));
    if (with_marks.contains(series)) draw_mark(d, x + 10, y - 4, series);
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
  std::vector<double> ticks = figure.x_ticks;
  for (int i = 0; figure.x_ticks.empty() && x.low + i * x.step <= x.high + x.step / 2; ++i) ticks.push_back(x.low + i * x.step);
  double free = 0;
  for (const double tick : ticks) {
    const std::string label = fmt::format("{:.6g}", tick);
    if (right(tick) - width_of(label, 11.5) / 2 < free) continue;
    d.text(right(tick), top + kPlotHeight + 16, "middle", 11.5, kFaint, label);
    free = right(tick) + width_of(label, 11.5) / 2 + 4;
  }
  d.upright(22, top + kPlotHeight / 2, "middle", 12.5, kInk, panel.axis_title);
  for (const LinesFigure::Line& line : panel.lines) {
    const std::vector<std::size_t> points = finite_points(line);
    std::string path;
    for (const std::size_t i : points) path += fmt::format("{}{:.1f} {:.1f}", path.empty() ? "M" : "L", right(line.x[i]), up(line.y[i]));
    if (points.size() > 1) d.add(R"(<path d="{}" fill="none" {} stroke-width="1.6" stroke-linejoin="round"/>)", path, style_of(line.series));
  }
  for (const LinesFigure::Line& line : panel.lines)
    if (marked(figure, line))
      for (const std::size_t i : finite_points(line)) draw_mark(d, right(line.x[i]), up(line.y[i]), line.series);
  if (&panel == &figure.panels.back()) d.text(kLeft + kPlotWidth / 2, top + kPlotHeight + 36, "middle", 12.5, kInk, figure.x_title);
}

}  // namespace

std::string to_svg(const LinesFigure& figure) {
  Drawing d;
  double top = draw_legend(d, figure, 76 + d.heading(kLeft, kPlotWidth + kRight, figure.title, figure.subtitle));
  std::vector<LinesFigure::Line> all;
  for (const LinesFigure::Panel& panel : figure.panels) all.insert(all.end(), panel.lines.begin(), panel.lines.end());
  Axis x = axis_of(all, true, true);
  if (!figure.x_ticks.empty()) x.high = *std::ranges::max_element(figure.x_ticks);
  for (const LinesFigure::Panel& panel : figure.panels) {
    draw_panel(d, figure, panel, x, top);
    top += kPlotHeight + kPanelGap;
  }
  return d.svg(kLeft + kPlotWidth + kRight, top + 16, figure.title);
}

}  // namespace epsim
