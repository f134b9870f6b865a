#include "base/rng.h"
#include "policies/placement/shared/slots.h"

namespace epsim::parts_placement {

/// Experts on random slots, another draw for each layer; ranks get equal numbers of slots, and with redundant slots each expert gets as many replicas as any
/// other or one more, at random.
PlacementPolicy random(Params& p, const Shape* shape) {
  PlacementPolicy policy;
  policy.summary = "Experts on random slots, equally many on each rank; the experiment's seed and the layer decide.";
  const std::int64_t wanted = read_slots(p, shape);
  if (!p.usable()) return policy;
  policy.place = [wanted](const Problem& problem) {
    const std::int64_t slots = wanted ? wanted : problem.experts;
    std::vector<Placement> placements;
    for (const int layer : problem.layers) {
      Rng rng(problem.seed, Stream::placement, 0, static_cast<std::uint32_t>(layer));
      std::vector<std::uint32_t> favoured(static_cast<std::size_t>(problem.experts)), order(static_cast<std::size_t>(slots));
      rng.permutation(favoured);
      rng.permutation(order);
      std::vector<std::uint16_t> experts(order.size());
      for (std::size_t i = 0; i < order.size(); ++i) experts[order[i]] = static_cast<std::uint16_t>(favoured[i % favoured.size()]);
      placements.push_back(Placement::from_experts(std::move(experts), spread_slots(slots, problem.ranks), problem.experts));
    }
    return placements;
  };
  return policy;
}

}  // namespace epsim::parts_placement
