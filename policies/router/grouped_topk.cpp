#include <fmt/format.h>

#include "policies/router/shared/topk_gate.h"

namespace epsim::parts_router {

/// Group-limited routing of DeepSeek-V2 (softmax, groups by their maximum) and DeepSeek-V3 (sigmoid, groups by their two best, a bias that only chooses). Experts of other groups are out of reach
/// (minus infinity in DeepSeek's and Megatron's code) or have score 0 (transformers), which negative biased scores fall behind.
Router grouped_topk(Params& p, const Shape* shape) {
  Router router;
  router.summary = "each token's top_k experts within its best groups of experts (DeepSeek-V2 and V3, GLM-4.5, Kimi-K2)";
  const std::int64_t groups = p.integer("groups", "groups of neighbouring experts", {}, 1, 65535);
  const std::int64_t kept = p.integer("groups_kept", "groups that a token may use", {}, 1, 65535);
  const std::string group_score = p.choice("group_score", "the score of a group: the sum of its two best experts' (DeepSeek-V3), its best one's (V2), or the sum of its best top_k / groups_kept (Megatron)",
                                           {"top2", "max", "share"}, "top2");
  const bool zero = p.choice("masked", "the score of experts in other groups: none at all (DeepSeek, Megatron) or 0 (transformers)", {"minus_infinity", "zero"}, "minus_infinity") == "zero";
  TopkGate gate = read_topk(p, {"sigmoid", "softmax", "sqrt_softplus"});
  if (!p.usable()) return router;
  if (kept > groups) p.error("groups_kept", fmt::format("{} groups are kept, but there are {}", kept, groups));
  if (shape && shape->experts % groups != 0) p.error("groups", fmt::format("{} groups do not divide {} experts", groups, shape->experts));
  check_top_k(p, shape);
  if (!p.usable() || !shape) return router;
  if (!zero && shape->top_k > shape->experts / groups * kept)
    p.error("groups_kept", fmt::format("top_k is {}, but {} of {} groups hold only {} experts", shape->top_k, kept, groups, shape->experts / groups * kept));
  if (group_score == "share" && shape->top_k % kept != 0) p.error("group_score", fmt::format("{} kept groups do not divide top_k {}", kept, shape->top_k));
  read_bias(gate, p, shape->experts);
  if (!p.usable()) return router;
  gate.groups = static_cast<int>(groups), gate.groups_kept = static_cast<int>(kept), gate.masked_zero = zero;
  gate.group_best = group_score == "max" ? 1 : group_score == "top2" ? 2 : static_cast<int>(shape->top_k / kept);
  make_topk(router, gate, shape->experts, shape->top_k);
  return router;
}

}  // namespace epsim::parts_router
