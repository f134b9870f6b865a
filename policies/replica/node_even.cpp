#include "policies/replica/shared/quotas.h"

namespace epsim::parts_replica {

/// Each source splits its copies of an expert evenly over the replicas in its own node, or, where there are none, over all (LAER-MoE's cost model and dispatcher, 2026). Copies go in turn, each source beginning at another replica.
ReplicaRule node_even(Params& p, const Shape*) {
  ReplicaRule rule;
  rule.summary = "Evenly over the expert's replicas in the source's node, or over all where it has none there (LAER-MoE).";
  if (!p.usable()) return rule;
  rule.decide = [](const ReplicaRule::Layer& layer) -> ReplicaRule::Deal {
    struct Near {
      std::vector<Rank> rank_of;
      const Topology& topology;
    };
    const auto near = std::make_shared<Near>(Near{replicas::ranks_of_slots(layer.placement), layer.topology});
    return [near](const ReplicaRule::Copies& copies, std::span<std::uint16_t> out) {
      std::vector<std::uint16_t> candidates;
      for (std::size_t j = 0; j < copies.replicas.size(); ++j)
        if (replicas::same_node(near->topology, copies.source, near->rank_of[static_cast<std::size_t>(copies.replicas[j])])) candidates.push_back(static_cast<std::uint16_t>(j));
      if (candidates.empty())
        for (std::size_t j = 0; j < copies.replicas.size(); ++j) candidates.push_back(static_cast<std::uint16_t>(j));
      std::size_t next = static_cast<std::size_t>(copies.source) % candidates.size();
      for (std::uint16_t& choice : out) {
        choice = candidates[next];
        if (++next == candidates.size()) next = 0;
      }
    };
  };
  return rule;
}

}  // namespace epsim::parts_replica
