#include "policies/loss.h"
#include "policies/quantile_balance.h"

namespace epsim::parts_loss {

/// The next bias of quantile balancing (Megatron-LM; router `quantile`): minus the quantiles of this step's logits.
Loss quantile_update(Params& p, const Shape*) {
  Loss loss;
  loss.summary = "no loss, but a bias for choosing from quantiles of this step's logits (Megatron-LM's quantile balancing)";
  if (!p.usable()) return loss;
  loss.value = [](const LossBatch&, std::span<float>) { return 0.0; };
  loss.next_bias = [](const LossBatch& batch, std::span<const float> bias) {
    std::vector<float> beta(static_cast<std::size_t>(batch.gate.experts));
    for (std::size_t e = 0; e < bias.size(); ++e) beta[e] = -bias[e];
    beta = quantile_beta(batch.gate, batch.routed.top_k, beta);
    for (float& b : beta) b = -b;
    return beta;
  };
  return loss;
}

}  // namespace epsim::parts_loss
