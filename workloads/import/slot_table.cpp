#include "workloads/import/slot_table.h"

#include <fmt/format.h>

#include <algorithm>

#include "workloads/import/json_tree.h"

namespace epsim {
namespace {

constexpr std::int64_t kMostSlots = std::int64_t{1} << 20;

std::vector<std::int32_t> even_blocks(const JsonReader& r, const Json& row, std::int64_t slots, int ranks) {
  if (ranks < 1 || slots % ranks != 0) r.fail(row, fmt::format("{} slots do not divide by {} ranks, and there is no `first_slot`", slots, ranks));
  std::vector<std::int32_t> first;
  for (std::int64_t rank = 0; rank <= ranks; ++rank) first.push_back(static_cast<std::int32_t>(slots / ranks * rank));
  return first;
}

std::vector<std::int32_t> given_blocks(const JsonReader& r, const Json& row, std::int64_t slots) {
  const std::vector<std::int64_t> first = r.wholes(row, "first_slot", 0, slots);
  if (first.size() < 2 || first.front() != 0 || first.back() != slots || !std::ranges::is_sorted(first)) r.fail(row, fmt::format("`first_slot` must rise from 0 to the {} slots", slots));
  return {first.begin(), first.end()};
}

}  // namespace

SlotTable read_slot_table(const std::shared_ptr<const SourceText>& file, int ranks) {
  const JsonReader r(file);
  const Json root = parse_json(file);
  const Json* theirs = root.find("physical_to_logical_map");
  const Json& table = r.list(theirs ? *theirs : r.member(root, "physical_to_logical"), "physical_to_logical");
  const Json* first = root.find("first_slot");
  if (table.items.empty()) r.fail(table, "`physical_to_logical` must be [[layer][slot]]");
  if (first && r.list(*first, "first_slot").items.size() != table.items.size())
    r.fail(*first, fmt::format("`first_slot` has {} layers, `physical_to_logical` {}", first->items.size(), table.items.size()));
  SlotTable out;
  for (std::size_t l = 0; l < table.items.size(); ++l) {
    const std::vector<std::int64_t> experts = r.wholes(table.items[l], "physical_to_logical", 0, kMostExperts - 1);
    const auto slots = static_cast<std::int64_t>(experts.size());
    if (slots == 0 || slots > kMostSlots) r.fail(table.items[l], fmt::format("a layer must have from 1 to {} slots", kMostSlots));
    out.slots.expert_of_slot.emplace_back(experts.begin(), experts.end());
    out.slots.first_slot.push_back(first ? given_blocks(r, first->items[l], slots) : even_blocks(r, table.items[l], slots, ranks));
  }
  if (const Json* layers = root.find("layers")) {
    for (const std::int64_t l : r.wholes(*layers, "layers", 0, 1'000'000)) out.layers.push_back(static_cast<int>(l));
    if (out.layers.size() != table.items.size()) r.fail(*layers, fmt::format("`layers` names {} layers, `physical_to_logical` has {}", out.layers.size(), table.items.size()));
  }
  return out;
}

}  // namespace epsim
