#include <algorithm>
#include <numeric>

#include "base/parallel.h"
#include "policies/placement/shared/slots.h"
#include "policies/placement/shared/table.h"

namespace epsim::parts_placement {
namespace {

/// Seconds a byte takes from each source to each destination while all else is silent; nothing on the rank itself. Sources that differ in nothing else, such as
/// those of one node, are one class, which makes the sums over sources much shorter.
struct Costs {
  std::vector<std::size_t> class_of;  ///< [source]
  std::vector<std::size_t> example;   ///< [class] its first source
  Matrix<double> to;                  ///< [class][destination], as if from another source of the class (where there is none: 0 to itself)

  explicit Costs(const Topology& topology) {
    const std::int64_t ranks = topology.ranks();
    Matrix<double> cost(ranks, ranks);
    parallel_for(ranks, [&](std::int64_t s) {
      for (std::int64_t d = 0; d < ranks; ++d) cost(s, d) = s == d ? 0 : 1 / topology.bandwidth(Rank(s), Rank(d));
    });
    for (std::int64_t s = 0; s < ranks; ++s) {
      // The class's row is complete once it has two sources: each says what it costs to reach the other.
      const auto alike = [&](std::size_t c) {
        const auto first = static_cast<std::int64_t>(example[c]);
        const bool alone = cost(first, first) == 0;
        for (std::int64_t d = 0; d < ranks; ++d)
          if (d != s && !(alone && d == first) && cost(first, d) != cost(s, d)) return false;
        return true;
      };
      std::size_t c = 0;
      while (c < example.size() && !alike(c)) ++c;
      if (c == example.size()) example.push_back(static_cast<std::size_t>(s));
      const auto first = static_cast<std::int64_t>(example[c]);
      if (first != s) cost(first, first) = cost(s, first);
      class_of.push_back(c);
    }
    to = Matrix<double>(static_cast<std::int64_t>(example.size()), ranks);
    for (std::size_t c = 0; c < example.size(); ++c)
      std::ranges::copy(cost.row(static_cast<std::int64_t>(example[c])), to.row(static_cast<std::int64_t>(c)).begin());
  }

  /// What it costs that an expert is on each rank, for its tokens of each source.
  void add(std::span<const double> tokens, std::span<double> total) const {
    std::vector<double> of_class(example.size());
    for (std::size_t s = 0; s < tokens.size(); ++s) of_class[class_of[s]] += tokens[s];
    for (std::size_t c = 0; c < of_class.size(); ++c) {
      if (of_class[c] == 0) continue;
      const std::span<const double> row = to.row(static_cast<std::int64_t>(c));
      for (std::size_t d = 0; d < total.size(); ++d) total[d] += (of_class[c] - (class_of[d] == c ? tokens[d] : 0)) * row[d];
    }
  }
};

Placement nearest(const Matrix<std::int64_t>& counts, std::span<const std::int64_t> loads, const Costs& costs, const std::vector<std::int32_t>& first) {
  std::vector<int> order(loads.size()), rank(loads.size()), room = rooms(first);
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, [&](int a, int b) { return loads[static_cast<std::size_t>(a)] > loads[static_cast<std::size_t>(b)]; });
  std::vector<double> total(room.size()), tokens(room.size());
  const bool sources_known = counts.rows == static_cast<std::int64_t>(room.size());  // otherwise all alike
  for (std::size_t i = 0; i < order.size(); ++i) {
    for (std::size_t s = 0; s < tokens.size(); ++s) tokens[s] = static_cast<double>(counts(sources_known ? static_cast<std::int64_t>(s) : 0, order[i]));
    total.assign(room.size(), 0);
    costs.add(tokens, total);
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
    const Costs costs(*problem.topology);
    std::vector<Placement> placements(problem.counts.size());
    parallel_for(static_cast<std::int64_t>(placements.size()), [&](std::int64_t l) {
      const auto layer = static_cast<std::size_t>(l);
      placements[layer] = nearest(problem.counts[layer], problem.loads(layer), costs, first);
    });
    return placements;
  };
  return policy;
}

}  // namespace epsim::parts_placement
