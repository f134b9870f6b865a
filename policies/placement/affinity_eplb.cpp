#include <algorithm>

#include "base/parallel.h"
#include "policies/placement/shared/coactivation.h"
#include "policies/placement/shared/eplb_layer.h"
#include "policies/placement/shared/nodes.h"
#include "policies/placement/shared/table.h"

namespace epsim::parts_placement {
namespace {

/// Which experts nodes hold, and how often tokens choose an expert together with those of a node.
class Affinity {
 public:
  Affinity(const Placement& placement, std::span<const int> node_of_slot, int nodes, const Matrix<std::int64_t>& pairs)
      : pairs_(pairs), copies_(nodes, pairs.rows), together_(nodes, pairs.rows) {
    for (std::size_t s = 0; s < node_of_slot.size(); ++s) enter(placement.expert_of_slot[s], node_of_slot[s]);
  }
  bool holds(int node, int expert) const { return copies_(node, expert) > 0; }
  /// What pairs of experts of one node gain, over both nodes, where a copy of `a` on node m changes places with one of `b` on node n. m lacks b and n lacks a.
  std::int64_t gain(int a, int m, int b, int n) const {
    const std::int64_t both = pairs_(a, b);
    std::int64_t sum = together_(m, b) + together_(n, a);
    if (copies_(m, a) == 1) sum -= together_(m, a) + both;
    if (copies_(n, b) == 1) sum -= together_(n, b) + both;
    return sum;
  }
  void swap(int a, int m, int b, int n) {
    leave(a, m), leave(b, n);
    enter(b, m), enter(a, n);
  }

 private:
  void enter(int expert, int node) {
    if (copies_(node, expert)++ == 0) add(expert, node, 1);
  }
  void leave(int expert, int node) {
    if (--copies_(node, expert) == 0) add(expert, node, -1);
  }
  void add(int expert, int node, std::int64_t times) {
    const std::span<std::int64_t> row = together_.row(node);
    const std::span<const std::int64_t> with = pairs_.row(expert);
    for (std::size_t e = 0; e < row.size(); ++e) row[e] += times * with[e];
  }

  const Matrix<std::int64_t>& pairs_;
  Matrix<std::int32_t> copies_;    ///< [node][expert]
  Matrix<std::int64_t> together_;  ///< [node][expert]
};

/// Swaps slots of different nodes, each with its best partner, until nothing gains.
void gather(Placement& p, std::span<const double> load, const Matrix<std::int64_t>& pairs, std::span<const int> node_of_rank, int nodes, double tolerance,
            std::int64_t sweeps) {
  const std::size_t slots = p.expert_of_slot.size();
  std::vector<std::size_t> rank(slots);
  std::vector<int> node(slots);
  std::vector<double> part(slots), rank_load = even_rank_loads(p, load);
  for (std::size_t s = 0; s < slots; ++s) {
    rank[s] = static_cast<std::size_t>(p.rank_of(Slot(static_cast<std::int64_t>(s))));
    node[s] = node_of_rank[rank[s]];
    part[s] = load[p.expert_of_slot[s]] / static_cast<double>(p.slots_of_expert[p.expert_of_slot[s]].size());
  }
  const double peak = *std::ranges::max_element(rank_load) * (1 + tolerance);
  Affinity affinity(p, node, nodes, pairs);
  bool swapped = true;
  for (std::int64_t sweep = 0; sweep < sweeps && swapped; ++sweep) {
    swapped = false;
    for (std::size_t i = 0; i < slots; ++i) {
      std::int64_t most = 0;
      std::size_t best = slots;
      const int a = p.expert_of_slot[i];
      for (std::size_t j = 0; j < slots; ++j) {
        const int b = p.expert_of_slot[j];
        if (node[i] == node[j] || affinity.holds(node[j], a) || affinity.holds(node[i], b)) continue;
        const double more = part[j] - part[i];
        if (rank_load[rank[i]] + more > peak || rank_load[rank[j]] - more > peak) continue;
        if (const std::int64_t gain = affinity.gain(a, node[i], b, node[j]); gain > most) most = gain, best = j;
      }
      if (best == slots) continue;
      const int b = p.expert_of_slot[best];
      affinity.swap(a, node[i], b, node[best]);
      rank_load[rank[i]] += part[best] - part[i];
      rank_load[rank[best]] += part[i] - part[best];
      *std::ranges::find(p.slots_of_expert[static_cast<std::size_t>(a)], Slot(static_cast<std::int64_t>(i))) = Slot(static_cast<std::int64_t>(best));
      *std::ranges::find(p.slots_of_expert[static_cast<std::size_t>(b)], Slot(static_cast<std::int64_t>(best))) = Slot(static_cast<std::int64_t>(i));
      std::swap(p.expert_of_slot[i], p.expert_of_slot[best]);
      std::swap(part[i], part[best]);
      swapped = true;
    }
  }
}

}  // namespace

/// EPLB, then swaps of slots between nodes by co-activation (after Ant Group's report of an expert-affinity EPLB; its code is not public, this is the least
/// that its description says). A swap must raise the sum, over nodes and pairs of different experts on the node, of the tokens that chose both, and must leave
/// no rank with more load than EPLB's heaviest. Slots are gone through in order, each takes its best partner (ties: lowest slot).
PlacementPolicy affinity_eplb(Params& p, const Shape* shape) {
  PlacementPolicy policy;
  policy.summary = "EPLB, then swaps between nodes that bring experts chosen by the same tokens together without raising the heaviest rank's load.";
  policy.sees = PlacementPolicy::Sees::tokens;
  const EplbSettings settings = read_eplb(p);
  const double tolerance = p.number("tolerance", "how far above EPLB's heaviest rank a swap may load a rank, in parts of it", 0.0, 0, 1e9);
  const std::int64_t sweeps = p.integer("sweeps", "how often all slots are gone through at most", 8, 0, 1'000'000);
  if (!p.usable()) return policy;
  check_eplb(p, settings, shape);
  if (!p.usable()) return policy;
  policy.place = [=](const Problem& problem) {
    std::vector<Placement> placements = eplb_all_layers(problem, eplb_sizes(settings, problem));
    if (problem.nodes == 1) return placements;
    const std::vector<int> node_of_rank = node_of_ranks(problem);
    parallel_for(static_cast<std::int64_t>(placements.size()), [&](std::int64_t l) {
      const auto layer = static_cast<std::size_t>(l);
      const std::vector<std::int64_t> loads = problem.loads(layer);
      gather(placements[layer], std::vector<double>(loads.begin(), loads.end()), coactivation(problem, layer), node_of_rank, problem.nodes, tolerance, sweeps);
    });
    return placements;
  };
  return policy;
}

}  // namespace epsim::parts_placement
