#include <fmt/format.h>

#include <map>

#include "base/setting.h"
#include "base/units.h"
#include "workloads/import/formats.h"

namespace epsim {
namespace {

std::int64_t whole(const Setting& s, std::string_view what, std::int64_t max) {
  const auto v = s.is_scalar() ? parse_integer(s.text) : std::nullopt;
  if (!v || *v < 0 || *v > max) throw InputError(s.at, fmt::format("`{}` must be a whole number from 0 to {}", what, max));
  return *v;
}

}  // namespace

Recording read_tensorrt_balancer(const SourceFiles& files, const ImportOptions& options) {
  if (files.size() > 1) throw InputError({files[1]}, "a balancer's settings are one file");
  const Setting root = parse_yaml(files.front());
  const Setting* assignments = root.is_map() ? root.find("initial_global_assignments") : nullptr;
  const Setting* slots = root.is_map() ? root.find("num_slots") : nullptr;
  if (!assignments || !assignments->is_map()) throw InputError({files.front()}, "expected `initial_global_assignments`, the experts of the slots by layer");
  if (!slots) throw InputError({files.front()}, "expected `num_slots`");
  const std::int64_t count = whole(*slots, "num_slots", std::int64_t{1} << 20);
  if (options.ranks < 1) throw InputError(slots->at, "the file does not say how many ranks the slots lie on: give `--ranks`");
  if (count == 0 || count % options.ranks != 0)
    throw InputError(slots->at, fmt::format("{} slots do not divide by {} ranks: TensorRT-LLM gives each rank equally many", count, options.ranks));
  std::map<std::int64_t, std::vector<std::int32_t>> by_layer;
  for (const Setting::Entry& entry : assignments->entries) {
    const auto layer = parse_integer(entry.key);
    if (!layer || *layer < 0 || *layer > 1'000'000) throw InputError(entry.at, "expected the index of a layer");
    std::vector<std::int32_t>& experts = by_layer[*layer];
    for (const Setting& item : entry.value.items) experts.push_back(static_cast<std::int32_t>(whole(item, "initial_global_assignments", kMostExperts - 1)));
    if (static_cast<std::int64_t>(experts.size()) != count) throw InputError(entry.at, fmt::format("layer {} has {} slots, `num_slots` is {}", *layer, experts.size(), count));
  }
  if (by_layer.empty()) throw InputError(assignments->at, "`initial_global_assignments` has no layers");
  Recording out;
  RecordedSlots data;
  std::vector<std::int32_t> first;
  for (std::int64_t r = 0; r <= options.ranks; ++r) first.push_back(static_cast<std::int32_t>(count / options.ranks * r));
  for (auto& [layer, experts] : by_layer) out.layers.push_back(static_cast<int>(layer)), data.expert_of_slot.push_back(std::move(experts)), data.first_slot.push_back(first);
  out.rows = static_cast<std::int64_t>(out.layers.size());
  out.found = "TensorRT-LLM balancer settings";
  out.data = std::move(data);
  return out;
}

}  // namespace epsim
