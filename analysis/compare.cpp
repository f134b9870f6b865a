#include "analysis/compare.h"

#include <algorithm>
#include <limits>

#include <fmt/format.h>

namespace epsim {
namespace {

/// "eplb slots 288" for "{eplb: {slots: 288}}": a value as a label.
std::string label_of(const std::string& value) {
  std::string label;
  for (const char c : value)
    if (std::string_view("{}:'\"").find(c) == std::string_view::npos) label += c;
  return label;
}

}  // namespace

Axis parse_axis(const std::string& text) {
  const auto source = std::make_shared<SourceText>(SourceText{"--over", text});
  const std::size_t equals = text.find('=');
  if (equals == std::string::npos || equals == 0) throw InputError(locate(source, 0), "expected key=value,value,..., such as placement=contiguous,eplb");
  Axis axis{text.substr(0, equals), {}};
  int depth = 0;
  char quote = 0;
  std::size_t begin = equals + 1;
  const auto take = [&](std::size_t end) {
    const std::size_t first = text.find_first_not_of(' ', begin), last = text.find_last_not_of(' ', end == 0 ? 0 : end - 1);
    if (first >= end) throw InputError(locate(source, begin), fmt::format("a value of `{}` is empty", axis.key));
    axis.values.push_back(text.substr(first, last - first + 1));
    if (std::count(axis.values.begin(), axis.values.end(), axis.values.back()) > 1)
      throw InputError(locate(source, first), fmt::format("`{}` has the value {} twice", axis.key, axis.values.back()));
    begin = end + 1;
  };
  for (std::size_t i = equals + 1; i < text.size(); ++i) {
    const char c = text[i];
    if (quote) {
      if (c == quote) quote = 0;
    } else if (c == '"' || c == '\'') {
      quote = c;
    } else if (c == '{' || c == '[') {
      ++depth;
    } else if (c == '}' || c == ']') {
      --depth;
    } else if (c == ',' && depth == 0) {
      take(i);
    }
    if (depth < 0) throw InputError(locate(source, i), "this closes a bracket that was not opened");
  }
  if (depth > 0 || quote) throw InputError(locate(source, begin), "a bracket or quote is not closed");
  take(text.size());
  return axis;
}

ComparedPoint compared_point(std::vector<std::string> values, const RunMetrics& run) {
  ComparedPoint p;
  p.values = std::move(values);
  p.total_s = run.total_s;
  for (const LayerMetrics& m : run.layers) {
    p.dispatch_s += m.dispatch_s, p.compute_s += m.compute_s, p.combine_s += m.combine_s, p.lower_bound_s += m.lower_bound_s;
    p.rank_load_max_over_mean += m.rank_load.max_over_mean / static_cast<double>(run.layers.size());
    p.choices += m.choices, p.dropped_choices += m.drops.choices;
  }
  p.bottleneck = run.bottleneck;
  return p;
}

double Comparison::best_s() const {
  double best = std::numeric_limits<double>::infinity();
  for (const ComparedPoint& p : points) best = std::min(best, p.total_s);
  return best;
}

const std::vector<PointField>& point_fields() {
  using P = ComparedPoint;
  static const std::vector<PointField> fields = {
      {"total_s", [](const P& p, double) -> FieldValue { return p.total_s; }},
      {"relative_to_best", [](const P& p, double best) -> FieldValue { return best > 0 ? p.total_s / best : 1.0; }},
      {"dispatch_s", [](const P& p, double) -> FieldValue { return p.dispatch_s; }},
      {"compute_s", [](const P& p, double) -> FieldValue { return p.compute_s; }},
      {"combine_s", [](const P& p, double) -> FieldValue { return p.combine_s; }},
      {"lower_bound_s", [](const P& p, double) -> FieldValue { return p.lower_bound_s; }},
      {"rank_load_max_over_mean", [](const P& p, double) -> FieldValue { return p.rank_load_max_over_mean; }},
      {"choices", [](const P& p, double) -> FieldValue { return p.choices; }},
      {"dropped_choices", [](const P& p, double) -> FieldValue { return p.dropped_choices; }},
      {"dropped_choice_rate", [](const P& p, double) -> FieldValue { return p.drop_rate(); }},
      {"bottleneck", [](const P& p, double) -> FieldValue { return p.bottleneck; }},
  };
  return fields;
}

LayerTimeFigure figure(const Comparison& c) {
  LayerTimeFigure f;
  f.title = fmt::format("{}: where the time goes", c.name);
  f.subtitle = fmt::format("{} on {}, seed {}", c.model, c.machine, c.seed);
  f.axis_title = c.layers == 1 ? "layer time" : fmt::format("time of {} layers", c.layers);
  if (c.axes.empty()) return f;
  f.group_title = c.axes.front().key;
  for (std::size_t a = 1; a < c.axes.size(); ++a) f.bar_title += (a > 1 ? ", " : "") + c.axes[a].key;
  for (const ComparedPoint& p : c.points) {
    if (f.groups.empty() || f.groups.back().label != label_of(p.values.front())) f.groups.push_back({label_of(p.values.front()), {}});
    std::string label;
    for (std::size_t a = 1; a < p.values.size(); ++a) label += (a > 1 ? ", " : "") + label_of(p.values[a]);
    f.groups.back().bars.push_back({label, p.dispatch_s, p.compute_s, p.combine_s, p.lower_bound_s, p.drop_rate()});
  }
  return f;
}

}  // namespace epsim
