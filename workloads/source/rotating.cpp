#include "workloads/source/shared/hot.h"
#include "workloads/source/shared/synthetic.h"

namespace epsim::parts_source {

/// Experts [b step, b step + hot), modulo all experts, are hot in the b-th stretch of `every` batches: after `every` x E / gcd(E, step) batches all is as at first.
Source rotating(Params& p, const SourceContext* context) {
  Source source;
  source.summary = "synthetic gate logits; a hot spot of neighbouring experts, the same in all layers, moves on by `step` experts every `every` batches";
  source.first_token = read_token_blocks(p, context);
  const Popularity base = read_base(p, context);
  const Hot hot = read_hot(p, context);
  const std::int64_t every = p.integer("every", "batches that the hot spot stays", 1, 1, 1'000'000);
  const std::int64_t asked = p.integer("step", "experts that it moves by", 0, 1, 65'535, "`hot`");
  if (!p.usable() || !context) return source;
  make_synthetic(source, *context, BatchPopularity([=, step = asked ? asked : hot.experts](int layer, int batch, std::span<float> log_popularity) {
    base(layer, log_popularity);
    const auto experts = static_cast<std::int64_t>(log_popularity.size()), first = batch / every * step;
    for (int i = 0; i < hot.experts; ++i) log_popularity[static_cast<std::size_t>((first + i) % experts)] += hot.log_factor;
  }));
  return source;
}

}  // namespace epsim::parts_source
