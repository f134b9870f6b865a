#include "analysis/plot/layer_time.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include <fmt/format.h>

#include "analysis/plot/drawing.h"

namespace epsim {
namespace {

constexpr double kPlotHeight = 320, kLeft = 78, kRight = 24, kGroupGap = 30, kMinPlotWidth = 560;
constexpr double kWideBar = 46, kNarrowBar = 18;
constexpr double kLabelSize = 11, kLabelLine = 13, kWidestWord = 220, kManyTimes = 100;
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

/// An upright label in few enough lines to stand beside others, each as short as that allows.
std::vector<std::string> wrap_upright(const std::string& label, std::size_t most_lines) {
  for (double width = 160;; width *= 1.1)
    if (std::vector<std::string> lines = wrap(label, width, kLabelSize); lines.size() <= most_lines) return lines;
}

double widest(const std::vector<std::string>& lines, double size) {
  double width = 0;
  for (const std::string& line : lines) width = std::max(width, width_of(line, size));
  return width;
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
  std::vector<std::string> title_lines;  ///< of the horizontal axis
  std::size_t label_lines = 1;           ///< that fit beside each other below a bar
  Unit unit{"s", 1};
  double axis_low = 0, axis_top = 1, step = 1;  ///< in units; an axis that begins above 0 is logarithmic

  bool logarithmic() const { return axis_low > 0; }
  double share(double seconds) const {
    const double v = seconds / unit.seconds;
    return logarithmic() ? std::log10(std::max(v, axis_low) / axis_low) / std::log10(axis_top / axis_low) : std::max(v, 0.0) / axis_top;
  }
  double y(double seconds) const { return base - kPlotHeight * share(seconds); }
  double bar_left(std::size_t group, std::size_t index, std::size_t bars) const {
    const double used = static_cast<double>(bars) * (bar + gap) - gap;
    return group_left[group] + (group_width[group] - used) / 2 + static_cast<double>(index) * (bar + gap);
  }
};

Layout lay_out(const LayerTimeFigure& figure) {
  Layout l;
  std::size_t bars = 0;
  double longest_s = 0, longest_bar_s = 0, shortest_bar_s = 0, widest_label = 0;
  bool labelled = false, drops = false;
  for (const auto& group : figure.groups)
    for (const auto& bar : group.bars) {
      ++bars;
      longest_s = std::max({longest_s, bar.total_s() + bar.half_width_s, bar.lower_bound_s});
      longest_bar_s = std::max(longest_bar_s, bar.total_s());
      if (bar.total_s() > 0 && (shortest_bar_s == 0 || bar.total_s() < shortest_bar_s)) shortest_bar_s = bar.total_s();
      widest_label = std::max(widest_label, width_of(bar.label, kLabelSize));
      labelled = labelled || !bar.label.empty();
      drops = drops || bar.drop_rate > 0;
    }
  if (bars > static_cast<std::size_t>(kManyBars)) l.bar = kNarrowBar, l.gap = 5, l.upright_values = true;
  l.upright_labels = widest_label > l.bar + l.gap - 4;
  l.label_lines = static_cast<std::size_t>((l.bar + l.gap) / kLabelLine);
  l.bar_labels = labelled ? 18 : 0;
  if (l.upright_labels)
    for (const auto& group : figure.groups)
      for (const auto& bar : group.bars) l.bar_labels = std::max(l.bar_labels, widest(wrap_upright(bar.label, l.label_lines), kLabelSize) + 10);

  double left = kLeft + kGroupGap / 2;
  std::size_t most_lines = 1;
  for (const auto& group : figure.groups) {
    const double used = static_cast<double>(group.bars.size()) * (l.bar + l.gap) - l.gap;
    l.group_left.push_back(left);
    l.group_width.push_back(std::max({used, std::min(width_of(group.label, 12.5), 110.0), std::min(widest(wrap(group.label, 0, 12.5), 12.5), kWidestWord)}));
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
  if (longest_bar_s > kManyTimes * shortest_bar_s && shortest_bar_s > 0) {
    l.axis_low = std::pow(10, std::floor(std::log10(shortest_bar_s / l.unit.seconds / 1.5)));  // the shortest bar still has a height
    l.axis_top = std::pow(10, std::ceil(std::log10(top) - 1e-9));
  } else {
    l.step = tick_step(top);
    l.axis_top = l.step * std::ceil(top / l.step - 1e-9);
  }
  // Room for what stands above the tallest bar, less what the rounded axis leaves free.
  const double above = l.upright_values ? (drops ? 92 : 44) : (drops ? 34 : 20);
  l.top = 104 + std::max(0.0, above - kPlotHeight * (1 - l.share(longest_s)));
  l.base = l.top + kPlotHeight;
  l.group_labels = 18.0 * static_cast<double>(most_lines);
  l.width = kLeft + l.plot_width + kRight;
  const std::string title = figure.bar_title.empty() ? figure.group_title : fmt::format("{}, by {}", figure.bar_title, figure.group_title);
  l.title_lines = wrap(title, l.plot_width, 12.5);
  l.height = l.base + 8 + l.bar_labels + l.group_labels + 17 + 17 * static_cast<double>(l.title_lines.size());
  return l;
}

/// What of the figure's bars the legend tells.
struct Shown {
  bool drops = false, waits = false, intervals = false;
};

Shown shown(const LayerTimeFigure& figure) {
  Shown s;
  for (const auto& group : figure.groups)
    for (const auto& bar : group.bars) s.drops = s.drops || bar.drop_rate > 0, s.waits = s.waits || bar.waited_s > 0, s.intervals = s.intervals || bar.half_width_s > 0;
  return s;
}

/// A line with caps, `up` and `down` from a point.
void draw_whisker(Drawing& d, double x, double top, double bottom) {
  const std::string path = fmt::format("M{0:.1f} {2:.2f}h8M{1:.1f} {2:.2f}V{3:.2f}M{0:.1f} {3:.2f}h8", x - 4, x, top, bottom);
  d.add(R"(<path d="{}" fill="none" stroke="#ffffff" stroke-width="3.4"/>)", path);
  d.add(R"(<path d="{}" fill="none" stroke="{}" stroke-width="1.4"/>)", path, kInk);
}

/// Draws the legend from `y` on in as many lines as it takes and gives how much further down than one line it goes.
double draw_legend(Drawing& d, const LayerTimeFigure& figure, const Layout& l, double y) {
  const Shown s = shown(figure);
  const double first = y;
  double x = kLeft;
  /// Room for a mark of a width and its name; gives where the mark begins.
  const auto item = [&](double mark, std::string_view name) {
    const double width = mark + width_of(name, 12.5) + 22;
    if (x > kLeft && x + width - 22 > l.width - kRight) x = kLeft, y += 20;
    d.text(x + mark, y, "start", 12.5, kInk, name);
    return std::exchange(x, x + width);
  };
  for (const Part& part : kParts) {
    if (part.seconds == &LayerTimeFigure::Bar::waited_s && !s.waits) continue;
    const double at = item(19, part.name);
    d.add(R"(<rect x="{:.1f}" y="{:.1f}" width="13" height="13" fill="{}"/>)", at, y - 11, part.colour);
  }
  const double bound = item(26, "lower bound");
  d.add(R"(<path d="M{:.1f} {:.1f}h20" stroke="{}" stroke-width="2.4"/>)", bound, y - 4.5, kInk);
  if (s.intervals) {
    const double at = item(15, figure.interval);
    draw_whisker(d, at + 4, y - 11, y + 2);
  }
  if (s.drops) {
    const double at = item(36, "choices dropped");
    d.text(at, y, "start", 12.5, kDropInk, "−1%");
  }
  return y - first;
}

void draw_axis(Drawing& d, const LayerTimeFigure& figure, const Layout& l) {
  const double decades = l.logarithmic() ? std::log10(l.axis_top / l.axis_low) : 0;
  const int ticks = static_cast<int>(std::lround(l.logarithmic() ? decades : l.axis_top / l.step));
  for (int i = 0; i <= ticks; ++i) {
    const double y = l.base - kPlotHeight * i / ticks;
    d.add(R"(<path d="M{:.1f} {:.1f}h{:.1f}" stroke="{}" stroke-width="1"/>)", kLeft, y, l.plot_width, i == 0 ? kInk : kGrid);
    d.text(kLeft - 8, y + 4, "end", 11.5, kFaint, fmt::format("{:.6g}", l.logarithmic() ? l.axis_low * std::pow(10, i) : l.step * i));
  }
  d.upright(22, l.base - kPlotHeight / 2, "middle", 12.5, kInk, fmt::format("{} ({}{})", figure.axis_title, l.unit.name, l.logarithmic() ? "; logarithmic, a bar's parts in proportion" : ""));
  double y = l.height - 12 - 17 * static_cast<double>(l.title_lines.size());
  for (const std::string& line : l.title_lines) d.text(kLeft + l.plot_width / 2, y += 17, "middle", 12.5, kInk, line);
}

void draw_bar(Drawing& d, const Layout& l, const LayerTimeFigure::Group& group, const LayerTimeFigure::Bar& bar, double x) {
  d.add("<g><title>{}</title>",
        escape(fmt::format("{}{}{}: dispatch {} + compute {} + combine {}{} = {} {}, lower bound {} {}{}", group.label, bar.label.empty() ? "" : ", ", bar.label,
                           short_number(bar.dispatch_s / l.unit.seconds), short_number(bar.compute_s / l.unit.seconds), short_number(bar.combine_s / l.unit.seconds),
                           bar.waited_s > 0 ? fmt::format(" + waiting for weights {}", short_number(bar.waited_s / l.unit.seconds)) : "", short_number(bar.total_s() / l.unit.seconds), l.unit.name, short_number(bar.lower_bound_s / l.unit.seconds), l.unit.name,
                           bar.drop_rate > 0 ? fmt::format(", {:.2f}% of choices dropped", 100 * bar.drop_rate) : "")));
  const double height = l.base - l.y(bar.total_s());
  double below = 0;
  for (const Part& part : kParts) {
    const double seconds = bar.*part.seconds;
    if (seconds > 0)
      d.add(R"(<rect x="{:.1f}" y="{:.2f}" width="{:.1f}" height="{:.2f}" fill="{}"/>)", x, l.base - height * (below + seconds) / bar.total_s(), l.bar, height * seconds / bar.total_s(), part.colour);
    below += seconds;
  }
  if (bar.lower_bound_s > l.axis_low * l.unit.seconds) {
    const double y = l.y(bar.lower_bound_s);
    d.add(R"(<path d="M{:.1f} {:.2f}h{:.1f}" stroke="#ffffff" stroke-width="5"/>)", x, y, l.bar);
    d.add(R"(<path d="M{:.1f} {:.2f}h{:.1f}" stroke="{}" stroke-width="2.4"/>)", x - 3, y, l.bar + 6, kInk);
  }
  const double middle = x + l.bar / 2;
  if (bar.half_width_s > 0) draw_whisker(d, middle, l.y(bar.total_s() + bar.half_width_s), l.y(bar.total_s() - bar.half_width_s));
  d.add("</g>");

  const double top = std::min(l.y(bar.total_s() + bar.half_width_s), bar.lower_bound_s > 0 ? l.y(bar.lower_bound_s) - 3 : l.base) - 5;
  const std::string value = l.logarithmic() ? fmt::format("{:.3g}", bar.total_s() / l.unit.seconds) : short_number(bar.total_s() / l.unit.seconds);
  const std::string dropped = bar.drop_rate <= 0 ? "" : bar.drop_rate < 0.0005 ? "−<0.1%" : fmt::format("−{:.1f}%", 100 * bar.drop_rate);
  if (l.upright_values) {
    d.upright(middle + 4, top, "start", 11, kInk, value, kHalo);
    if (!dropped.empty()) d.upright(middle + 4, top - width_of(value, 11) - 8, "start", 11, kDropInk, dropped, kHalo);
  } else {
    d.text(middle, top, "middle", 11.5, kInk, value, kHalo);
    if (!dropped.empty()) d.text(middle, top - 14, "middle", 11.5, kDropInk, dropped, kHalo);
  }
  if (bar.label.empty()) return;
  if (!l.upright_labels) return d.text(middle, l.base + 17, "middle", 11.5, kFaint, bar.label);
  const std::vector<std::string> lines = wrap_upright(bar.label, l.label_lines);
  double along = middle + 4 - kLabelLine * (static_cast<double>(lines.size()) - 1) / 2;
  for (const std::string& line : lines) d.upright(along, l.base + 8, "end", kLabelSize, kFaint, line), along += kLabelLine;
}

}  // namespace

std::string to_svg(const LayerTimeFigure& figure) {
  Layout l = lay_out(figure);
  Drawing d;
  double further = d.heading(kLeft, l.width - kLeft - kRight, figure.title, figure.subtitle);
  further += draw_legend(d, figure, l, 80 + further);
  l.top += further, l.base += further, l.height += further;
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
