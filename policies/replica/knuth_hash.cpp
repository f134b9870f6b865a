#include "policies/replica.h"

namespace epsim::parts_replica {

/// Replica ((token x 2654435769) mod 2^32) mod c, the token counted from 0 on its rank (vLLM's dispatch kernel). All choices of a token take the same replica number, and so does every rank's token of that number: where c is 2 or 4
/// this is token mod c.
ReplicaRule knuth_hash(Params& p, const Shape*) {
  ReplicaRule rule;
  rule.summary = "A hash of the token's number on its rank: replica (token x 2654435769 mod 2^32) mod c (vLLM).";
  rule.by_choice = true;
  if (!p.usable()) return rule;
  rule.decide = [](const ReplicaRule::Layer& layer) -> ReplicaRule::Deal {
    const auto top_k = static_cast<std::uint32_t>(layer.top_k);
    return [top_k](const ReplicaRule::Copies& copies, std::span<std::uint16_t> out) {
      const auto c = static_cast<std::uint32_t>(copies.replicas.size());
      for (std::size_t i = 0; i < out.size(); ++i) out[i] = static_cast<std::uint16_t>(copies.choice[i] / top_k * 2654435769U % c);
    };
  };
  return rule;
}

}  // namespace epsim::parts_replica
