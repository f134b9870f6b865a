#include "policies/placement/shared/table.h"

namespace epsim {

std::vector<int> rooms(std::span<const std::int32_t> first_slot) {
  std::vector<int> out;
  for (std::size_t r = 0; r + 1 < first_slot.size(); ++r) out.push_back(first_slot[r + 1] - first_slot[r]);
  return out;
}

Placement placement_of(const std::vector<std::vector<int>>& experts_of_rank, int experts) {
  std::vector<std::uint16_t> expert_of_slot;
  std::vector<std::int32_t> first{0};
  for (const std::vector<int>& rank : experts_of_rank) {
    expert_of_slot.insert(expert_of_slot.end(), rank.begin(), rank.end());
    first.push_back(static_cast<std::int32_t>(expert_of_slot.size()));
  }
  return Placement::from_experts(std::move(expert_of_slot), std::move(first), experts);
}

Placement placement_of(std::span<const int> expert_of_copy, std::span<const int> rank_of_copy, std::vector<std::int32_t> first_slot, int experts) {
  std::vector<std::uint16_t> expert_of_slot(expert_of_copy.size());
  std::vector<std::int32_t> next(first_slot.begin(), first_slot.end() - 1);
  for (std::size_t i = 0; i < expert_of_copy.size(); ++i) {
    const std::int32_t slot = next[static_cast<std::size_t>(rank_of_copy[i])]++;
    expert_of_slot[static_cast<std::size_t>(slot)] = static_cast<std::uint16_t>(expert_of_copy[i]);
  }
  return Placement::from_experts(std::move(expert_of_slot), std::move(first_slot), experts);
}

Placement in_force(const Problem& problem, std::size_t layer, std::vector<std::int32_t> first_slot) {
  if (!problem.previous.empty() && problem.previous[layer].first_slot == first_slot) return problem.previous[layer];
  std::vector<std::uint16_t> experts(static_cast<std::size_t>(first_slot.back()));
  for (std::size_t s = 0; s < experts.size(); ++s) experts[s] = static_cast<std::uint16_t>(s % static_cast<std::size_t>(problem.experts));
  return Placement::from_experts(std::move(experts), std::move(first_slot), problem.experts);
}

std::vector<double> even_rank_loads(const Placement& placement, std::span<const double> loads) {
  std::vector<double> out(static_cast<std::size_t>(placement.ranks()));
  for (std::size_t r = 0; r < out.size(); ++r)
    for (std::int32_t s = placement.first_slot[r]; s < placement.first_slot[r + 1]; ++s) {
      const std::size_t e = placement.expert_of_slot[static_cast<std::size_t>(s)];
      out[r] += loads[e] / static_cast<double>(placement.slots_of_expert[e].size());
    }
  return out;
}

Placement keep_slots(const Placement& fresh, const Placement& old) {
  constexpr std::size_t kEmpty = static_cast<std::size_t>(-1);
  std::vector<std::size_t> moved_to(fresh.expert_of_slot.size());  // of each slot of `fresh`
  for (std::size_t r = 0; r + 1 < fresh.first_slot.size(); ++r) {
    const auto begin = static_cast<std::size_t>(fresh.first_slot[r]), size = static_cast<std::size_t>(fresh.first_slot[r + 1]) - begin;
    const bool same = r + 1 < old.first_slot.size() && static_cast<std::size_t>(old.first_slot[r + 1] - old.first_slot[r]) == size;
    std::vector<std::size_t> from(size, kEmpty);  // the slot in `fresh` of what slot j is to hold
    std::vector<bool> used(size);
    if (same)
      for (std::size_t j = 0; j < size; ++j)
        for (std::size_t i = 0; i < size && from[j] == kEmpty; ++i)
          if (!used[i] && fresh.expert_of_slot[begin + i] == old.expert_of_slot[static_cast<std::size_t>(old.first_slot[r]) + j]) from[j] = i, used[i] = true;
    for (std::size_t j = 0, i = 0; j < size; ++j) {
      if (from[j] == kEmpty) {
        while (used[i]) ++i;
        from[j] = i++;
      }
      moved_to[begin + from[j]] = begin + j;
    }
  }
  Placement out = fresh;
  for (std::size_t s = 0; s < moved_to.size(); ++s) {
    out.expert_of_slot[moved_to[s]] = fresh.expert_of_slot[s];
    if (!fresh.share.empty()) out.share[moved_to[s]] = fresh.share[s];
  }
  for (std::vector<Slot>& slots : out.slots_of_expert)
    for (Slot& s : slots) s = Slot(static_cast<std::int64_t>(moved_to[static_cast<std::size_t>(s)]));
  return out;
}

}  // namespace epsim
