#include "policies/router/shared/topk_gate.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>

#include "base/npz.h"
#include "base/rng.h"
#include "policies/router/shared/gate.h"

namespace epsim {
namespace {

constexpr double kNever = -std::numeric_limits<double>::infinity();

/// Takes from experts outside the best groups their scores.
void mask_groups(const TopkGate& gate, std::span<double> scores) {
  if (gate.groups_kept >= gate.groups) return;
  const std::size_t size = scores.size() / static_cast<std::size_t>(gate.groups);
  std::vector<double> of_group(static_cast<std::size_t>(gate.groups));
  std::vector<std::int32_t> best(static_cast<std::size_t>(std::min<int>(gate.group_best, static_cast<int>(size)))), kept(static_cast<std::size_t>(gate.groups_kept));
  for (std::size_t g = 0; g < of_group.size(); ++g) {
    const std::span<const double> mine = scores.subspan(g * size, size);
    best_of(mine, best);
    for (const std::int32_t e : best)
      if (e >= 0) of_group[g] += mine[static_cast<std::size_t>(e)];
  }
  best_of(of_group, kept);
  for (std::size_t g = 0; g < of_group.size(); ++g)
    if (std::ranges::find(kept, static_cast<std::int32_t>(g)) == kept.end()) std::ranges::fill(scores.subspan(g * size, size), gate.masked_zero ? 0.0 : kNever);
}

/// The gate as the fast way takes it.
GateRule rule_of(const TopkGate& gate, int experts, int top_k) {
  GateRule rule;
  rule.experts = experts, rule.top_k = top_k;
  rule.score = gate.weighing.score == Weighing::Score::sigmoid ? GateRule::Score::sigmoid : GateRule::Score::softmax;
  rule.renormalise = gate.weighing.renormalise || gate.weighing.score == Weighing::Score::softmax_chosen;
  rule.scale = static_cast<float>(gate.weighing.scale);
  rule.groups = gate.groups, rule.groups_kept = gate.groups_kept;
  rule.group_score = gate.group_best == 1 ? GateRule::GroupScore::max : GateRule::GroupScore::top2;
  rule.bias = gate.bias;
  return rule;
}

bool is_fast(const TopkGate& gate) {
  const bool grouped = gate.groups_kept < gate.groups;
  return gate.jitter == 0 && gate.noise == 0 && gate.weighing.nothing.empty() && gate.weighing.norm == 1 && gate.weighing.score != Weighing::Score::sqrt_softplus && !(grouped && (gate.masked_zero || gate.group_best > 2));
}

}  // namespace

TopkGate read_topk(Params& p, const std::vector<std::string>& scores) {
  TopkGate gate;
  const std::string name = p.choice("score", "combine weights: softmax over all experts, softmax over the chosen ones, sigmoid, or the square root of the softplus",
                                    scores, scores.front());
  gate.weighing.score = name == "softmax_after"   ? Weighing::Score::softmax_chosen
                        : name == "sigmoid"       ? Weighing::Score::sigmoid
                        : name == "sqrt_softplus" ? Weighing::Score::sqrt_softplus
                                                  : Weighing::Score::softmax;
  gate.weighing.renormalise = p.flag("renormalise", "divide the weights by their sum", true);
  gate.weighing.norm = p.number("norm", "which p-norm the weights are divided by (MegaBlocks' normalize_p)", 1, 1, 100);
  gate.weighing.scale = p.number("scale", "factor on the weights", 1.0);
  gate.jitter = p.number("jitter", "in training logits are multiplied by U(1 - jitter, 1 + jitter) (Switch multiplies the gate's input)", 0, 0, 1);
  gate.noise = p.number("noise", "in training N(0, noise) is added to logits (V-MoE: 1 / experts)", 0);
  gate.bias_file = p.path("bias", ".npz with `bias` [experts], added to scores for choosing but not for weights", "");
  if (p.usable() && name == "softmax_after" && !gate.weighing.renormalise)
    p.error("renormalise", "`softmax_after` weights sum to 1 by themselves: `renormalise: false` cannot be had");
  if (p.usable() && gate.weighing.norm != 1 && !gate.weighing.renormalise) p.error("norm", "without `renormalise` there is no norm");
  if (p.usable() && gate.weighing.norm != 1 && name == "softmax_after") p.error("norm", "`softmax_after` weights sum to 1 by themselves");
  return gate;
}

void check_top_k(Params& p, const Shape* shape) {
  if (shape && shape->top_k > shape->experts) p.error("", fmt::format("top_k is {}, but there are {} experts", shape->top_k, shape->experts));
}

void read_bias(TopkGate& gate, Params& p, int experts) {
  if (gate.bias_file.empty()) return;
  const std::string& file = gate.bias_file;
  try {
    const auto arrays = read_npz(read_text(file));
    const auto it = arrays.find("bias");
    if (it == arrays.end() || !it->second.is_float || it->second.shape != std::vector<std::int64_t>{experts}) {
      p.error("bias", fmt::format("{}: expected an array `bias` of {} floats", file, experts));
      return;
    }
    for (std::size_t e = 0; e < it->second.floats.size(); ++e) {
      if (!std::isfinite(it->second.floats[e])) p.error("bias", fmt::format("{}: bias[{}] is not a finite number", file, e));
      gate.bias.push_back(static_cast<float>(it->second.floats[e]));
    }
  } catch (const InputError& e) {
    for (const Diagnostic& d : e.problems()) p.error("bias", fmt::format("{}: {}", file, d.message));
  }
}

void selection_scores(const TopkGate& gate, std::span<const float> logits, std::span<const float> bias, std::span<double> scores) {
  const bool grouped = gate.groups_kept < gate.groups;
  if (bias.empty() && !grouped) {  // the logits themselves keep apart what the rounding of scores makes equal
    std::ranges::copy(logits, scores.begin());
    return;
  }
  scores_of(gate.weighing.score, logits, scores);
  for (std::size_t e = 0; e < bias.size(); ++e) scores[e] += double{bias[e]};
  mask_groups(gate, scores);
}

LogitsOf noisy_logits(double jitter, double noise) {
  if (jitter == 0 && noise == 0) return {};
  return [jitter, noise](const GateBatch& batch, std::int64_t token, std::vector<float>& room, std::vector<float>& slope) -> std::span<const float> {
    const std::span<const float> logits = batch.row(token);
    if (!batch.training) return logits;
    room.assign(logits.begin(), logits.end());
    if (jitter > 0) slope.assign(logits.size(), 1);
    Rng rng(batch.seed, Stream::router, static_cast<std::uint64_t>(batch.first_token + token), static_cast<std::uint32_t>(batch.layer));
    for (std::size_t e = 0; e < room.size(); ++e) {
      if (jitter > 0) room[e] *= slope[e] = static_cast<float>(1 + jitter * (2 * rng.uniform() - 1));
      if (noise > 0) room[e] += static_cast<float>(noise * rng.normal());
    }
    return room;
  };
}

void make_topk(Router& router, TopkGate made, int experts, int top_k) {
  router.top_k = top_k;
  router.takes_bias = true;
  const auto gate = std::make_shared<const TopkGate>(std::move(made));
  if (is_fast(*gate)) {
    const auto apply = [width = gate_widths() - 1](const GateRule& rule, ScoreForm form, std::int64_t count, std::span<const float> scores, std::span<std::uint16_t> ids,
                                                   std::span<float> weights) { apply_gate(rule, form, count, scores, ids, weights, width); };
    router.select = [rule = std::make_shared<const GateRule>(rule_of(*gate, experts, top_k)), apply](ScoreForm form, std::int64_t count, std::span<const float> scores,
                                                                                                    std::span<std::uint16_t> ids, std::span<float> weights) {
      apply(*rule, form, count, scores, ids, weights);
    };
    router.choose = [gate, experts, top_k, apply, own = router](const GateBatch& batch, std::span<std::int32_t> ids, std::span<float> weights) {
      if (batch.bias.empty()) return choose(own, batch, ids, weights);
      Router biased = own;
      GateRule rule = rule_of(*gate, experts, top_k);
      rule.bias.assign(batch.bias.begin(), batch.bias.end());
      biased.select = [&](ScoreForm form, std::int64_t count, std::span<const float> scores, std::span<std::uint16_t> chosen, std::span<float> to) { apply(rule, form, count, scores, chosen, to); };
      choose(biased, batch, ids, weights);
    };
    weigh_by(router, gate->weighing);
    return;
  }
  const LogitsOf logits = noisy_logits(gate->jitter, gate->noise);
  weigh_by(router, gate->weighing, logits);
  choose_by_token(
      router,
      [gate](const GateBatch& batch, std::int64_t, std::span<const float> row, std::span<std::int32_t> ids) {
        std::vector<double> scores(row.size());
        selection_scores(*gate, row, batch.bias.empty() ? std::span<const float>(gate->bias) : batch.bias, scores);
        best_of(scores, ids);
      },
      logits);
}

}  // namespace epsim
