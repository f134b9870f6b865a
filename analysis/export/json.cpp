#include <ostream>

#include <nlohmann/json.hpp>

#include "analysis/export/fields.h"
#include "analysis/export/writers.h"
#include "analysis/recovery.h"

namespace epsim {

using Json = nlohmann::ordered_json;

namespace {

/// A setting as JSON, keys in the order of the file. A scalar becomes a number or a boolean only where that gives its text back unchanged.
Json to_json(const Setting& setting) {
  switch (setting.kind) {
    case Setting::Kind::null: return nullptr;
    case Setting::Kind::list: {
      Json list = Json::array();
      for (const Setting& item : setting.items) list.push_back(to_json(item));
      return list;
    }
    case Setting::Kind::map: {
      Json map = Json::object();
      for (const Setting::Entry& entry : setting.entries) map[entry.key] = to_json(entry.value);
      return map;
    }
    case Setting::Kind::scalar: break;
  }
  if (setting.text == "true" || setting.text == "false") return setting.text == "true";
  if (const auto integer = parse_integer(setting.text); integer && std::to_string(*integer) == setting.text) return *integer;
  if (const auto number = parse_number(setting.text); number && format_number(*number) == setting.text) return *number;
  return setting.text;
}

}  // namespace

void write_json(std::ostream& out, const Experiment& experiment, const RunMetrics& run) {
  Json root;
  root["name"] = experiment.name;
  root["model"] = experiment.model.name;
  root["seed"] = experiment.seed;
  root["ranks"] = experiment.topology.ranks();
  root["nodes"] = experiment.topology.nodes();
  root["device"] = experiment.topology.device().name;
  root["total_s"] = run.total_s;
  root["batches"] = run.batches();
  root["slowest_batch"] = run.slowest_batch;
  root["slowest_layer"] = run.slowest_layer;
  root["bottleneck"] = run.bottleneck;
  std::visit([&](const auto& value) { root["break_even_batches"] = value; }, break_even_field(run.break_even));
  Json& events = root["events"] = Json::array();
  for (const Recovery& r : recoveries(experiment, run))
    events.push_back({{"batch", r.batch}, {"what", r.what}, {"ranks_up", r.ranks_up}, {"moved_bytes", r.moved_bytes}, {"restored_bytes", r.restored_bytes}, {"waited_s", r.waited_s},
                      {"before_s", r.before_s}, {"settled_s", r.settled_s}, {"recovery_batches", r.recovery_batches}, {"recovery_s", r.recovery_s}});
  Json& layers = root["layers"] = Json::array();
  for (const LayerMetrics& layer : run.layers) {
    Json row;
    for (const LayerField& field : layer_fields()) std::visit([&](const auto& value) { row[std::string(field.name)] = value; }, field.value(layer));
    layers.push_back(std::move(row));
  }
  Json& links = root["links"] = Json::array();
  const auto topology_links = experiment.topology.links();
  for (std::size_t l = 0; l < topology_links.size(); ++l) {
    double dispatch = 0, combine = 0;
    for (const LayerMetrics& layer : run.layers) dispatch += layer.links[l].dispatch_bytes, combine += layer.links[l].combine_bytes;
    const Link& link = topology_links[l];
    links.push_back({{"name", link.name}, {"tier", link.tier}, {"bandwidth_bytes_per_s", link.bandwidth}, {"latency_s", link.latency.seconds()},
                     {"dispatch_bytes", static_cast<std::int64_t>(dispatch)}, {"combine_bytes", static_cast<std::int64_t>(combine)}});
  }
  for (const auto& [group, label] : trust(experiment)) root["trust"][group] = label;
  root["settings"] = to_json(experiment.resolved);
  // Names come from files: bytes that are no UTF-8 must not throw here.
  out << root.dump(2, ' ', false, Json::error_handler_t::replace) << '\n';
}

}  // namespace epsim
