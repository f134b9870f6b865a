#include "policies/replica.h"

namespace epsim::parts_replica {

/// Deals in turn within each block of a source's choices: the n-th copy of an expert in block b goes to replica (n + b) mod c, with `offset_by_rank` (n + b + rank) mod c (TensorRT-LLM's load-balanced routing kernel, whose
/// thread blocks look at 1,024 choices each).
ReplicaRule block_round_robin(Params& p, const Shape*) {
  ReplicaRule rule;
  rule.summary = "In turn within each block of 1,024 choices: the n-th copy of an expert in block b goes to replica (n + b) mod c (TensorRT-LLM).";
  rule.by_choice = true;
  const auto block = static_cast<std::uint32_t>(p.integer("block", "choices of a source in a block", 1024, 1, 1 << 30));
  const bool by_rank = p.flag("offset_by_rank", "also begin at another replica on each source rank", false);
  if (!p.usable()) return rule;
  rule.decide = [=](const ReplicaRule::Layer&) -> ReplicaRule::Deal {
    return [=](const ReplicaRule::Copies& copies, std::span<std::uint16_t> out) {
      const auto c = static_cast<std::uint32_t>(copies.replicas.size());
      const std::uint32_t offset = by_rank ? static_cast<std::uint32_t>(copies.source) : 0;
      std::uint32_t in_block = ~0U, replica = 0;
      for (std::size_t i = 0; i < out.size(); ++i) {
        const std::uint32_t b = copies.choice[i] / block;
        if (b != in_block) in_block = b, replica = (b + offset) % c;
        out[i] = static_cast<std::uint16_t>(replica);
        if (++replica == c) replica = 0;
      }
    };
  };
  return rule;
}

}  // namespace epsim::parts_replica
