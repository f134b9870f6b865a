#include "sim/mpi/gate.h"

#include "policies/routed.h"
#include "sim/moe/product.h"
#include "workloads/scores.h"

namespace epsim {

bool gate_has_gradient(const Experiment& e) { return e.source.gate && e.router.backward; }

std::vector<float> gate_backward(const Experiment& e, const Plan& plan, const std::vector<float>& weights, const std::vector<float>& d_weight, Rank rank, std::span<float> dx) {
  const int experts = plan.routing.experts, k = plan.routing.top_k;
  const std::int64_t h = e.execute_hidden, first = plan.routing.first_token[rank], tokens = plan.routing.first_token[rank + 1] - first, number = e.eval.first * e.source.tokens() + first;
  std::vector<float> gradient(static_cast<std::size_t>(h * experts));
  if (tokens == 0) return gradient;
  std::vector<float> logits(static_cast<std::size_t>(tokens * experts)), d_logits(logits.size());
  {
    std::vector<float> blocks(score_count(tokens, experts));
    e.source.scores(plan.layer, number, tokens, blocks);
    logits_of_scores(e.source.form, tokens, experts, blocks, logits);
  }
  GateBatch batch;
  batch.tokens = tokens, batch.experts = experts, batch.logits = logits, batch.layer = plan.layer, batch.seed = e.seed, batch.first_token = number, batch.training = true;
  Routed routed;
  routed.tokens = tokens, routed.experts = experts, routed.top_k = k;
  for (std::int64_t c = first * k; c < (first + tokens) * k; ++c) {
    const auto at = static_cast<std::size_t>(c);
    const bool kept = plan.slot[at] >= 0;
    routed.expert.push_back(plan.routing.may_choose_fewer && plan.routing.expert[at] == kNoExpert ? -1 : plan.routing.expert[at]);
    routed.weight.push_back(weights[at]), routed.weight_after.push_back(kept ? plan.routing.weight[at] : 0), routed.kept.push_back(kept);
  }
  route_backward(e.router, e.capacity, batch, routed, std::span(d_weight).subspan(static_cast<std::size_t>(first * k), routed.expert.size()), d_logits);
  std::vector<float> gate(gradient.size());
  e.source.gate(plan.layer, gate);
  RightSide(experts, h, gate.data(), true, Precision::fp32).multiply(d_logits.data(), tokens, dx.data(), true);
  std::vector<float> x(dx.size());
  for (std::int64_t t = 0; t < tokens; ++t) token_vector(e.seed, number + t, std::span(x).subspan(static_cast<std::size_t>(t * h), static_cast<std::size_t>(h)));
  sum_outer_products(x.data(), h, d_logits.data(), experts, tokens, gradient.data());
  return gradient;
}

}  // namespace epsim
