#include <algorithm>

#include "base/parallel.h"
#include "policies/placement/shared/copies.h"
#include "policies/placement/shared/slots.h"
#include "policies/placement/shared/table.h"

namespace epsim::parts_placement {

/// TensorRT-LLM's MoE load balancer (NVIDIA, `moe_load_balancer`): copies go one by one to the expert whose copies carry the most, then, heaviest first, each
/// to the lightest rank that has room. Without any load copies are even, the remainder to low ids. The original's statistics are a moving sum: each batch
/// multiplies the load so far by `decay` and adds its counts. Its online form spreads the layers over several iterations; here all layers move at once.
PlacementPolicy tensorrt_llm(Params& p, const Shape* shape) {
  PlacementPolicy policy;
  policy.summary = "TensorRT-LLM's balancer: copies to the heaviest experts, then heaviest copies first onto the lightest rank with room, nodes ignored.";
  const std::int64_t wanted = read_slots(p, shape);
  const double decay = p.number("decay", "what the load of earlier batches is multiplied by at each batch", 1.0, 0, 1);
  if (!p.usable()) return policy;
  policy.place = [=](const Problem& problem) {
    const std::int64_t slots = wanted ? wanted : problem.experts;
    const std::vector<std::int32_t> first = spread_slots(slots, problem.ranks);
    std::vector<Placement> placements(problem.counts.size());
    parallel_for(static_cast<std::int64_t>(placements.size()), [&](std::int64_t l) {
      const Matrix<std::int64_t> batches = problem.loads_by_batch(static_cast<std::size_t>(l));
      std::vector<double> load(static_cast<std::size_t>(problem.experts)), rank_load(static_cast<std::size_t>(problem.ranks));
      for (std::int64_t b = 0; b < batches.rows; ++b)
        for (std::size_t e = 0; e < load.size(); ++e) load[e] = load[e] * decay + static_cast<double>(batches.row(b)[e]);
      // Where nothing has load, equal ones: the same rule then gives even copies, the remainder to low ids.
      if (std::ranges::all_of(load, [](double x) { return x == 0; })) load.assign(load.size(), 1.0);
      const SortedCopies copies = sort_copies(replicate(std::span<const double>(load), slots), load);
      std::vector<int> room = rooms(first);
      const std::vector<int> rank = pack_lightest(std::span<const double>(copies.weight), rank_load, room);
      placements[static_cast<std::size_t>(l)] = placement_of(copies.expert, rank, first, problem.experts);
    });
    return placements;
  };
  return policy;
}

}  // namespace epsim::parts_placement
