#include "analysis/compare.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include <boost/math/distributions/students_t.hpp>
#include <fmt/format.h>
#include <fmt/ranges.h>

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

std::vector<double> samples_of(const RunMetrics& run) {
  std::vector<double> samples_s;
  for (std::size_t i = 0; i < run.layers.size(); ++i) {
    if (i == 0 || run.layers[i].batch != run.layers[i - 1].batch) samples_s.push_back(0);
    samples_s.back() += run.layers[i].layer_s + run.layers[i].relocation.waited_s;
  }
  return samples_s;
}

int forget_repeated_seeds(std::vector<std::vector<RunMetrics>>& runs) {
  int forgotten = 0;
  for (std::size_t s = runs.empty() ? 0 : runs.front().size(); s-- > 1;) {
    if (!std::all_of(runs.begin(), runs.end(), [s](const std::vector<RunMetrics>& of_point) { return samples_of(of_point[s]) == samples_of(of_point.front()); })) continue;
    for (std::vector<RunMetrics>& of_point : runs) of_point.erase(of_point.begin() + static_cast<std::ptrdiff_t>(s));
    ++forgotten;
  }
  return forgotten;
}

ComparedPoint compared_point(std::vector<std::string> values, const std::vector<RunMetrics>& runs, double memory_bytes) {
  ComparedPoint p;
  p.values = std::move(values), p.memory_bytes = memory_bytes;
  const RunMetrics* slowest = nullptr;
  double layers = 0, longest_s = -1;
  for (const RunMetrics& run : runs) {
    p.placing_s += run.placing_s;
    const std::vector<double> samples_s = samples_of(run);
    p.samples_s.insert(p.samples_s.end(), samples_s.begin(), samples_s.end());
    double run_longest_s = 0;
    for (std::size_t i = 0; i < run.layers.size(); ++i) {
      const LayerMetrics& m = run.layers[i];
      p.dispatch_s += m.dispatch_s, p.compute_s += m.compute_s, p.combine_s += m.combine_s, p.waited_s += m.relocation.waited_s, p.lower_bound_s += m.lower_bound_s;
      p.rank_load_max_over_mean += m.rank_load.max_over_mean, p.rank_load_std_over_mean += m.rank_load.std_over_mean, p.rank_load_mean_over_max += m.rank_load.mean_over_max, p.rank_rows_max_over_mean += m.rank_rows_max_over_mean;
      p.bytes += static_cast<double>(m.dispatch_bytes + m.combine_bytes), p.cross_node_bytes += static_cast<double>(m.dispatch_cross_node_bytes + m.combine_cross_node_bytes);
      p.busiest_link_bytes += m.dispatch_busiest.bytes + m.combine_busiest.bytes;
      double weights = 0;
      for (const MemoryUse& use : m.memory) weights = std::max(weights, use.weights_bytes), p.max_rank_activations_bytes = std::max(p.max_rank_activations_bytes, use.activations_bytes), p.slots += use.slots;
      p.max_rank_weights_bytes += weights;
      p.moved_experts += static_cast<double>(m.relocation.moved_experts), p.moved_bytes += static_cast<double>(m.relocation.bytes);
      p.restored_bytes += static_cast<double>(m.relocation.restored_bytes), p.lost_tokens += m.lost_tokens;
      p.break_even.add(m.relocation);
      p.max_rank_copies += static_cast<double>(m.max_rank_copies()), p.optimum_max_rank_copies += m.optimum.load.value;
      p.busiest_links_s += m.busiest_links_s(), p.optimum_links_s += m.optimum_links_s(), p.layers_s += m.layer_s, p.optimum_s += m.optimum.layer_s.value;
      p.choices += m.choices, p.dropped_choices += m.drops.choices;
      run_longest_s = std::max(run_longest_s, m.layer_s);
      ++layers;
    }
    if (run_longest_s > longest_s) longest_s = run_longest_s, slowest = &run;
  }
  for (const double s : p.samples_s) p.total_s += s;
  const double samples = std::max(1.0, static_cast<double>(p.samples_s.size()));
  for (double* sum : {&p.total_s, &p.dispatch_s, &p.compute_s, &p.combine_s, &p.waited_s, &p.lower_bound_s, &p.bytes, &p.cross_node_bytes, &p.busiest_link_bytes, &p.max_rank_weights_bytes, &p.optimum_s,
                      &p.moved_experts, &p.moved_bytes, &p.restored_bytes})
    *sum /= samples;
  for (double* sum : {&p.rank_load_max_over_mean, &p.rank_load_std_over_mean, &p.rank_load_mean_over_max, &p.rank_rows_max_over_mean, &p.slots}) *sum /= std::max(1.0, layers);
  if (slowest) p.bottleneck = slowest->bottleneck;
  return p;
}

Difference difference(const ComparedPoint& point, const ComparedPoint& other) {
  ensure(point.samples_s.size() == other.samples_s.size(), "points are compared on the same batches");
  const double n = static_cast<double>(point.samples_s.size());
  Difference d;
  if (!(other.total_s > 0)) return d;
  for (std::size_t i = 0; i < point.samples_s.size(); ++i) d.mean += (point.samples_s[i] - other.samples_s[i]) / other.total_s / n;
  if (n < 2) return {d.mean, std::numeric_limits<double>::infinity()};
  double squares = 0;
  for (std::size_t i = 0; i < point.samples_s.size(); ++i) {
    const double off = (point.samples_s[i] - other.samples_s[i]) / other.total_s - d.mean;
    squares += off * off;
  }
  d.half_width = boost::math::quantile(boost::math::students_t(n - 1), 0.975) * std::sqrt(squares / (n - 1) / n);
  return d;
}

std::string Comparison::subject() const { return model + (model.empty() || machine.empty() ? "" : " on ") + machine; }

std::string Comparison::samples() const {
  std::vector<std::string> facts;
  if (batches > 1) facts.push_back(fmt::format("means of {} batches", batches));
  if (seeds > 1)
    facts.push_back(fmt::format("{} seeds{}", seeds, seed ? fmt::format(" from {}", *seed) : ""));
  else if (seed)
    facts.push_back(fmt::format("seed {}", *seed));
  return fmt::format("{}", fmt::join(facts, ", "));
}

const ComparedPoint& Comparison::best() const {
  return *std::min_element(points.begin(), points.end(), [](const ComparedPoint& a, const ComparedPoint& b) { return a.total_s < b.total_s; });
}

const std::vector<PointField>& point_fields() {
  using P = ComparedPoint;
  static const std::vector<PointField> fields = {
      {"total_s", [](const P& p, const P&) -> FieldValue { return p.total_s; }},
      {"relative_to_best", [](const P& p, const P& best) -> FieldValue { return best.total_s > 0 ? p.total_s / best.total_s : 1.0; }},
      {"relative_to_best_half_width",
       [](const P& p, const P& best) -> FieldValue {
         const double half_width = difference(p, best).half_width;
         return std::isfinite(half_width) ? FieldValue(half_width) : FieldValue(std::string());
       }},
      {"dispatch_s", [](const P& p, const P&) -> FieldValue { return p.dispatch_s; }},
      {"compute_s", [](const P& p, const P&) -> FieldValue { return p.compute_s; }},
      {"combine_s", [](const P& p, const P&) -> FieldValue { return p.combine_s; }},
      {"waited_s", [](const P& p, const P&) -> FieldValue { return p.waited_s; }},
      {"lower_bound_s", [](const P& p, const P&) -> FieldValue { return p.lower_bound_s; }},
      {"optimum_s", [](const P& p, const P&) -> FieldValue { return p.optimum_s; }},
      {"layer_gap", [](const P& p, const P&) -> FieldValue { return gap(p.layers_s, p.optimum_s * static_cast<double>(p.samples_s.size())); }},
      {"links_gap", [](const P& p, const P&) -> FieldValue { return gap(p.busiest_links_s, p.optimum_links_s); }},
      {"load_gap", [](const P& p, const P&) -> FieldValue { return gap(p.max_rank_copies, p.optimum_max_rank_copies); }},
      {"rank_load_max_over_mean", [](const P& p, const P&) -> FieldValue { return p.rank_load_max_over_mean; }},
      {"rank_load_std_over_mean", [](const P& p, const P&) -> FieldValue { return p.rank_load_std_over_mean; }},
      {"rank_load_mean_over_max", [](const P& p, const P&) -> FieldValue { return p.rank_load_mean_over_max; }},
      {"rank_rows_max_over_mean", [](const P& p, const P&) -> FieldValue { return p.rank_rows_max_over_mean; }},
      {"bytes", [](const P& p, const P&) -> FieldValue { return p.bytes; }},
      {"cross_node_bytes", [](const P& p, const P&) -> FieldValue { return p.cross_node_bytes; }},
      {"busiest_link_bytes", [](const P& p, const P&) -> FieldValue { return p.busiest_link_bytes; }},
      {"choices", [](const P& p, const P&) -> FieldValue { return p.choices; }},
      {"dropped_choices", [](const P& p, const P&) -> FieldValue { return p.dropped_choices; }},
      {"dropped_choice_rate", [](const P& p, const P&) -> FieldValue { return p.drop_rate(); }},
      {"slots", [](const P& p, const P&) -> FieldValue { return p.slots; }},
      {"max_rank_weights_bytes", [](const P& p, const P&) -> FieldValue { return p.max_rank_weights_bytes; }},
      {"max_rank_activations_bytes", [](const P& p, const P&) -> FieldValue { return p.max_rank_activations_bytes; }},
      {"moved_experts", [](const P& p, const P&) -> FieldValue { return p.moved_experts; }},
      {"moved_bytes", [](const P& p, const P&) -> FieldValue { return p.moved_bytes; }},
      {"restored_bytes", [](const P& p, const P&) -> FieldValue { return p.restored_bytes; }},
      {"lost_tokens", [](const P& p, const P&) -> FieldValue { return p.lost_tokens; }},
      {"break_even_batches", [](const P& p, const P&) -> FieldValue { return break_even_field(p.break_even); }},
      {"bottleneck", [](const P& p, const P&) -> FieldValue { return p.bottleneck; }},
  };
  return fields;
}

LayerTimeFigure figure(const Comparison& c) {
  LayerTimeFigure f;
  f.title = fmt::format("{}: where the time goes", c.name);
  f.subtitle = c.subject();
  if (const std::string samples = c.samples(); !samples.empty()) f.subtitle += (f.subtitle.empty() ? "" : ", ") + samples;
  f.axis_title = c.layers == 1 ? "layer time" : c.layers == 0 ? "time of all layers" : fmt::format("time of {} layers", c.layers);
  if (c.axes.empty() || c.points.empty()) return f;
  const ComparedPoint& best = c.best();
  f.interval = "95 % interval of the difference to the best";
  f.group_title = c.axes.front().key;
  for (std::size_t a = 1; a < c.axes.size(); ++a) f.bar_title += (a > 1 ? ", " : "") + c.axes[a].key;
  for (const ComparedPoint& p : c.points) {
    if (f.groups.empty() || f.groups.back().label != label_of(p.values.front())) f.groups.push_back({label_of(p.values.front()), {}});
    std::string label;
    for (std::size_t a = 1; a < p.values.size(); ++a) label += (a > 1 ? ", " : "") + label_of(p.values[a]);
    const double half_width = difference(p, best).half_width;
    f.groups.back().bars.push_back({label, p.dispatch_s, p.compute_s, p.combine_s, p.lower_bound_s, p.drop_rate(), p.waited_s, std::isfinite(half_width) ? half_width * best.total_s : 0});
  }
  return f;
}

}  // namespace epsim
