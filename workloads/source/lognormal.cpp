#include "base/rng.h"
#include "workloads/source/shared/synthetic.h"

namespace epsim::parts_source {

Source lognormal(Params& p, const SourceContext* context) {
  Source source;
  source.summary = "synthetic gate logits; each layer's experts have log-normal popularity, drawn from the seed";
  source.first_token = read_token_blocks(p, context);
  const double sigma = p.number("sigma", "standard deviation of log(popularity); 0: uniform", 0.6, 0, 20);
  if (!p.usable() || !context) return source;
  make_synthetic(source, *context, [sigma, seed = context->seed](int layer, std::span<float> log_popularity) {
    for (std::size_t e = 0; e < log_popularity.size(); ++e)
      log_popularity[e] = static_cast<float>(sigma * Rng(seed, Stream::popularity, 1 + e, static_cast<std::uint32_t>(layer)).normal());
  });
  return source;
}

}  // namespace epsim::parts_source
