#include <algorithm>
#include <cmath>

#include "policies/loss.h"
#include "policies/loss/shared/probability.h"

namespace epsim::parts_loss {

/// The router z-loss of ST-MoE (Zoph et al. 2022): the mean over tokens of logsumexp(logits) squared.
Loss z(Params& p, const Shape*) {
  Loss loss;
  loss.summary = "the mean of the squared logsumexp of logits (ST-MoE)";
  const double coefficient = p.number("coefficient", "factor on the loss; 1e-3 in ST-MoE and Megatron-LM", 1);
  if (!p.usable()) return loss;
  loss.value = [coefficient](const LossBatch& batch, std::span<float> d_logits) {
    const GateBatch& g = batch.gate;
    const auto experts = static_cast<std::size_t>(g.experts);
    double sum = 0, tokens = 0;
    for (std::int64_t t = 0; t < g.tokens; ++t) tokens += counts(g, t);
    for (std::int64_t t = 0; t < g.tokens; ++t) {
      if (!counts(g, t)) continue;
      const auto row = g.row(t);
      const double top = std::ranges::max(row);
      double exponentials = 0;
      for (const float l : row) exponentials += std::exp(double{l} - top);
      const double log_sum = top + std::log(exponentials);
      sum += log_sum * log_sum / tokens;
      for (std::size_t e = 0; !d_logits.empty() && e < experts; ++e)
        d_logits[static_cast<std::size_t>(t) * experts + e] += static_cast<float>(coefficient * 2 * log_sum / tokens * std::exp(double{row[e]} - top) / exponentials);
    }
    return coefficient * sum;
  };
  return loss;
}

}  // namespace epsim::parts_loss
