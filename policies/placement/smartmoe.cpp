#include <algorithm>

#include "base/parallel.h"
#include "policies/placement/shared/homes.h"
#include "policies/placement/shared/slots.h"
#include "policies/placement/shared/table.h"

namespace epsim::parts_placement {
namespace {

std::int64_t largest_load(std::span<const Rank> rank, std::span<const std::int64_t> loads, int ranks) {
  std::vector<std::int64_t> load(static_cast<std::size_t>(ranks));
  for (std::size_t e = 0; e < rank.size(); ++e) load[rank[e]] += loads[e];
  return std::ranges::max(load);
}

/// Experts in falling order of their loads, each on the lightest rank with room (ties: the rank where it is, then the lowest).
std::vector<Rank> remap(std::span<const Rank> home, std::span<const std::int64_t> loads, int ranks) {
  std::vector<Expert> order;
  for (const Expert e : ids<Expert>(static_cast<std::int64_t>(loads.size()))) order.push_back(e);
  std::ranges::stable_sort(order, std::ranges::greater{}, [&](Expert e) { return loads[e]; });
  const std::vector<std::int32_t> first = spread_slots(static_cast<std::int64_t>(loads.size()), ranks);
  std::vector<std::int64_t> load(static_cast<std::size_t>(ranks));
  std::vector<std::int32_t> room;
  for (std::size_t r = 0; r < load.size(); ++r) room.push_back(first[r + 1] - first[r]);

  std::vector<Rank> rank(loads.size());
  for (const Expert e : order) {
    Rank best;
    if (room[home[e]] > 0) best = home[e];
    for (const Rank r : ids<Rank>(ranks))
      if (room[r] > 0 && (!best.valid() || load[r] < load[best] || (load[r] == load[best] && best != home[e] && r < best))) best = r;
    rank[e] = best;
    load[best] += loads[e];
    --room[best];
  }
  return rank;
}

}  // namespace

/// SmartMoE's expert re-mapping (Zhai et al., USENIX ATC 2023): no replicas, equal slots, longest processing time first; an expert stays where it is if that
/// ties, and the new mapping is adopted only if the largest load falls. Experts that stay keep their slots. What is in force is where experts are, each at its
/// first replica.
PlacementPolicy smartmoe(Params& p, const Shape*) {
  PlacementPolicy policy;
  policy.summary = "SmartMoE's re-mapping: moves experts, without replicas, to the lightest rank in turn, where that lowers the largest load.";
  if (!p.usable()) return policy;
  policy.place = [](const Problem& problem) {
    std::vector<Placement> placements(problem.counts.size());
    parallel_for(static_cast<std::int64_t>(placements.size()), [&](std::int64_t l) {
      const auto layer = static_cast<std::size_t>(l);
      const std::vector<std::int64_t> loads = problem.loads(layer);
      std::vector<Rank> rank = home_ranks(problem, layer);
      if (std::vector<Rank> next = remap(rank, loads, problem.ranks); largest_load(next, loads, problem.ranks) < largest_load(rank, loads, problem.ranks))
        rank = std::move(next);
      placements[layer] = place_experts(rank, problem.ranks);
      if (!problem.previous.empty()) placements[layer] = keep_slots(placements[layer], problem.previous[layer]);
    });
    return placements;
  };
  return policy;
}

}  // namespace epsim::parts_placement
