#include <algorithm>
#include <cmath>
#include <ostream>
#include <utility>

#include <fmt/format.h>
#include <fmt/ostream.h>
#include <nlohmann/json.hpp>

#include "analysis/compare.h"
#include "analysis/export/table.h"

namespace epsim {

namespace {

/// "best", or how much longer than the best, with its confidence interval where there are several samples.
std::string beside_best(const ComparedPoint& p, const ComparedPoint& best) {
  if (&p == &best) return "best";
  const Difference d = difference(p, best);
  return std::isfinite(d.half_width) ? fmt::format("{:+.1f}% \u00b1{:.1f}", 100 * d.mean, 100 * d.half_width) : fmt::format("{:+.1f}%", 100 * d.mean);
}

/// Batches after which a move has paid for itself.
std::string pays_after(const BreakEven& b) {
  const std::optional<double> batches = b.batches();
  if (!batches) return "";
  const std::string number = fmt::format("{:.3g}", *batches);
  return std::isfinite(*batches) ? number + (number == "1" ? " batch" : " batches") : "never";
}

std::string percent(double share) { return fmt::format("{:.1f}%", 100 * share); }

}  // namespace

void write_text(std::ostream& out, const Comparison& c) {
  std::vector<std::string> facts;
  if (!c.subject().empty()) facts.push_back(c.subject());
  if (c.layers > 0) facts.push_back(fmt::format("{} {}", c.layers, c.layers == 1 ? "layer" : "layers"));
  if (!c.samples().empty()) facts.push_back(c.samples());
  fmt::print(out, "{}{}{}\n\n", c.name, facts.empty() ? "" : ": ", fmt::join(facts, ", "));
  const auto any = [&](auto value) { return std::any_of(c.points.begin(), c.points.end(), [&](const ComparedPoint& p) { return value(p) > 0; }); };
  const bool drops = any([](const ComparedPoint& p) { return p.drop_rate(); }), crosses = any([](const ComparedPoint& p) { return p.cross_node_bytes; });
  const bool moves = any([](const ComparedPoint& p) { return p.moved_bytes; }), waits = any([](const ComparedPoint& p) { return p.waited_s; });
  const bool restores = any([](const ComparedPoint& p) { return p.restored_bytes; }), loses = any([](const ComparedPoint& p) { return static_cast<double>(p.lost_tokens); });
  const bool pays = std::any_of(c.points.begin(), c.points.end(), [](const ComparedPoint& p) { return p.break_even.moves > 0; });
  const bool fill_otherwise = std::any_of(c.points.begin(), c.points.end(), [&](const ComparedPoint& p) { return p.slots != c.points.front().slots; });
  std::vector<std::string> header;
  std::vector<bool> left;
  const auto column = [&](std::string name, bool is_left = false) { header.push_back(std::move(name)), left.push_back(is_left); };
  for (const Axis& axis : c.axes) column(axis.key, true);
  for (const char* name : {"time", "vs best", "dispatch", "compute", "combine", "optimum >=", "gap", "max/mean", "load gap", "bytes"}) column(name);
  if (crosses) column("cross-node");
  column("busiest link"), column("link gap");
  if (drops) column("dropped");
  if (moves) column("moved");
  if (waits) column("waited");
  if (pays) column("pays after");
  if (restores) column("restored");
  if (loses) column("lost tokens");
  if (fill_otherwise) column("slots");
  column("weights"), column("placing"), column("bottleneck", true);
  TextTable table(left);
  table.add(std::move(header));
  const ComparedPoint& best = c.best();
  for (const ComparedPoint& p : c.points) {
    std::vector<std::string> row = p.values;
    for (const std::string& cell : {format_seconds(p.total_s), beside_best(p, best), format_seconds(p.dispatch_s), format_seconds(p.compute_s), format_seconds(p.combine_s), format_seconds(p.optimum_s),
                                    percent(gap(p.layers_s, p.optimum_s * static_cast<double>(p.samples_s.size()))), fmt::format("{:.3f}", p.rank_load_max_over_mean),
                                    percent(gap(p.max_rank_copies, p.optimum_max_rank_copies)), format_bytes(p.bytes)})
      row.push_back(cell);
    if (crosses) row.push_back(format_bytes(p.cross_node_bytes));
    row.push_back(format_bytes(p.busiest_link_bytes)), row.push_back(percent(gap(p.busiest_links_s, p.optimum_links_s)));
    if (drops) row.push_back(fmt::format("{:.2f}%", 100 * p.drop_rate()));
    if (moves) row.push_back(format_bytes(p.moved_bytes));
    if (waits) row.push_back(format_seconds(p.waited_s));
    if (pays) row.push_back(pays_after(p.break_even));
    if (restores) row.push_back(format_bytes(p.restored_bytes));
    if (loses) row.push_back(std::to_string(p.lost_tokens));
    if (fill_otherwise) row.push_back(fmt::format("{:.{}f}", p.slots, p.slots == std::floor(p.slots) ? 0 : 1));
    row.push_back(format_bytes(p.max_rank_weights_bytes)), row.push_back(format_seconds(p.placing_s)), row.push_back(p.bottleneck);
    table.add(std::move(row));
  }
  table.write(out);
  fmt::print(out, "\n  optimum >= and gaps: against what no placement into the same slots can pass, with any replica rule (where it is `round_robin`, with that); time: the layers' simulated time, load: copies on the fullest rank, link: seconds of the busiest links{}\n",
             waits ? "; gaps leave out the wait for weights" : "");
  if (pays) fmt::print(out, "  pays after: batches in which the time gained by a move adds up to what it cost (waiting, and slowing the layer)\n");
  if (std::any_of(c.points.begin(), c.points.end(), [&](const ComparedPoint& p) { return p.drop_rate() != best.drop_rate(); }))
    fmt::print(out, "  dropped: points drop different shares of choices: a quicker one may only do less work\n");
  const auto too_large = std::count_if(c.points.begin(), c.points.end(), [](const ComparedPoint& p) { return !p.fits(); });
  if (too_large > 0) {
    std::vector<std::string> names;
    for (const ComparedPoint& p : c.points)
      if (!p.fits()) names.push_back(fmt::format("{}", fmt::join(p.values, ", ")));
    fmt::print(out, "  weights: with the activations of a layer they do not fit into the memory of a rank's device at {}\n", names.size() == c.points.size() ? "any point" : fmt::format("{}", fmt::join(names, "; ")));
  }
  if (c.repeated_seeds > 0)
    fmt::print(out, "  seeds: {} of {} gave the same times as the first at every point, since nothing in them is drawn: they count as no more data\n", c.repeated_seeds, c.repeated_seeds + c.seeds);
}

void write_csv(std::ostream& out, const Comparison& c) {
  for (const Axis& axis : c.axes) out << csv_field(axis.key) << ',';
  const char* separator = "";
  for (const PointField& field : point_fields()) out << std::exchange(separator, ",") << field.name;
  out << "\r\n";
  for (const ComparedPoint& p : c.points) {
    for (const std::string& value : p.values) out << csv_field(value) << ',';
    separator = "";
    for (const PointField& field : point_fields()) out << std::exchange(separator, ",") << csv_field(field.value(p, c.best()));
    out << "\r\n";
  }
}

void write_json(std::ostream& out, const Comparison& c) {
  using Json = nlohmann::ordered_json;
  const auto or_null = [](bool known, const auto& value) { return known ? Json(value) : Json(); };
  Json root = {{"name", c.name}, {"model", or_null(!c.model.empty(), c.model)}, {"machine", or_null(!c.machine.empty(), c.machine)}, {"seed", or_null(c.seed.has_value(), c.seed.value_or(0))},
               {"seeds", c.seeds}, {"repeated_seeds", c.repeated_seeds}, {"layers", or_null(c.layers > 0, c.layers)}, {"batches", c.batches}};
  Json& axes = root["axes"] = Json::array();
  for (const Axis& axis : c.axes) axes.push_back({{"key", axis.key}, {"values", axis.values}});
  Json& points = root["points"] = Json::array();
  for (const ComparedPoint& p : c.points) {
    Json row;
    Json& set = row["set"] = Json::object();
    for (std::size_t a = 0; a < c.axes.size(); ++a) set[c.axes[a].key] = p.values[a];
    for (const PointField& field : point_fields()) std::visit([&](const auto& value) { row[std::string(field.name)] = value; }, field.value(p, c.best()));
    row["samples_s"] = p.samples_s;
    points.push_back(std::move(row));
  }
  out << root.dump(2, ' ', false, Json::error_handler_t::replace) << '\n';
}

}  // namespace epsim
