#include <algorithm>
#include <numeric>

#include "base/parallel.h"
#include "policies/placement/shared/slots.h"
#include "policies/placement/shared/table.h"

namespace epsim::parts_placement {
namespace {

/// Seconds a byte takes from source (row) to destination while all else is silent; 0 on the rank itself.
Matrix<double> seconds_per_byte(const Topology& topology) {
  Matrix<double> cost(topology.ranks(), topology.ranks());
  parallel_for(cost.rows, [&](std::int64_t s) {
    for (std::int64_t d = 0; d < cost.columns; ++d) cost(s, d) = s == d ? 0 : 1 / topology.bandwidth(Rank(s), Rank(d));
  });
  return cost;
}

Placement nearest(const Matrix<std::int64_t>& counts, std::span<const std::int64_t> loads, const Matrix<double>& cost, const std::vector<std::int32_t>& first) {
  std::vector<int> order(loads.size()), rank(loads.size()), room = rooms(first);
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, [&](int a, int b) { return loads[static_cast<std::size_t>(a)] > loads[static_cast<std::size_t>(b)]; });
  std::vector<double> total(room.size());
  for (std::size_t i = 0; i < order.size(); ++i) {
    total.assign(room.size(), 0);
    for (std::int64_t s = 0; s < cost.rows; ++s) {
      // Where sources are not known, all alike.
      const auto tokens = counts.rows == cost.rows ? static_cast<double>(counts(s, order[i])) : static_cast<double>(counts(0, order[i]));
      if (tokens == 0) continue;
      const std::span<const double> row = cost.row(s);
      for (std::size_t d = 0; d < total.size(); ++d) total[d] += tokens * row[d];
    }
    std::size_t best = total.size();
    for (std::size_t d = 0; d < total.size(); ++d)
      if (room[d] > 0 && (best == total.size() || total[d] < total[best])) best = d;
    rank[i] = static_cast<int>(best);
    --room[best];
  }
  return placement_of(order, rank, first, static_cast<int>(loads.size()));
}

}  // namespace

/// SGLang's `topology_aware` (a pull request): experts by load, heaviest first, each to the rank with a free slot that its tokens reach at the least cost,
/// sum over sources of tokens x cost (ties: lowest index). The cost of a pair of ranks is 1 / the bandwidth between them while all else is silent. No copies;
/// load is even only as far as equal numbers of experts make it.
PlacementPolicy topology_aware(Params& p, const Shape*) {
  PlacementPolicy policy;
  policy.summary = "SGLang's topology_aware: each expert, heaviest first, on the rank with a free slot that its tokens reach most cheaply; no copies.";
  policy.sees = PlacementPolicy::Sees::machine;
  if (!p.usable()) return policy;
  policy.place = [](const Problem& problem) {
    const std::vector<std::int32_t> first = spread_slots(problem.experts, problem.ranks);
    const Matrix<double> cost = seconds_per_byte(*problem.topology);
    std::vector<Placement> placements(problem.counts.size());
    parallel_for(static_cast<std::int64_t>(placements.size()), [&](std::int64_t l) {
      const auto layer = static_cast<std::size_t>(l);
      placements[layer] = nearest(problem.counts[layer], problem.loads(layer), cost, first);
    });
    return placements;
  };
  return policy;
}

}  // namespace epsim::parts_placement
