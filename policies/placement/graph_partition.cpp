#include "policies/solve/graph_partition.h"

#include <algorithm>

#include "base/parallel.h"
#include "policies/placement/shared/coactivation.h"
#include "policies/placement/shared/homes.h"
#include "policies/placement/shared/nodes.h"

namespace epsim::parts_placement {
namespace {

/// The part of each of the experts `some` when they are split among `share`'s parts.
std::vector<int> split(std::span<const Expert> some, const Matrix<std::int64_t>& together, std::span<const std::int64_t> loads, bool count_experts,
                       std::span<const double> share, double imbalance) {
  if (some.empty()) return {};
  const auto n = static_cast<std::int64_t>(some.size());
  Matrix<std::int64_t> edges(n, n), weight(n, count_experts ? 2 : 1);
  for (std::int64_t a = 0; a < n; ++a) {
    for (std::int64_t b = 0; b < n; ++b) edges(a, b) = together(some[static_cast<std::size_t>(a)], some[static_cast<std::size_t>(b)]);
    weight(a, 0) = loads[some[static_cast<std::size_t>(a)]];
    if (count_experts) weight(a, 1) = 1;
  }
  return partition_graph(edges, weight, share, imbalance);
}

}  // namespace

/// The co-activation graph (experts, and how many tokens chose both ends of an edge), cut by METIS (Karypis and Kumar 1998): first into a part a node, then
/// each of these into a part a rank, so that what is cut between nodes comes first; parts have equal loads, as far as whole experts allow, not equal numbers of
/// experts. No replicas.
PlacementPolicy graph_partition(Params& p, const Shape*) {
  PlacementPolicy policy;
  policy.summary =
      "Co-activated experts stay together: METIS cuts the co-activation graph into parts of equal load, for nodes first, then for the ranks of each.";
  policy.sees = PlacementPolicy::Sees::tokens;
  const double imbalance = p.number("imbalance", "load of a part over its share that METIS may leave", 1.05, 1.001, 1000);
  const std::string balance = p.choice("balance", "what parts have equally much of: `loads`, or loads and experts `both`", {"loads", "both"}, "loads");
  if (!p.usable()) return policy;
  policy.place = [=](const Problem& problem) {
    const std::vector<int> node = node_of_ranks(problem);
    std::vector<std::vector<Rank>> ranks_of(static_cast<std::size_t>(problem.nodes));
    for (const Rank r : ids<Rank>(problem.ranks)) ranks_of[static_cast<std::size_t>(node[static_cast<std::size_t>(r)])].push_back(r);
    std::vector<double> node_share;
    for (const std::vector<Rank>& ranks : ranks_of) node_share.push_back(static_cast<double>(ranks.size()) / problem.ranks);

    std::vector<Placement> placements(problem.counts.size());
    parallel_for(static_cast<std::int64_t>(placements.size()), [&](std::int64_t l) {
      const auto layer = static_cast<std::size_t>(l);
      const std::vector<std::int64_t> loads = problem.loads(layer);
      const Matrix<std::int64_t> together = coactivation(problem, layer);
      std::vector<Expert> all;
      for (const Expert e : ids<Expert>(problem.experts)) all.push_back(e);
      const std::vector<int> node_part = split(all, together, loads, balance == "both", node_share, imbalance);
      std::vector<Rank> rank(loads.size());
      for (std::size_t n = 0; n < ranks_of.size(); ++n) {
        std::vector<Expert> here;
        for (const Expert e : all)
          if (node_part[static_cast<std::size_t>(e)] == static_cast<int>(n)) here.push_back(e);
        const std::vector<double> share(ranks_of[n].size(), 1.0 / static_cast<double>(ranks_of[n].size()));
        const std::vector<int> part = split(here, together, loads, balance == "both", share, imbalance);
        for (std::size_t i = 0; i < here.size(); ++i) rank[static_cast<std::size_t>(here[i])] = ranks_of[n][static_cast<std::size_t>(part[i])];
      }
      placements[layer] = place_experts(rank, problem.ranks);
    });
    return placements;
  };
  return policy;
}

}  // namespace epsim::parts_placement
