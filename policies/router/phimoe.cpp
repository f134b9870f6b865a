#include <algorithm>
#include <cmath>

#include "policies/router/shared/topk_gate.h"

namespace epsim::parts_router {
namespace {

/// Weights of one token's choices, and optionally what dL/dweights adds to dL/dlogits.
void sparse_mixer(std::span<const float> logits, std::span<const std::int32_t> experts, double jitter, std::span<float> weights, std::span<const float> d_weights, std::span<float> d_logits) {
  std::vector<double> left(logits.begin(), logits.end()), p(logits.size());
  for (std::size_t i = 0; i < experts.size(); ++i) {
    if (experts[i] < 0) continue;
    const auto chosen = static_cast<std::size_t>(experts[i]);
    const double top = left[chosen];
    double sum = 0;
    for (std::size_t e = 0; e < p.size(); ++e) {
      // Among those not chosen before, only scores near the best one are in this softmax.
      const double near = (top - double{logits[e]}) / std::max(std::abs(double{logits[e]}), top);
      p[e] = left[e] == -INFINITY || near > 2 * jitter ? 0 : std::exp(left[e] - top);
      sum += p[e];
    }
    if (!weights.empty()) weights[i] = static_cast<float>(p[chosen] / sum);
    for (std::size_t e = 0; !d_logits.empty() && e < p.size(); ++e)
      d_logits[e] += static_cast<float>(double{d_weights[i]} * (p[chosen] / sum) * ((e == chosen ? 1 : 0) - p[e] / sum));
    left[chosen] = -INFINITY;
  }
}

}  // namespace

/// PhiMoE's gate (SparseMixer-v2 as Phi-3.5-MoE evaluates it): experts are taken one after another, and the weight of each is a softmax over those that are left whose logit is within a share 2 `jitter` of the
/// best; weights do not sum to 1.
Router phimoe(Params& p, const Shape* shape) {
  Router router;
  router.summary = "each token's top_k experts, each weighed by a softmax over the nearly best that were left (PhiMoE)";
  const double jitter = p.number("jitter", "half the share of a logit by which others may be below the best and still count", 0.01, 0, 1);
  if (!p.usable()) return router;
  check_top_k(p, shape);
  if (!p.usable() || !shape) return router;
  router.top_k = shape->top_k;
  const auto k = static_cast<std::size_t>(shape->top_k);
  router.weigh = [jitter, k](const GateBatch& batch, std::span<const std::int32_t> experts, std::span<float> weights) {
    std::ranges::fill(weights, 0.0F);
    for (std::int64_t t = 0; t < batch.tokens; ++t)
      sparse_mixer(batch.row(t), experts.subspan(static_cast<std::size_t>(t) * k, k), jitter, weights.subspan(static_cast<std::size_t>(t) * k, k), {}, {});
  };
  router.backward = [jitter, k](const GateBatch& batch, std::span<const std::int32_t> experts, std::span<const float> d_weights, std::span<float> d_logits) {
    const auto columns = static_cast<std::size_t>(batch.experts);
    for (std::int64_t t = 0; t < batch.tokens; ++t) {
      const std::size_t at = static_cast<std::size_t>(t) * k;
      sparse_mixer(batch.row(t), experts.subspan(at, k), jitter, {}, d_weights.subspan(at, k), d_logits.subspan(static_cast<std::size_t>(t) * columns, columns));
    }
  };
  choose_by_token(router, [](const GateBatch&, std::int64_t, std::span<const float> row, std::span<std::int32_t> ids) { best_of(std::vector<double>(row.begin(), row.end()), ids); });
  return router;
}

}  // namespace epsim::parts_router
