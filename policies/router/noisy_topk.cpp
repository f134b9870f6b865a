#include "policies/gate_noise.h"
#include "policies/router/shared/topk_gate.h"

namespace epsim::parts_router {

/// Noisy top-k (Shazeer et al. 2017): in training, N(0, 1) times softplus(x W_noise) + 0.01 is added to each logit, the k largest are taken, and weights are a softmax over them.
/// Without values of x W_noise they are 0, with which W_noise begins.
Router noisy_topk(Params& p, const Shape* shape) {
  Router router;
  router.summary = "each token's top_k experts by logits with noise of a learned width; softmax over the chosen (Shazeer et al. 2017)";
  if (!p.usable()) return router;
  check_top_k(p, shape);
  if (!p.usable() || !shape) return router;
  router.top_k = shape->top_k;
  const LogitsOf noisy = [](const GateBatch& batch, std::int64_t token, std::vector<float>& room, std::vector<float>&) -> std::span<const float> {
    room = shazeer_logits(batch, token);
    return room;
  };
  weigh_by(router, {.score = Weighing::Score::softmax_chosen}, noisy);
  choose_by_token(
      router, [](const GateBatch&, std::int64_t, std::span<const float> row, std::span<std::int32_t> ids) { best_of(std::vector<double>(row.begin(), row.end()), ids); }, noisy);
  return router;
}

}  // namespace epsim::parts_router
