#include <fmt/format.h>

#include <cmath>
#include <memory>

#include "base/npz.h"
#include "policies/router/shared/gate.h"
#include "policies/routing.h"

namespace epsim::parts_router {
namespace {

/// Reads `bias` [experts]; what is wrong is reported at the setting.
std::vector<float> read_bias(const std::string& file, Params& p, int experts) {
  std::vector<float> bias;
  try {
    const auto arrays = read_npz(read_text(file));
    const auto it = arrays.find("bias");
    if (it == arrays.end() || !it->second.is_float || it->second.shape != std::vector<std::int64_t>{experts}) {
      p.error("bias", fmt::format("{}: expected an array `bias` of {} floats", file, experts));
      return bias;
    }
    for (std::size_t e = 0; e < it->second.floats.size(); ++e) {
      if (!std::isfinite(it->second.floats[e])) p.error("bias", fmt::format("{}: bias[{}] is not a finite number", file, e));
      bias.push_back(static_cast<float>(it->second.floats[e]));
    }
  } catch (const InputError& e) {
    for (const Diagnostic& d : e.problems()) p.error("bias", fmt::format("{}: {}", file, d.message));
  }
  return bias;
}

}  // namespace

/// Group-limited routing of DeepSeek-V2 (softmax, groups by their maximum) and DeepSeek-V3 (sigmoid, groups by their two best, a bias that only chooses).
/// Experts of other groups are out of reach (minus infinity in DeepSeek's own code), not merely at score 0 as in transformers.
Router grouped_topk(Params& p, const Shape* shape) {
  Router router;
  router.summary = "each token's top_k experts within its best groups of experts (DeepSeek-V2 and V3, GLM-4.5, Kimi-K2)";
  const std::int64_t groups = p.integer("groups", "groups of neighbouring experts", {}, 1, 65535);
  const std::int64_t kept = p.integer("groups_kept", "groups that a token may use", {}, 1, 65535);
  const std::string score = p.choice("score", "the score of an expert", {"sigmoid", "softmax"}, "sigmoid");
  const std::string group_score = p.choice("group_score", "the score of a group: the sum of its two best experts' or its best one's", {"top2", "max"}, "top2");
  const bool renormalise = p.flag("renormalise", "divide the weights by their sum", true);
  const double scale = p.number("scale", "factor on the weights", 1.0);
  const std::string bias = p.path("bias", ".npz with `bias` [experts], added to scores for choosing but not for weights", "");
  if (!p.usable()) return router;
  if (kept > groups) p.error("groups_kept", fmt::format("{} groups are kept, but there are {}", kept, groups));
  if (shape && shape->experts % groups != 0) p.error("groups", fmt::format("{} groups do not divide {} experts", groups, shape->experts));
  if (!p.usable() || !shape) return router;
  if (shape->top_k > shape->experts)
    p.error("", fmt::format("top_k is {}, but there are {} experts", shape->top_k, shape->experts));
  else if (shape->top_k > shape->experts / groups * kept)
    p.error("groups_kept", fmt::format("top_k is {}, but {} of {} groups hold only {} experts", shape->top_k, kept, groups, shape->experts / groups * kept));
  GateRule rule;
  rule.experts = shape->experts, rule.top_k = shape->top_k;
  rule.score = score == "sigmoid" ? GateRule::Score::sigmoid : GateRule::Score::softmax;
  rule.renormalise = renormalise, rule.scale = static_cast<float>(scale);
  rule.groups = static_cast<int>(groups), rule.groups_kept = static_cast<int>(kept);
  rule.group_score = group_score == "max" ? GateRule::GroupScore::max : GateRule::GroupScore::top2;
  if (p.has("bias")) rule.bias = read_bias(bias, p, shape->experts);
  if (!p.usable()) return router;
  router.select = [rule = std::make_shared<const GateRule>(std::move(rule)), width = gate_widths() - 1](ScoreForm form, std::int64_t count, std::span<const float> scores,
                                                                             std::span<std::uint16_t> experts, std::span<float> weights) {
    apply_gate(*rule, form, count, scores, experts, weights, width);
  };
  return router;
}

}  // namespace epsim::parts_router
