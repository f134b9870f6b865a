#include "policies/placement/shared/slots.h"

namespace epsim::parts_placement {

/// Experts dealt to ranks in turn: the i-th replica to be placed is of expert i mod E and goes to rank i mod R (vLLM's `expert_placement_strategy:
/// round_robin`, carried on over the redundant slots).
PlacementPolicy round_robin(Params& p, const Shape* shape) {
  PlacementPolicy policy;
  policy.summary = "Experts dealt to ranks in turn: expert e is on rank e mod R.";
  const std::int64_t wanted = read_slots(p, shape);
  if (!p.usable()) return policy;
  policy.place = [wanted](const Problem& problem) {
    const std::int64_t slots = wanted ? wanted : problem.experts;
    std::vector<std::int32_t> first = spread_slots(slots, problem.ranks);
    std::vector<std::uint16_t> experts(static_cast<std::size_t>(slots));
    for (std::int64_t i = 0; i < slots; ++i) {
      const std::int64_t slot = first[static_cast<std::size_t>(i % problem.ranks)] + i / problem.ranks;
      experts[static_cast<std::size_t>(slot)] = static_cast<std::uint16_t>(i % problem.experts);
    }
    return std::vector<Placement>(problem.counts.size(), Placement::from_experts(std::move(experts), std::move(first), problem.experts));
  };
  return policy;
}

}  // namespace epsim::parts_placement
