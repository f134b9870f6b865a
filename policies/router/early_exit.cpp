#include <algorithm>
#include <cmath>

#include "base/rng.h"
#include "policies/router/shared/topk_gate.h"

namespace epsim::parts_router {

/// Early exit: a token leaves the model at some layer and chooses no expert from there on; until then it takes its top_k experts. It leaves before each layer from `first` on with probability `rate`, drawn for
/// the token once, so that who has left stays out; and it skips a layer where the probability of its best expert is `confidence` or more.
Router early_exit(Params& p, const Shape* shape) {
  Router router;
  router.summary = "tokens leave layer by layer, or skip layers they are sure of, and then choose no expert (early exit)";
  const double rate = p.number("rate", "probability of leaving before a layer", 0, 0, 1);
  const std::int64_t first = p.integer("first", "the first layer that tokens may leave before", 0, 0, 100'000);
  const double confidence = p.number("confidence", "probability of the best expert from which a token skips the layer; above 1: never", 2, 0, 2);
  TopkGate gate = read_topk(p, {"softmax_before", "softmax_after", "sigmoid", "sqrt_softplus"});
  if (!p.usable()) return router;
  check_top_k(p, shape);
  if (rate == 0 && confidence > 1) p.error("", "nobody leaves: give `rate` or `confidence`; without them, take `topk`");
  if (!p.usable() || !shape) return router;
  read_bias(gate, p, shape->experts);
  if (!p.usable()) return router;
  make_topk(router, gate, shape->experts, shape->top_k);
  router.select = nullptr;  // it always chooses top_k
  router.may_choose_fewer = true;
  router.choose = [all = router.choose, rate, first, confidence, k = static_cast<std::size_t>(shape->top_k)](const GateBatch& batch, std::span<std::int32_t> experts, std::span<float> weights) {
    all(batch, experts, weights);
    std::vector<double> scores(static_cast<std::size_t>(batch.experts));
    for (std::int64_t t = 0; t < batch.tokens; ++t) {
      // The token is still there with probability (1 - rate)^n after n layers: one draw decides for all layers.
      const double layers = static_cast<double>(std::max<std::int64_t>(batch.layer - first + 1, 0));
      bool gone = rate > 0 && Rng(batch.seed, Stream::router, static_cast<std::uint64_t>(batch.first_token + t), 0x20000U).uniform() >= std::pow(1 - rate, layers);
      if (!gone && confidence <= 1) scores_of(Weighing::Score::softmax, batch.row(t), scores), gone = std::ranges::max(scores) >= confidence;
      if (!gone) continue;
      std::ranges::fill(experts.subspan(static_cast<std::size_t>(t) * k, k), -1);
      std::ranges::fill(weights.subspan(static_cast<std::size_t>(t) * k, k), 0.0F);
    }
  };
  return router;
}

}  // namespace epsim::parts_router
