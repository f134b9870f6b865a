#include "sim/moe/planned.h"

#include "sim/moe/idle.h"

namespace epsim {

Routed routed_of(const Plan& plan, Rank home, std::span<const float> weights) {
  const Routing& routing = plan.routing;
  Routed routed;
  routed.tokens = routing.first_token[home + 1] - routing.first_token[home], routed.experts = routing.experts, routed.top_k = routing.top_k;
  for (auto at = static_cast<std::size_t>(routing.first_token[home] * routing.top_k), end = at + static_cast<std::size_t>(routed.tokens * routing.top_k); at < end; ++at) {
    const bool made = !routing.may_choose_fewer || routing.expert[at] != kNoExpert, kept = made && (plan.slot[at] >= 0 || !routing.computes(at));
    routed.expert.push_back(made ? routing.expert[at] : -1);
    if (!weights.empty()) routed.weight.push_back(weights[at]);
    routed.weight_after.push_back(kept ? routing.weight[at] : 0), routed.kept.push_back(kept);
  }
  return routed;
}

void add_idle(const IdleBank& idle, const Plan& plan, Rank home, std::span<const float> x, std::span<float> y) {
  if (!idle.empty()) IdlePass(idle.shape, idle.weights, x).forward(routed_of(plan, home), y);
}

LayerWeights add_idle_backward(const IdleBank& idle, const Plan& plan, Rank home, std::span<const float> x, std::span<const float> dy, std::span<float> dx, std::span<float> d_weight) {
  LayerWeights gradients = zeros_like(idle.weights);
  if (!idle.empty()) IdlePass(idle.shape, idle.weights, x).backward(routed_of(plan, home), dy, dx, d_weight, gradients);
  return gradients;
}

}  // namespace epsim
