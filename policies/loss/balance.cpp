#include <algorithm>

#include <fmt/format.h>

#include "policies/loss.h"
#include "policies/loss/shared/probability.h"

namespace epsim::parts_loss {
namespace {

struct Settings {
  double coefficient = 1;
  std::string count, over;
  bool sigmoid = false, position_major = false;
  std::int64_t sequences = 1;
  std::size_t top_k = 1;  ///< of the model: a router may choose fewer, or more
};

/// Counts a token's choices by expert, and gives how many choices it has of the kind that counts, kept or not.
double count_token(const Settings& s, const LossBatch& batch, std::int64_t token, std::span<double> counts) {
  const Routed& r = batch.routed;
  const auto k = static_cast<std::size_t>(r.top_k), at = static_cast<std::size_t>(token) * k;
  if (s.count == "plain") {
    const auto row = batch.gate.row(token);
    std::vector<std::int32_t> order(row.size());
    for (std::size_t e = 0; e < order.size(); ++e) order[e] = static_cast<std::int32_t>(e);
    const auto taken = static_cast<std::ptrdiff_t>(std::min(s.top_k, order.size()));
    std::partial_sort(order.begin(), order.begin() + taken, order.end(), [&](std::int32_t a, std::int32_t b) {
      const float x = row[static_cast<std::size_t>(a)], y = row[static_cast<std::size_t>(b)];
      return x != y ? x > y : a < b;
    });
    for (std::ptrdiff_t i = 0; i < taken; ++i) ++counts[static_cast<std::size_t>(order[static_cast<std::size_t>(i)])];
    return static_cast<double>(taken);
  }
  const bool kept = s.count.starts_with("kept");
  double made = 0;
  for (std::size_t i = at; i < at + (s.count.ends_with("first") ? 1 : k); ++i) {
    if (r.expert[i] < 0) continue;
    ++made;
    if (!kept || r.kept[i]) ++counts[static_cast<std::size_t>(r.expert[i])];
  }
  return made;
}

double balance_value(const Settings& s, const LossBatch& batch, std::span<float> d_logits) {
  const GateBatch& g = batch.gate;
  const auto experts = static_cast<std::size_t>(g.experts);
  const std::int64_t length = g.tokens / s.sequences;
  std::vector<double> scores(experts), slope(experts);
  double value = 0;
  for (std::int64_t q = 0; q < s.sequences; ++q) {
    const auto token = [&](std::int64_t i) { return s.position_major ? i * s.sequences + q : q * length + i; };
    std::vector<double> count(experts), probability(experts);
    double tokens = 0, choices = 0;
    for (std::int64_t i = 0; i < length; ++i) {
      if (!counts(g, token(i))) continue;
      ++tokens;
      choices += count_token(s, batch, token(i), count);
      loss_scores(s.sigmoid, g.row(token(i)), scores);
      for (std::size_t e = 0; e < experts; ++e) probability[e] += scores[e];
    }
    if (tokens == 0) continue;
    for (std::size_t e = 0; e < batch.earlier.size(); ++e) count[e] = (count[e] + double{batch.earlier[e]}) / (batch.earlier_steps + 1);
    double over = s.over == "choices" ? choices : tokens;
    if (s.over == "counted") {
      over = 0;
      for (const double c : count) over += c;
    }
    if (over == 0) continue;
    const double factor = s.coefficient * static_cast<double>(experts) / (tokens * over * static_cast<double>(s.sequences));
    for (std::size_t e = 0; e < experts; ++e) value += factor * count[e] * probability[e], slope[e] = factor * count[e];
    for (std::int64_t i = 0; !d_logits.empty() && i < length; ++i) {
      if (!counts(g, token(i))) continue;
      loss_scores(s.sigmoid, g.row(token(i)), scores);
      loss_scores_backward(s.sigmoid, g.row(token(i)), scores, slope, d_logits.subspan(static_cast<std::size_t>(token(i)) * experts, experts));
    }
  }
  return value;
}

}  // namespace

/// The balance loss of GShard and Switch Transformers: E sum over experts of (share of choices) x (mean score), 1 where both are even. Frameworks differ in which choices they count and what they divide by:
/// first ones only (GShard, DeepSpeed top-1 and top-2, Tutel, FastMoE, V-MoE), all k over T k (Megatron-LM with `plain`, MegaBlocks, DeepSpeed top-k, DeepSeek) or over T (transformers: k where even), those that were
/// kept (st-moe-pytorch: `kept_first`). Choices that a router does not make are none: with dynamic k the share is of those that were made. DeepSeek's sequence-wise loss is the mean over sequences, as are the means over groups of Flaxformer and ST-MoE.
Loss balance(Params& p, const Shape* shape) {
  Loss loss;
  loss.summary = "E x sum of share of choices x mean score: the balance loss of GShard, Switch, Megatron-LM, DeepSeek and others";
  Settings s;
  s.coefficient = p.number("coefficient", "factor on the loss", 1);
  s.count = p.choice("count", "choices that count: all, first ones, those that were kept, or a plain top-k of the scores without bias and groups (Megatron-LM)", {"all", "first", "kept", "kept_first", "plain"}, "all");
  s.over = p.choice("over", "what a share is taken of: the choices that tokens make, the tokens (transformers), or what was counted (FastMoE's Switch)", {"choices", "tokens", "counted"}, "choices");
  s.sigmoid = p.choice("score", "of an expert: softmax, or its sigmoid over the sum of all", {"softmax", "sigmoid"}, "softmax") == "sigmoid";
  s.sequences = p.integer("sequences", "sequences (or groups) of the batch, for each of which the loss is taken and then averaged", 1, 1, std::int64_t{1} << 32);
  s.position_major = p.choice("layout", "of the batch: sequence after sequence (transformers), or position after position (Megatron-LM)", {"sequence_major", "position_major"}, "sequence_major") == "position_major";
  if (!p.usable()) return loss;
  if (s.position_major && s.sequences == 1) p.error("layout", "a single sequence has no layout: give `sequences`");
  if (!p.usable()) return loss;
  if (shape) s.top_k = static_cast<std::size_t>(shape->top_k);
  loss.value = [s](const LossBatch& batch, std::span<float> d_logits) {
    if (batch.gate.tokens % s.sequences != 0) throw InputError(Location{}, fmt::format("loss `balance`: {} tokens do not divide into {} sequences", batch.gate.tokens, s.sequences));
    return balance_value(s, batch, d_logits);
  };
  return loss;
}

}  // namespace epsim::parts_loss
