#include <fmt/format.h>

#include <memory>

#include "policies/router/shared/gate.h"
#include "policies/routing.h"

namespace epsim::parts_router {

Router topk(Params& p, const Shape* shape) {
  Router router;
  router.summary = "each token's top_k experts by score (Mixtral, Qwen, gpt-oss, Switch)";
  const std::string score = p.choice("score", "combine weights: softmax over all experts, softmax over the chosen ones, or sigmoid",
                                     {"softmax_before", "softmax_after", "sigmoid"}, "softmax_before");
  const bool renormalise = p.flag("renormalise", "divide the weights by their sum", true);
  const double scale = p.number("scale", "factor on the weights", 1.0);
  if (!p.usable()) return router;
  if (score == "softmax_after" && !renormalise) p.error("renormalise", "`softmax_after` weights sum to 1 by themselves: `renormalise: false` cannot be had");
  if (shape && shape->top_k > shape->experts) p.error("", fmt::format("top_k is {}, but there are {} experts", shape->top_k, shape->experts));
  if (!p.usable() || !shape) return router;
  GateRule rule;
  rule.experts = shape->experts, rule.top_k = shape->top_k;
  rule.score = score == "sigmoid" ? GateRule::Score::sigmoid : GateRule::Score::softmax;
  rule.renormalise = renormalise, rule.scale = static_cast<float>(scale);
  router.select = [rule = std::make_shared<const GateRule>(std::move(rule)), width = gate_widths() - 1](ScoreForm form, std::int64_t count, std::span<const float> scores,
                                                                             std::span<std::uint16_t> experts, std::span<float> weights) {
    apply_gate(*rule, form, count, scores, experts, weights, width);
  };
  return router;
}

}  // namespace epsim::parts_router
