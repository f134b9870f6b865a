#pragma once
#include "base/rng.h"
#include "base/seeds.h"
#include "policies/replica.h"

namespace epsim::replicas {

/// Random numbers for the copies of an expert from one source rank: others in each batch, layer and seed. `seed`: a setting of the rule.
inline Rng draws(const ReplicaRule::Layer& layer, const ReplicaRule::Copies& copies, std::uint64_t seed) {
  const std::uint64_t source = static_cast<std::uint64_t>(layer.first_token) + static_cast<std::uint64_t>(copies.source);  // a batch has no fewer tokens than ranks, or its draws are another's
  return Rng(seed_of(layer.seed, seed), Stream::replica, (source << 16) + static_cast<std::uint64_t>(copies.expert), static_cast<std::uint32_t>(layer.index));
}

}  // namespace epsim::replicas
