#include <ostream>
#include <utility>

#include <fmt/format.h>
#include <fmt/ostream.h>
#include <nlohmann/json.hpp>

#include "analysis/compare.h"
#include "analysis/export/table.h"

namespace epsim {

void write_text(std::ostream& out, const Comparison& c) {
  fmt::print(out, "{}: {} on {}, {} {}, seed {}\n\n", c.name, c.model, c.machine, c.layers, c.layers == 1 ? "layer" : "layers", c.seed);
  std::vector<std::string> header;
  std::vector<bool> left;
  for (const Axis& axis : c.axes) header.push_back(axis.key), left.push_back(true);
  for (const char* name : {"time", "vs best", "dispatch", "compute", "combine", "bound", "max/mean", "dropped"}) header.push_back(name), left.push_back(false);
  header.push_back("bottleneck"), left.push_back(true);
  TextTable table(left);
  table.add(std::move(header));
  const double best = c.best_s();
  for (const ComparedPoint& p : c.points) {
    std::vector<std::string> row = p.values;
    for (const std::string& cell : {format_seconds(p.total_s), p.total_s == best ? std::string("best") : fmt::format("{:.3f}x", p.total_s / best), format_seconds(p.dispatch_s),
                              format_seconds(p.compute_s), format_seconds(p.combine_s), format_seconds(p.lower_bound_s), fmt::format("{:.2f}", p.rank_load_max_over_mean),
                              p.dropped_choices == 0 ? std::string("0") : fmt::format("{:.2f}%", 100 * p.drop_rate()), p.bottleneck})
      row.push_back(cell);
    table.add(std::move(row));
  }
  table.write(out);
}

void write_csv(std::ostream& out, const Comparison& c) {
  for (const Axis& axis : c.axes) out << csv_field(axis.key) << ',';
  const char* separator = "";
  for (const PointField& field : point_fields()) out << std::exchange(separator, ",") << field.name;
  out << "\r\n";
  for (const ComparedPoint& p : c.points) {
    for (const std::string& value : p.values) out << csv_field(value) << ',';
    separator = "";
    for (const PointField& field : point_fields()) out << std::exchange(separator, ",") << csv_field(field.value(p, c.best_s()));
    out << "\r\n";
  }
}

void write_json(std::ostream& out, const Comparison& c) {
  using Json = nlohmann::ordered_json;
  Json root = {{"name", c.name}, {"model", c.model}, {"machine", c.machine}, {"seed", c.seed}, {"layers", c.layers}};
  Json& axes = root["axes"] = Json::array();
  for (const Axis& axis : c.axes) axes.push_back({{"key", axis.key}, {"values", axis.values}});
  Json& points = root["points"] = Json::array();
  for (const ComparedPoint& p : c.points) {
    Json row;
    Json& set = row["set"] = Json::object();
    for (std::size_t a = 0; a < c.axes.size(); ++a) set[c.axes[a].key] = p.values[a];
    for (const PointField& field : point_fields()) std::visit([&](const auto& value) { row[std::string(field.name)] = value; }, field.value(p, c.best_s()));
    points.push_back(std::move(row));
  }
  out << root.dump(2, ' ', false, Json::error_handler_t::replace) << '\n';
}

}  // namespace epsim
