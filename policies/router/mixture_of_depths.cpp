#include <algorithm>
#include <cmath>

#include "policies/router/shared/topk_gate.h"

namespace epsim::parts_router {

/// Mixture of depths (Raposo et al. 2024) with experts: of a rank's T tokens only the ceil(fraction T) with the largest logit of any expert enter the layer, the others choose none and pass by; those that enter
/// take their top_k experts. Weights are sigmoid(logit). Tokens are chosen with knowledge of later ones.
Router mixture_of_depths(Params& p, const Shape* shape) {
  Router router;
  router.summary = "a fixed share of a rank's tokens enters the layer, those with the largest scores; the others choose no expert (mixture of depths)";
  const double fraction = p.number("fraction", "share of the tokens that enter; 1/8 in the paper", 0.125, 0, 1);
  if (!p.usable()) return router;
  check_top_k(p, shape);
  if (!p.usable() || !shape) return router;
  router.top_k = shape->top_k, router.scope = Router::Scope::rank, router.may_choose_fewer = true;
  weigh_by(router, {.score = Weighing::Score::sigmoid, .renormalise = false});
  router.choose = [fraction, k = static_cast<std::size_t>(shape->top_k), weigh_all = router.weigh](const GateBatch& batch, std::span<std::int32_t> experts, std::span<float> weights) {
    std::vector<float> best;
    std::vector<std::int64_t> order;
    for (std::int64_t t = 0; t < batch.tokens; ++t) best.push_back(std::ranges::max(batch.row(t))), order.push_back(t);
    std::ranges::stable_sort(order, std::greater(), [&](std::int64_t t) { return best[static_cast<std::size_t>(t)]; });
    const auto enter = static_cast<std::size_t>(std::ceil(fraction * static_cast<double>(batch.tokens)));
    std::ranges::fill(experts, -1);
    for (std::size_t i = 0; i < enter; ++i) {
      const auto row = batch.row(order[i]);
      best_of(std::vector<double>(row.begin(), row.end()), experts.subspan(static_cast<std::size_t>(order[i]) * k, k));
    }
    weigh_all(batch, experts, weights);
  };
  return router;
}

}  // namespace epsim::parts_router
