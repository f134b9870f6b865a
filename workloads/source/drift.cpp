#include <cmath>

#include "workloads/source/shared/synthetic.h"

namespace epsim::parts_source {

/// Log-popularity is sigma times the mean of `memory` independent normal steps, one of which is replaced with each batch, scaled to variance 1: it walks as a random walk does within `memory` batches,
/// is normal with the same spread in every batch, and its correlation falls straight from 1 to 0 over `memory` batches.
Source drift(Params& p, const SourceContext* context) {
  Source source;
  source.summary = "synthetic gate logits; log-normal popularity that walks slowly from batch to batch and forgets where it was after `memory` batches";
  source.first_token = read_token_blocks(p, context);
  const double sigma = p.number("sigma", "standard deviation of log(popularity) in every batch", 0.6, 0, 20);
  const auto memory = static_cast<int>(p.integer("memory", "batches after which popularity is independent of what it was; 1: drawn anew in each", 16, 1, 4096));
  if (!p.usable() || !context) return source;
  make_synthetic(source, *context, BatchPopularity([sigma, memory, seed = context->seed](int layer, int batch, std::span<float> log_popularity) {
    for (std::size_t e = 0; e < log_popularity.size(); ++e) {
      double sum = 0;
      for (int step = 0; step < memory; ++step) sum += batch_rng(seed, layer, batch + step, static_cast<std::int64_t>(e)).normal();
      log_popularity[e] = static_cast<float>(sigma * sum / std::sqrt(static_cast<double>(memory)));
    }
  }));
  return source;
}

}  // namespace epsim::parts_source
