#include "workloads/source/shared/hot.h"
#include "workloads/source/shared/synthetic.h"

namespace epsim::parts_source {

/// Time is cut into windows of `length` batches. In each, by chance and for each layer on its own, other experts are hot or none.
Source burst(Params& p, const SourceContext* context) {
  Source source;
  source.summary = "synthetic gate logits; some experts, drawn anew each time, are hot for `length` batches, then perhaps none for a while";
  source.first_token = read_token_blocks(p, context);
  const Popularity base = read_base(p, context);
  const Hot hot = read_hot(p, context);
  const auto length = static_cast<int>(p.integer("length", "batches that a burst lasts", 4, 1, 1'000'000));
  const double chance = p.number("chance", "probability that a stretch of `length` batches is a burst", 0.25, 0, 1);
  if (!p.usable() || !context) return source;
  make_synthetic(source, *context, BatchPopularity([=, seed = context->seed](int layer, int batch, std::span<float> log_popularity) {
    base(layer, log_popularity);
    const std::int64_t window = batch / length;
    if (batch_rng(seed, layer, window, 0).uniform() < chance) mark_hot(seed, layer, window, hot.experts, hot.log_factor, log_popularity);
  }));
  return source;
}

}  // namespace epsim::parts_source
