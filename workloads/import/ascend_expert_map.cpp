#include <fmt/format.h>

#include "workloads/import/formats.h"
#include "workloads/import/json_tree.h"

namespace epsim {
namespace {

/// Where a list numbers its entries, they must be in order.
void check_number(const JsonReader& r, const Json& entry, const std::string& key, std::int64_t expected) {
  const Json* number = entry.find(key);
  if (number && r.whole(*number, key, 0, 1'000'000) != expected) r.fail(*number, fmt::format("`{}` is {}, expected {}: entries must be in order", key, number->number, expected));
}

}  // namespace

Recording read_ascend_expert_map(const SourceFiles& files, const ImportOptions&) {
  const JsonReader r(files.front());
  if (files.size() > 1) throw InputError({files[1]}, "an expert map is one file");
  const Json root = parse_json(files.front());
  const Json& layers = r.list(r.member(root, "layer_list"), "layer_list");
  RecordedSlots slots;
  for (const Json& layer : layers.items) {
    check_number(r, layer, "layer_id", static_cast<std::int64_t>(slots.expert_of_slot.size()));
    const Json& devices = r.list(r.member(layer, "device_list"), "device_list");
    std::vector<std::int32_t>& experts = slots.expert_of_slot.emplace_back();
    std::vector<std::int32_t>& first = slots.first_slot.emplace_back(1, 0);
    for (const Json& device : devices.items) {
      check_number(r, device, "device_id", static_cast<std::int64_t>(first.size()) - 1);
      for (const std::int64_t e : r.wholes(r.member(device, "device_expert"), "device_expert", 0, kMostExperts - 1)) experts.push_back(static_cast<std::int32_t>(e));
      first.push_back(static_cast<std::int32_t>(experts.size()));
    }
    const Json* count = layer.find("device_count");
    if (count && r.whole(*count, "device_count", 0, 1'000'000) != static_cast<std::int64_t>(first.size()) - 1)
      r.fail(*count, fmt::format("`device_count` is {}, but `device_list` has {} devices", count->number, first.size() - 1));
    if (experts.empty()) r.fail(devices, "this layer has no experts");
  }
  const Json* count = root.find("moe_layer_count");
  if (count && r.whole(*count, "moe_layer_count", 0, 1'000'000) != static_cast<std::int64_t>(slots.expert_of_slot.size()))
    r.fail(*count, fmt::format("`moe_layer_count` is {}, but `layer_list` has {} layers", count->number, slots.expert_of_slot.size()));
  if (slots.expert_of_slot.empty()) r.fail(layers, "`layer_list` has no layers");
  Recording out;
  out.found = "vllm-ascend expert map";
  out.rows = static_cast<std::int64_t>(slots.expert_of_slot.size());
  out.data = std::move(slots);
  return out;
}

}  // namespace epsim
