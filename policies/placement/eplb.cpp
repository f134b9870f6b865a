#include "policies/placement/shared/eplb_layer.h"
#include "policies/placement/shared/table.h"

namespace epsim::parts_placement {

/// DeepSeek's Expert Parallelism Load Balancer (github.com/deepseek-ai/EPLB, 2025), to every index: float32 arithmetic and
/// the original's own order among ties (of loads: lowest index; of a sort: see `pack_evenly`).
/// Replicates the heaviest experts into redundant slots and packs the replicas onto ranks; the hierarchical form first packs expert groups onto nodes, so that
/// a token of a group-limited gate reaches few nodes. Nothing stops two replicas of one expert from meeting on a rank.
/// `preserve_slots` is vLLM's addition: experts that stay on their rank stay in their slot, so fewer weights are copied. Where no placement is in force yet,
/// that is the one vLLM starts with, slot p holding expert p mod E.
PlacementPolicy eplb(Params& p, const Shape* shape) {
  PlacementPolicy policy;
  policy.summary =
      "DeepSeek's EPLB: replicates the heaviest experts into redundant slots and packs replicas onto ranks by load (groups onto nodes first, where they "
      "divide).";
  const EplbSettings settings = read_eplb(p);
  const bool preserve = p.flag("preserve_slots", "experts that stay on their rank stay in their slot, as in vLLM", false);
  if (!p.usable()) return policy;
  check_eplb(p, settings, shape);
  if (!p.usable()) return policy;
  policy.place = [=](const Problem& problem) {
    std::vector<Placement> placements = eplb_all_layers(problem, eplb_sizes(settings, problem));
    if (preserve)
      for (std::size_t l = 0; l < placements.size(); ++l) placements[l] = keep_slots(placements[l], in_force(problem, l, placements[l].first_slot));
    return placements;
  };
  return policy;
}

}  // namespace epsim::parts_placement
