#include "policies/replica/shared/draws.h"

namespace epsim::parts_replica {

/// Every copy goes to any replica: a random number of 16 bits mod c (SGLang's `dynamic` dispatch). The seeds, the batch, the layer, the source, the expert and the copy's number decide.
ReplicaRule random(Params& p, const Shape*) {
  ReplicaRule rule;
  rule.summary = "Every copy goes to any of the replicas, at random (SGLang's `dynamic`).";
  const auto seed = static_cast<std::uint64_t>(p.integer("seed", "of the random numbers, besides the experiment's", 0));
  if (!p.usable()) return rule;
  rule.decide = [seed](const ReplicaRule::Layer& layer) -> ReplicaRule::Deal {
    return [seed, layer](const ReplicaRule::Copies& copies, std::span<std::uint16_t> out) {
      Rng rng = replicas::draws(layer, copies, seed);
      const auto c = static_cast<std::uint64_t>(copies.replicas.size());
      std::uint64_t bits = 0;
      for (std::size_t i = 0; i < out.size(); ++i, bits >>= 16) {
        if (i % 4 == 0) bits = rng.bits();
        out[i] = static_cast<std::uint16_t>((bits & 0xffff) % c);
      }
    };
  };
  return rule;
}

}  // namespace epsim::parts_replica
