#include <cmath>

#include "workloads/source/shared/synthetic.h"

namespace epsim::parts_source {

Source zipf(Params& p, const SourceContext* context) {
  Source source;
  source.summary = "synthetic gate logits; the r-th most popular expert of a layer has popularity r^-exponent, in an order drawn from the seed";
  source.first_token = read_token_blocks(p, context);
  const double exponent = p.number("exponent", "how fast popularity falls with rank; 0: uniform", 1.0, 0, 20);
  if (!p.usable() || !context) return source;
  make_synthetic(source, *context, [exponent, seed = context->seed, experts = context->experts](int layer, std::span<float> log_popularity) {
    const std::vector<std::uint32_t> order = expert_order(seed, layer, experts);
    for (std::size_t r = 0; r < order.size(); ++r) log_popularity[order[r]] = static_cast<float>(-exponent * std::log(static_cast<double>(r + 1)));
  });
  return source;
}

}  // namespace epsim::parts_source
