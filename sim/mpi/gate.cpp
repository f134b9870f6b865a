#include "sim/mpi/gate.h"

#include "policies/routed.h"
#include "sim/moe/planned.h"
#include "sim/moe/product.h"
#include "workloads/scores.h"

namespace epsim {

bool gate_has_gradient(const Experiment& e) { return e.source.gate && e.router.backward; }

std::vector<float> gate_backward(const Experiment& e, const Plan& plan, const std::vector<float>& weights, const std::vector<float>& d_weight, Rank rank, std::span<float> dx) {
  const int experts = plan.routing.experts + e.router.idle.count(), k = plan.routing.top_k;
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
  const Routed routed = routed_of(plan, rank, weights);
  route_backward(e.router, e.capacity, batch, routed, of_home(plan, rank, k, d_weight), d_logits);
  std::vector<float> gate(gradient.size());
  e.source.gate(plan.layer, gate);
  RightSide(experts, h, gate.data(), true, Precision::fp32).multiply(d_logits.data(), tokens, dx.data(), true);
  std::vector<float> x(dx.size());
  for (std::int64_t t = 0; t < tokens; ++t) token_vector(e.seed, number + t, std::span(x).subspan(static_cast<std::size_t>(t * h), static_cast<std::size_t>(h)));
  sum_outer_products(x.data(), h, d_logits.data(), experts, tokens, gradient.data());
  return gradient;
}

}  // namespace epsim
