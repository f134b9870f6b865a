#include "analysis/plot/layer_time.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "analysis/plot/drawing.h"

namespace epsim {
namespace {

constexpr double kPlotHeight = 320, kLeft = 78, kRight = 24, kGroupGap = 30, kMinPlotWidth = 560;
constexpr double kWideBar = 46, kNarrowBar = 18;
constexpr int kManyBars = 24;  ///< more bars than this are drawn narrow, with upright labels
constexpr std::string_view kDropInk = "#a03c00";

struct Part {
  std::string_view name, colour;
  double LayerTimeFigure::Bar::*seconds;
};
constexpr Part kParts[] = {{"dispatch", "#0072b2", &LayerTimeFigure::Bar::dispatch_s},
                           {"compute", "#e69f00", &LayerTimeFigure::Bar::compute_s},
                           {"combine", "#56b4e9", &LayerTimeFigure::Bar::combine_s},
                           {"waiting for weights", "#cc79a7", &LayerTimeFigure::Bar::waited_s}};

/// Breaks a label at spaces into lines that fit a width where they can.
std::vector<std::string> wrap(const std::string& text, double width, double size) {
  std::vector<std::string> lines(1);
  std::size_t begin = 0;
  while (begin <= text.size()) {
    const std::size_t end = std::min(text.find(' ', begin), text.size());
    const std::string word = text.substr(begin, end - begin);
    std::string& line = lines.back();
    if (line.empty()) line = word;
    else if (width_of(line + " " + word, size) <= width) line += " " + word;
    else lines.push_back(word);
    begin = end + 1;
  }
  return lines;
}

struct Unit {
  std::string_view name;
  double seconds;
};

Unit unit_for(double longest_s) {
  for (const Unit u : {Unit{"s", 1}, Unit{"ms", 1e-3}, Unit{"µs", 1e-6}})
    if (longest_s >= u.seconds) return u;
  return {"ns", 1e-9};
}

/// Three significant digits, no exponent.
std::string short_number(double v) { return fmt::format("{:.{}f}", v, v >= 99.95 ? 0 : v >= 9.995 ? 1 : 2); }

/// Where everything goes.
struct Layout {
  double bar = kWideBar, gap = 12;
  bool upright_labels = false, upright_values = false;
  double plot_width = 0, top = 0, base = 0, bar_labels = 0, group_labels = 0, width = 0, height = 0;
  std::vector<double> group_left, group_width;
  std::vector<std::vector<std::string>> group_lines;
  Unit unit{"s", 1};
  double axis_top = 1, step = 1;  ///< in units

  double y(double seconds) const { return base - kPlotHeight * seconds / unit.seconds / axis_top; }
  double bar_left(std::size_t group, std::size_t index, std::size_t bars) const {
    const double used = static_cast<double>(bars) * (bar + gap) - gap;
    return group_left[group] + (group_width[group] - used) / 2 + static_cast<double>(index) * (bar + gap);
  }
};

Layout lay_out(const LayerTimeFigure& figure) {
  Layout l;
  std::size_t bars = 0;
  double longest_s = 0, widest_label = 0;
  bool labelled = false, drops = false;
  for (const auto& group : figure.groups)
    for (const auto& bar : group.bars) {
      ++bars;
      longest_s = std::max({longest_s, bar.total_s(), bar.lower_bound_s});
      widest_label = std::max(widest_label, width_of(bar.label, 11));
      labelled = labelled || !bar.label.empty();
      drops = drops || bar.drop_rate > 0;
    }
  if (bars > static_cast<std::size_t>(kManyBars)) l.bar = kNarrowBar, l.gap = 5, l.upright_values = true;
  l.upright_labels = widest_label > l.bar + l.gap - 4;
  l.bar_labels = !labelled ? 0 : l.upright_labels ? std::min(widest_label, 160.0) + 10 : 18;

  double left = kLeft + kGroupGap / 2;
  std::size_t most_lines = 1;
  for (const auto& group : figure.groups) {
    const double used = static_cast<double>(group.bars.size()) * (l.bar + l.gap) - l.gap;
    l.group_left.push_back(left);
    l.group_width.push_back(std::max(used, std::min(width_of(group.label, 12.5), 110.0)));
    l.group_lines.push_back(wrap(group.label, l.group_width.back() + kGroupGap - 8, 12.5));
    most_lines = std::max(most_lines, l.group_lines.back().size());
    left += l.group_width.back() + kGroupGap;
  }
  l.plot_width = left - kGroupGap / 2 - kLeft;
  if (l.plot_width < kMinPlotWidth && !figure.groups.empty()) {
    // Few bars: spread the groups over the width instead of huddling at the left.
    const double extra = (kMinPlotWidth - l.plot_width) / static_cast<double>(figure.groups.size());
    for (std::size_t g = 0; g < l.group_left.size(); ++g) l.group_left[g] += (static_cast<double>(g) + 0.5) * extra;
    l.plot_width = kMinPlotWidth;
  }
  l.unit = unit_for(longest_s);
  const double top = longest_s > 0 ? longest_s / l.unit.seconds : 1;
  l.step = tick_step(top);
  l.axis_top = l.step * std::ceil(top / l.step - 1e-9);
  // Room for what stands above the tallest bar, less what the rounded axis leaves free.
  const double above = l.upright_values ? (drops ? 92 : 44) : (drops ? 34 : 20);
  l.top = 104 + std::max(0.0, above - kPlotHeight * (1 - top / l.axis_top));
  l.base = l.top + kPlotHeight;
  l.group_labels = 18.0 * static_cast<double>(most_lines);
  l.width = kLeft + l.plot_width + kRight;
  l.height = l.base + 8 + l.bar_labels + l.group_labels + 34;
  return l;
}

void draw_legend(Drawing& d, bool drops, bool waits) {
  double x = kLeft;
  for (const Part& part : kParts) {
    if (part.seconds == &LayerTimeFigure::Bar::waited_s && !waits) continue;
    d.add(R"(<rect x="{:.1f}" y="69" width="13" height="13" fill="{}"/>)", x, part.colour);
    d.text(x + 19, 80, "start", 12.5, kInk, part.name);
    x += 19 + width_of(part.name, 12.5) + 22;
  }
  d.add(R"(<path d="M{:.1f} 75.5h20" stroke="{}" stroke-width="2.4"/>)", x, kInk);
  d.text(x + 26, 80, "start", 12.5, kInk, "lower bound");
  x += 26 + width_of("lower bound", 12.5) + 22;
  if (!drops) return;
  d.text(x, 80, "start", 12.5, kDropInk, "−1%");
  d.text(x + 36, 80, "start", 12.5, kInk, "choices dropped");
}

void draw_axis(Drawing& d, const LayerTimeFigure& figure, const Layout& l) {
  const int ticks = static_cast<int>(std::lround(l.axis_top / l.step));
  for (int i = 0; i <= ticks; ++i) {
    const double y = l.base - kPlotHeight * i / ticks;
    d.add(R"(<path d="M{:.1f} {:.1f}h{:.1f}" stroke="{}" stroke-width="1"/>)", kLeft, y, l.plot_width, i == 0 ? kInk : kGrid);
    d.text(kLeft - 8, y + 4, "end", 11.5, kFaint, fmt::format("{:.6g}", l.step * i));
  }
  d.upright(22, l.base - kPlotHeight / 2, "middle", 12.5, kInk, fmt::format("{} ({})", figure.axis_title, l.unit.name));
  const std::string title = figure.bar_title.empty() ? figure.group_title : fmt::format("{}, by {}", figure.bar_title, figure.group_title);
  d.text(kLeft + l.plot_width / 2, l.height - 12, "middle", 12.5, kInk, title);
}

void draw_bar(Drawing& d, const Layout& l, const LayerTimeFigure::Group& group, const LayerTimeFigure::Bar& bar, double x) {
  d.add("<g><title>{}</title>",
        escape(fmt::format("{}{}{}: dispatch {} + compute {} + combine {}{} = {} {}, lower bound {} {}{}", group.label, bar.label.empty() ? "" : ", ", bar.label,
                           short_number(bar.dispatch_s / l.unit.seconds), short_number(bar.compute_s / l.unit.seconds), short_number(bar.combine_s / l.unit.seconds),
                           bar.waited_s > 0 ? fmt::format(" + waiting for weights {}", short_number(bar.waited_s / l.unit.seconds)) : "", short_number(bar.total_s() / l.unit.seconds), l.unit.name, short_number(bar.lower_bound_s / l.unit.seconds), l.unit.name,
                           bar.drop_rate > 0 ? fmt::format(", {:.2f}% of choices dropped", 100 * bar.drop_rate) : "")));
  double below = 0;
  for (const Part& part : kParts) {
    const double seconds = bar.*part.seconds, top = l.y(below + seconds);
    if (seconds > 0) d.add(R"(<rect x="{:.1f}" y="{:.2f}" width="{:.1f}" height="{:.2f}" fill="{}"/>)", x, top, l.bar, l.y(below) - top, part.colour);
    below += seconds;
  }
  if (bar.lower_bound_s > 0) {
    const double y = l.y(bar.lower_bound_s);
    d.add(R"(<path d="M{:.1f} {:.2f}h{:.1f}" stroke="#ffffff" stroke-width="5"/>)", x, y, l.bar);
    d.add(R"(<path d="M{:.1f} {:.2f}h{:.1f}" stroke="{}" stroke-width="2.4"/>)", x - 3, y, l.bar + 6, kInk);
  }
  d.add("</g>");

  const double middle = x + l.bar / 2, top = std::min(l.y(bar.total_s()), bar.lower_bound_s > 0 ? l.y(bar.lower_bound_s) - 3 : l.base) - 5;
  const std::string value = short_number(bar.total_s() / l.unit.seconds);
  const std::string dropped = bar.drop_rate <= 0 ? "" : bar.drop_rate < 0.0005 ? "−<0.1%" : fmt::format("−{:.1f}%", 100 * bar.drop_rate);
  if (l.upright_values) {
    d.upright(middle + 4, top, "start", 11, kInk, value);
    if (!dropped.empty()) d.upright(middle + 4, top - width_of(value, 11) - 8, "start", 11, kDropInk, dropped);
  } else {
    d.text(middle, top, "middle", 11.5, kInk, value);
    if (!dropped.empty()) d.text(middle, top - 14, "middle", 11.5, kDropInk, dropped);
  }
  if (bar.label.empty()) return;
  if (l.upright_labels)
    d.upright(middle + 4, l.base + 8, "end", 11, kFaint, bar.label);
  else
    d.text(middle, l.base + 17, "middle", 11.5, kFaint, bar.label);
}

}  // namespace

std::string to_svg(const LayerTimeFigure& figure) {
  const Layout l = lay_out(figure);
  bool drops = false, waits = false;
  for (const auto& group : figure.groups)
    for (const auto& bar : group.bars) drops = drops || bar.drop_rate > 0, waits = waits || bar.waited_s > 0;
  Drawing d;
  d.text(kLeft, 30, "start", 17, kInk, figure.title, R"( font-weight="600")");
  d.text(kLeft, 50, "start", 12.5, kFaint, figure.subtitle);
  draw_legend(d, drops, waits);
  draw_axis(d, figure, l);
  for (std::size_t g = 0; g < figure.groups.size(); ++g) {
    const auto& group = figure.groups[g];
    for (std::size_t b = 0; b < group.bars.size(); ++b) draw_bar(d, l, group, group.bars[b], l.bar_left(g, b, group.bars.size()));
    double y = l.base + 4 + l.bar_labels;
    for (const std::string& line : l.group_lines[g]) d.text(l.group_left[g] + l.group_width[g] / 2, y += 17, "middle", 12.5, kInk, line);
  }
  return d.svg(l.width, l.height, figure.title);
}

}  // namespace epsim
