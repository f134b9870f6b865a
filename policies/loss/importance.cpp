#include <algorithm>

#include "policies/loss.h"
#include "policies/loss/shared/probability.h"

namespace epsim::parts_loss {

/// The importance loss of Shazeer et al. (2017): the squared coefficient of variation of the experts' importance, which is the sum over tokens of their combine weights, or of all their scores (V-MoE).
Loss importance(Params& p, const Shape*) {
  Loss loss;
  loss.summary = "the squared coefficient of variation of the experts' summed weights or scores (Shazeer et al. 2017, V-MoE)";
  const double coefficient = p.number("coefficient", "factor on the loss", 1);
  const bool scores = p.choice("of", "what is summed: combine weights of the chosen (Shazeer), or softmax scores of all (V-MoE)", {"weights", "scores"}, "weights") == "scores";
  const bool sample = p.choice("variance", "over n - 1 (Shazeer's code; the default of `weights`) or over n (V-MoE; of `scores`)", {"sample", "population"}, scores ? "population" : "sample") == "sample";
  if (!p.usable()) return loss;
  loss.value = [=](const LossBatch& batch, std::span<float> d_logits) {
    const GateBatch& g = batch.gate;
    const auto experts = static_cast<std::size_t>(g.experts), k = static_cast<std::size_t>(batch.routed.top_k);
    std::vector<double> sums(experts), row(experts), d(d_logits.empty() ? 0 : experts);
    for (std::int64_t t = 0; t < g.tokens; ++t) {
      if (!counts(g, t)) continue;
      if (scores) {
        loss_scores(false, g.row(t), row);
        for (std::size_t e = 0; e < experts; ++e) sums[e] += row[e];
        continue;
      }
      for (std::size_t i = static_cast<std::size_t>(t) * k; i < static_cast<std::size_t>(t + 1) * k; ++i)
        if (batch.routed.expert[i] >= 0) sums[static_cast<std::size_t>(batch.routed.expert[i])] += double{batch.routed.weight[i]};
    }
    const double value = coefficient * squared_variation(sums, sample, d);
    for (double& x : d) x *= coefficient;
    if (d_logits.empty()) return value;
    if (scores) {
      for (std::int64_t t = 0; t < g.tokens; ++t) {
        if (!counts(g, t)) continue;
        loss_scores(false, g.row(t), row);
        loss_scores_backward(false, g.row(t), row, d, d_logits.subspan(static_cast<std::size_t>(t) * experts, experts));
      }
    } else if (batch.router.backward) {
      std::vector<float> d_weights(batch.routed.weight.size());
      for (std::size_t i = 0; i < d_weights.size(); ++i)
        if (batch.routed.expert[i] >= 0 && counts(g, static_cast<std::int64_t>(i / k))) d_weights[i] = static_cast<float>(d[static_cast<std::size_t>(batch.routed.expert[i])]);
      batch.router.backward(g, batch.routed.expert, d_weights, d_logits);
    }
    return value;
  };
  return loss;
}

}  // namespace epsim::parts_loss
