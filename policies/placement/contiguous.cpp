#include "policies/placement/shared/slots.h"

namespace epsim::parts_placement {

/// Experts in order, block by block: slot p holds expert p mod E, so without redundant slots rank r holds the r-th block of experts. With redundant slots this
/// is the start-up placement of SGLang and vLLM ("trivial": the last slots repeat the first experts).
PlacementPolicy contiguous(Params& p, const Shape* shape) {
  PlacementPolicy policy;
  policy.summary = "Experts in order, an equal block on each rank: slot p holds expert p mod E.";
  const std::int64_t wanted = read_slots(p, shape);
  if (!p.usable()) return policy;
  policy.place = [wanted](const Problem& problem) {
    const std::int64_t slots = wanted ? wanted : problem.experts;
    std::vector<std::uint16_t> experts(static_cast<std::size_t>(slots));
    for (std::size_t s = 0; s < experts.size(); ++s) experts[s] = static_cast<std::uint16_t>(s % static_cast<std::size_t>(problem.experts));
    return std::vector<Placement>(problem.counts.size(), Placement::from_experts(std::move(experts), spread_slots(slots, problem.ranks), problem.experts));
  };
  return policy;
}

}  // namespace epsim::parts_placement
