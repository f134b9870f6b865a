#pragma once
#include <functional>
#include <span>
#include <vector>

#include "base/rng.h"
#include "workloads/source.h"

namespace epsim {

/// Fills [experts] with the log-popularity of a layer's experts, up to a constant; it counts between -80 and 65.
using Popularity = std::function<void(int layer, std::span<float> log_popularity)>;

/// Gives `source` scores whose logits are log(popularity) + Gumbel noise (workloads/noise.h); the popularity of the layers to be run is computed once.
void make_synthetic(Source& source, const SourceContext& context, const Popularity& popularity);

/// As above for a popularity that changes from batch to batch.
using BatchPopularity = std::function<void(int layer, int batch, std::span<float> log_popularity)>;

/// Gives `source`, whose `first_token` is filled, scores that follow the popularity of the batch that a token is of.
void make_synthetic(Source& source, const SourceContext& context, const BatchPopularity& popularity);

/// Random numbers for an expert of a layer in a batch, whatever else is drawn; `batch` may be any window of batches, from 0.
Rng batch_rng(std::uint64_t seed, int layer, std::int64_t batch, std::int64_t expert);

/// Marks `hot` different experts, drawn anew for each layer and window of batches.
void mark_hot(std::uint64_t seed, int layer, std::int64_t window, int hot, float log_factor, std::span<float> log_popularity);

/// Reads `sigma` and gives the log-popularity under what changes: log-normal, drawn from the seed once for all batches.
Popularity read_base(Params& params, const SourceContext* context);

/// A random order of the experts for a layer: which one is hot depends on the seed.
std::vector<std::uint32_t> expert_order(std::uint64_t seed, int layer, int experts);

}  // namespace epsim
