#pragma once
#include <functional>
#include <span>
#include <vector>

#include "workloads/source.h"

namespace epsim {

/// Fills [experts] with the log-popularity of a layer's experts, up to a constant; it counts between -80 and 65.
using Popularity = std::function<void(int layer, std::span<float> log_popularity)>;

/// Gives `source` scores whose logits are log(popularity) + Gumbel noise (workloads/noise.h); the popularity of the layers to be run is computed once.
void make_synthetic(Source& source, const SourceContext& context, const Popularity& popularity);

/// A random order of the experts for a layer: which one is hot depends on the seed.
std::vector<std::uint32_t> expert_order(std::uint64_t seed, int layer, int experts);

}  // namespace epsim
