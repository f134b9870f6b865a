#include "policies/quantile_balance.h"
#include "policies/router/shared/topk_gate.h"

namespace epsim::parts_router {

/// Quantile balancing (Megatron-LM): experts are chosen by logit - beta, and each step's batch gives the next beta by quantiles, so that every expert gets T k / E tokens. A batch that brings a `bias` is
/// chosen with beta = -bias; otherwise beta is made from the rank's own tokens, `steps` times from 0. Weights are those of the score function, without beta.
Router quantile(Params& p, const Shape* shape) {
  Router router;
  router.summary = "each token's top_k experts by logit less a quantile that evens out the experts (Megatron-LM's quantile balancing)";
  const std::int64_t steps = p.integer("steps", "times that beta is made from a rank's tokens", 8, 0, 10'000);
  TopkGate gate = read_topk(p, {"sigmoid", "softmax_before", "softmax_after", "sqrt_softplus"});
  if (!p.usable()) return router;
  check_top_k(p, shape);
  if (!gate.bias_file.empty()) p.error("bias", "beta takes the place of a bias");
  if (gate.jitter > 0 || gate.noise > 0) p.error(gate.jitter > 0 ? "jitter" : "noise", "quantile balancing has no noise");
  if (!p.usable() || !shape) return router;
  router.top_k = shape->top_k, router.scope = Router::Scope::rank;
  router.takes_bias = true;
  weigh_by(router, gate.weighing);
  router.choose = [steps, k = shape->top_k, weigh_all = router.weigh](const GateBatch& batch, std::span<std::int32_t> experts, std::span<float> weights) {
    std::vector<float> beta(static_cast<std::size_t>(batch.experts));
    for (std::size_t e = 0; e < batch.bias.size(); ++e) beta[e] = -batch.bias[e];
    for (std::int64_t i = 0; batch.bias.empty() && i < steps; ++i) beta = quantile_beta(batch, k, beta);
    std::vector<double> scores(beta.size());
    for (std::int64_t t = 0; t < batch.tokens; ++t) {
      for (std::size_t e = 0; e < beta.size(); ++e) scores[e] = double{batch.row(t)[e] - beta[e]};
      best_of(scores, experts.subspan(static_cast<std::size_t>(t * k), static_cast<std::size_t>(k)));
    }
    weigh_all(batch, experts, weights);
  };
  return router;
}

}  // namespace epsim::parts_router
