#include "policies/router/shared/topk_gate.h"

namespace epsim::parts_router {

/// The k experts with the largest scores. Switch, Mixtral, Qwen2-MoE, Qwen3-MoE, OLMoE, DBRX, gpt-oss, Llama-4, DeepSeekMoE, GLaM and V-MoE are settings of it (docs/routing.md).
Router topk(Params& p, const Shape* shape) {
  Router router;
  router.summary = "each token's top_k experts by score (Mixtral, Qwen, gpt-oss, Switch, Llama-4, V-MoE)";
  TopkGate gate = read_topk(p, {"softmax_before", "softmax_after", "sigmoid", "sqrt_softplus"});
  if (!p.usable()) return router;
  check_top_k(p, shape);
  if (!p.usable() || !shape) return router;
  read_bias(gate, p, shape->experts);
  if (!p.usable()) return router;
  make_topk(router, gate, shape->experts, shape->top_k);
  return router;
}

}  // namespace epsim::parts_router
