#include <cmath>

#include "policies/router/shared/topk_gate.h"

namespace epsim::parts_router {
namespace {

/// exp(logits) of a rank's tokens scaled by rows and columns until both sums are even: [T][E].
std::vector<float> balanced(const GateBatch& batch, double tolerance) {
  constexpr float kLeast = 1e-8F;
  const auto tokens = static_cast<std::size_t>(batch.tokens), experts = static_cast<std::size_t>(batch.experts);
  std::vector<float> cost(batch.logits.size()), row(tokens, 1), column(experts, 1), before;
  for (std::size_t i = 0; i < cost.size(); ++i) cost[i] = std::exp(batch.logits[i]);
  constexpr int kRounds = 10'000;  // it converges in tens
  double change = INFINITY;
  for (int round = 0; round < kRounds && change > tolerance; ++round) {
    before = column;
    std::vector<double> sums(experts);
    for (std::size_t t = 0; t < tokens; ++t) {
      double sum = 0;
      for (std::size_t e = 0; e < experts; ++e) sum += double{column[e] * cost[t * experts + e]};
      row[t] = 1 / static_cast<float>(tokens) / (static_cast<float>(sum) + kLeast);
      for (std::size_t e = 0; e < experts; ++e) sums[e] += double{row[t] * cost[t * experts + e]};
    }
    change = 0;
    for (std::size_t e = 0; e < experts; ++e) {
      column[e] = 1 / static_cast<float>(experts) / (static_cast<float>(sums[e]) + kLeast);
      change += std::abs(double{before[e]} - double{column[e]}) / static_cast<double>(experts);
    }
  }
  for (std::size_t t = 0; t < tokens; ++t)
    for (std::size_t e = 0; e < experts; ++e) cost[t * experts + e] *= column[e] * row[t];
  return cost;
}

}  // namespace

/// Sinkhorn routing (Clark et al. 2022, as Megatron-LM does it): in training experts are chosen by exp(logits) of a rank's tokens, scaled until every token and every expert has the same sum; otherwise by logits.
/// Weights are sigmoid(logit) where k is 1 and softmax over all experts otherwise, not renormalised.
Router sinkhorn(Params& p, const Shape* shape) {
  Router router;
  router.summary = "each token's top_k experts by scores that Sinkhorn's iteration has balanced over a rank's tokens (S-BASE, Megatron-LM)";
  const double tolerance = p.number("tolerance", "mean change of the experts' factors at which the iteration ends", 1e-4, 1e-12, 1);
  if (!p.usable()) return router;
  check_top_k(p, shape);
  if (!p.usable() || !shape) return router;
  router.top_k = shape->top_k, router.scope = Router::Scope::rank;
  weigh_by(router, {.score = shape->top_k == 1 ? Weighing::Score::sigmoid : Weighing::Score::softmax, .renormalise = false});
  router.choose = [tolerance, k = static_cast<std::size_t>(shape->top_k), weigh_all = router.weigh](const GateBatch& batch, std::span<std::int32_t> experts, std::span<float> weights) {
    const std::vector<float> scores = batch.training ? balanced(batch, tolerance) : std::vector<float>(batch.logits.begin(), batch.logits.end());
    const auto columns = static_cast<std::ptrdiff_t>(batch.experts);
    for (std::int64_t t = 0; t < batch.tokens; ++t)
      best_of(std::vector<double>(scores.begin() + t * columns, scores.begin() + (t + 1) * columns), experts.subspan(static_cast<std::size_t>(t) * k, k));
    weigh_all(batch, experts, weights);
  };
  return router;
}

}  // namespace epsim::parts_router
