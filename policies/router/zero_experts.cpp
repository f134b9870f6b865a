#include <fmt/format.h>

#include "policies/router/shared/topk_gate.h"

namespace epsim::parts_router {
namespace {

IdleExperts read_idle_experts(Params& p) {
  const auto read = [&](std::string_view key, std::string_view help) { return static_cast<int>(p.integer(key, help, 0, 0, 65535)); };
  IdleExperts idle;
  idle.zero = read("zero", "experts that give nothing");
  idle.identity = read("identity", "experts that give the token itself");
  idle.constant = read("constant", "experts that give a learned vector, mixed with the token");
  return idle;
}

}  // namespace

/// Experts that compute nothing stand behind the model's and are chosen like them: `zero` ones give nothing, `identity` ones the token itself, `constant` ones a learned vector mixed with it. No row is sent to
/// them. MoE++ (Jin et al. 2024): top-2 of softmax over all, a zero expert's weight is 0 and the others are renormalised. LongCat-Flash: 256 identity experts beside 512, biased scores, no renormalising, a scale.
Router zero_experts(Params& p, const Shape* shape) {
  Router router;
  router.summary = "top_k among the model's experts and others that compute nothing: zero, identity and constant experts (MoE++, LongCat-Flash)";
  router.idle = read_idle_experts(p);
  const IdleExperts& idle = router.idle;
  TopkGate gate = read_topk(p, {"softmax", "sigmoid", "softmax_after", "sqrt_softplus"});
  if (!p.usable()) return router;
  if (idle.count() == 0) p.error("", "there are no such experts: give `zero`, `identity` or `constant`; without any, take `topk`");
  if (shape && shape->experts + idle.count() > 65534) p.error("", fmt::format("{} experts are too many", shape->experts + idle.count()));
  if (!p.usable() || !shape) return router;
  const int all = shape->experts + idle.count();
  if (shape->top_k > all) p.error("", fmt::format("top_k is {}, but there are {} experts", shape->top_k, all));
  read_bias(gate, p, all);
  if (!p.usable()) return router;
  if (idle.zero > 0) {
    gate.weighing.nothing.assign(static_cast<std::size_t>(all), 0);
    for (int e = shape->experts; e < shape->experts + idle.zero; ++e) gate.weighing.nothing[static_cast<std::size_t>(e)] = 1;
  }
  make_topk(router, gate, all, shape->top_k);
  router.select = nullptr;  // it knows none that are not sent to
  router.may_choose_fewer = true;
  return router;
}

}  // namespace epsim::parts_router
