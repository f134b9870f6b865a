#include "policies/replica.h"

namespace epsim::parts_replica {

/// Deals the copies of an expert to its replicas in turn; each source begins at another replica, so that many sources with few copies still spread.
/// (TensorRT-LLM deals this way within a block of choices, offset by rank.)
ReplicaRule round_robin(Params& p, const Shape*) {
  ReplicaRule rule;
  rule.summary = "Deals each source's copies of an expert to its replicas in turn: the n-th copy from rank s goes to replica (s + n) mod c.";
  if (!p.usable()) return rule;
  rule.in_turn = true;
  rule.decide = [](const ReplicaRule::Layer&) -> ReplicaRule::Deal {
    return [](const ReplicaRule::Copies& copies, std::span<std::uint16_t> out) {
      std::size_t replica = static_cast<std::size_t>(copies.source) % copies.replicas.size();
      for (std::uint16_t& choice : out) {
        choice = static_cast<std::uint16_t>(replica);
        if (++replica == copies.replicas.size()) replica = 0;
      }
    };
  };
  return rule;
}

}  // namespace epsim::parts_replica
