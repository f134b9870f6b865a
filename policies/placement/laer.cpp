#include <algorithm>
#include <numeric>
#include <tuple>

#include "base/parallel.h"
#include "base/rng.h"
#include "policies/placement/shared/laer_time.h"
#include "policies/placement/shared/nodes.h"
#include "policies/placement/shared/slots.h"
#include "policies/placement/shared/table.h"

namespace epsim::parts_placement {
namespace {

/// Copies of each expert by load: from one a node (or one, where that does not fit), more for the expert whose copies carry most: one, or one a node where
/// every node may have one. None has more copies than there are ranks while others can have them.
std::vector<int> copies_by_load(std::span<const std::int64_t> loads, std::int64_t slots, int ranks, int nodes) {
  const auto experts = static_cast<std::int64_t>(loads.size());
  const int first = experts * nodes <= slots ? nodes : 1;
  std::vector<int> copies(loads.size(), first);
  for (std::int64_t left = slots - experts * first; left > 0;) {
    std::size_t best = 0;
    const auto key = [&](std::size_t e) { return std::pair(copies[e] < ranks, static_cast<double>(loads[e]) / copies[e]); };
    for (std::size_t e = 1; e < loads.size(); ++e)
      if (key(e) > key(best)) best = e;
    const int more = copies[best] < nodes || copies[best] >= ranks ? 1 : std::min(nodes, ranks - copies[best]);
    copies[best] += static_cast<int>(std::min<std::int64_t>(more, left));
    left -= std::min<std::int64_t>(more, left);
  }
  return copies;
}

/// Copies, heaviest first, each on the lightest rank with room in the nodes that have fewest copies of its expert (ties: a rank without one, then the lowest).
Placement place_copies(std::span<const int> copies, std::span<const std::int64_t> loads, std::span<const std::int32_t> first_slot, std::span<const int> node) {
  const std::size_t ranks = first_slot.size() - 1;
  std::vector<std::size_t> order(loads.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  const auto weight = [&](std::size_t e) { return static_cast<double>(loads[e]) / copies[e]; };
  std::ranges::stable_sort(order, std::ranges::greater{}, weight);
  std::vector<std::vector<int>> on(ranks);
  std::vector<double> load(ranks);
  std::vector<int> at_node(ranks), at_rank(ranks);  // copies of the expert at hand
  for (const std::size_t e : order) {
    std::ranges::fill(at_node, 0);
    std::ranges::fill(at_rank, 0);
    for (int c = 0; c < copies[e]; ++c) {
      std::size_t best = ranks;
      for (std::size_t r = 0; r < ranks; ++r) {
        if (static_cast<std::int32_t>(on[r].size()) == first_slot[r + 1] - first_slot[r]) continue;
        const auto key = [&](std::size_t q) { return std::tuple(at_node[static_cast<std::size_t>(node[q])], load[q], at_rank[q]); };
        if (best == ranks || key(r) < key(best)) best = r;
      }
      on[best].push_back(static_cast<int>(e));
      load[best] += weight(e);
      ++at_rank[best], ++at_node[static_cast<std::size_t>(node[best])];
    }
  }
  return placement_of(on, static_cast<int>(loads.size()));
}

}  // namespace

/// LAER-MoE's planner (Hetu-Galvatron, branch laer-moe, 2026): numbers of copies, evenly (where slots divide by experts) and by load, each placed over nodes as
/// evenly as they go and there on the lightest rank; the placement that its time model (shared/laer_time.h) finds quickest is taken. `transfers` random ones
/// more are tried, each the best so far with one copy given to another expert.
PlacementPolicy laer(Params& p, const Shape* shape) {
  PlacementPolicy policy;
  policy.summary =
      "LAER-MoE's planner: replicates evenly or by load, spreads copies over nodes, and takes what its model of messages and compute finds quickest.";
  const LaerSettings s = read_laer(p, shape);
  const std::int64_t transfers = p.integer("transfers", "random changes of the numbers of copies that are tried", 0, 0, 100'000);
  if (!p.usable()) return policy;
  policy.place = [=](const Problem& problem) {
    const std::int64_t slots = laer_slots(s, problem);
    const std::vector<std::int32_t> first_slot = spread_slots(slots, problem.ranks);
    const std::vector<int> node = node_of_ranks(problem);
    std::vector<Placement> placements(problem.counts.size());
    parallel_for(static_cast<std::int64_t>(placements.size()), [&](std::int64_t l) {
      const auto layer = static_cast<std::size_t>(l);
      const std::vector<std::int64_t> loads = problem.loads(layer);
      const LaerTime time(problem, layer, s, node);
      std::vector<int> best;
      double least = 0;
      const auto attempt = [&](const std::vector<int>& copies) {
        Placement placement = place_copies(copies, loads, first_slot, node);
        const double seconds = time(placement).seconds;
        if (!best.empty() && seconds >= least) return;
        best = copies, least = seconds, placements[layer] = std::move(placement);
      };
      if (slots % problem.experts == 0) attempt(std::vector<int>(loads.size(), static_cast<int>(slots / problem.experts)));
      attempt(copies_by_load(loads, slots, problem.ranks, problem.nodes));
      Rng rng(problem.seed, Stream::placement, 1, static_cast<std::uint32_t>(problem.layers[layer]));
      for (std::int64_t i = 0; i < transfers; ++i) {
        std::vector<int> copies = best;
        const std::size_t from = rng.below(copies.size()), to = rng.below(copies.size());
        if (from == to || copies[from] == 1) continue;
        --copies[from], ++copies[to];
        attempt(copies);
      }
    });
    return placements;
  };
  return policy;
}

}  // namespace epsim::parts_placement
