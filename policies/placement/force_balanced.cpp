#include <numeric>

#include "policies/placement.h"

namespace epsim::parts_placement {

/// Every expert on every rank, a share of 1/R of its copies for each (where ranks differ in speed, in proportion to it), so that all ranks compute equally long
/// whatever is chosen: with the replica rule `quota` the ceiling that other placements are held against (TensorRT-LLM's and UltraEP's "force balanced" ideal).
/// Not deployable: ranks would hold all weights.
PlacementPolicy force_balanced(Params& p, const Shape*) {
  PlacementPolicy policy;
  policy.summary = "The ceiling, not deployable: every expert on every rank with equal shares, so that all ranks compute equally long (replica rule `quota`).";
  if (!p.usable()) return policy;
  policy.place = [](const Problem& problem) {
    const auto experts = static_cast<std::size_t>(problem.experts), ranks = static_cast<std::size_t>(problem.ranks);
    const std::vector<double> speed = problem.speed.empty() ? std::vector<double>(ranks, 1.0) : problem.speed;
    const double total = std::accumulate(speed.begin(), speed.end(), 0.0);
    std::vector<std::uint16_t> expert_of_slot(experts * ranks);
    std::vector<std::int32_t> first;
    std::vector<double> share(expert_of_slot.size());
    for (std::size_t s = 0; s < share.size(); ++s) {
      expert_of_slot[s] = static_cast<std::uint16_t>(s % experts);
      share[s] = speed[s / experts] / total;
    }
    for (int r = 0; r <= problem.ranks; ++r) first.push_back(r * problem.experts);
    Placement placement = Placement::from_experts(std::move(expert_of_slot), std::move(first), problem.experts);
    placement.share = std::move(share);
    return std::vector<Placement>(problem.counts.size(), placement);
  };
  return policy;
}

}  // namespace epsim::parts_placement
