#include "policies/router/shared/weighing.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace epsim {
namespace {

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
/// x to the power of p; most norms need no power at all.
double power_of(double x, double p) { return p == 1 ? x : p == 0 ? 1 : std::pow(x, p); }

/// Scores of a token's choices, 0 for those that weigh nothing, and what they are divided by.
struct Chosen {
  std::vector<double> score;
  double norm = 1;
  std::vector<double> share;  ///< of the softmax over all experts: exponentials, which `sum` divides
  double sum = 0;

  Chosen(const Weighing& rule, std::span<const float> logits, std::span<const std::int32_t> experts) : score(experts.size()) {
    const auto counts = [&](std::int32_t e) { return e >= 0 && (rule.nothing.empty() || rule.nothing[static_cast<std::size_t>(e)] == 0); };
    const auto each = [&](auto f) {
      for (std::size_t i = 0; i < experts.size(); ++i)
        if (counts(experts[i])) score[i] = f(double{logits[static_cast<std::size_t>(experts[i])]});
    };
    if (rule.score == Weighing::Score::softmax) {
      const double top = *std::ranges::max_element(logits);
      share.reserve(logits.size());
      for (const float l : logits) sum += share.emplace_back(std::exp(double{l} - top));
      for (std::size_t i = 0; i < experts.size(); ++i)
        if (counts(experts[i])) score[i] = share[static_cast<std::size_t>(experts[i])] / sum;
    } else if (rule.score == Weighing::Score::softmax_chosen) {
      double top = -std::numeric_limits<double>::infinity();
      each([&](double l) { return top = std::max(top, l), 0.0; });
      each([&](double l) { return std::exp(l - top); });
      const double of_chosen = std::accumulate(score.begin(), score.end(), 0.0);
      if (of_chosen > 0)
        for (double& s : score) s /= of_chosen;
    } else {
      each([&](double l) { return rule.score == Weighing::Score::sigmoid ? sigmoid(l) : std::sqrt(l > 30 ? l : std::log1p(std::exp(l))); });
    }
    if (!rule.renormalise) return;
    double power = 0;
    for (const double s : score) power += power_of(s, rule.norm);
    norm = power_of(power, 1 / rule.norm) + rule.eps;
    if (norm == 0) norm = 1;  // no choice that weighs
  }
};

}  // namespace

void weigh(const Weighing& rule, std::span<const float> logits, std::span<const std::int32_t> experts, std::span<float> weights) {
  const Chosen chosen(rule, logits, experts);
  for (std::size_t i = 0; i < experts.size(); ++i) weights[i] = static_cast<float>(chosen.score[i] / chosen.norm * rule.scale);
}

void weigh_backward(const Weighing& rule, std::span<const float> logits, std::span<const std::int32_t> experts, std::span<const float> d_weights, std::span<float> d_logits) {
  const Chosen chosen(rule, logits, experts);
  const std::vector<double>& s = chosen.score;
  std::vector<double> ds(s.size());  // dL/dscore
  double along = 0;                  // sum of dL/dweight x score
  for (std::size_t i = 0; i < s.size(); ++i) along += double{d_weights[i]} * s[i];
  for (std::size_t i = 0; i < s.size(); ++i) {
    if (s[i] == 0) continue;
    ds[i] = double{d_weights[i]} / chosen.norm;
    if (rule.renormalise) ds[i] -= along / (chosen.norm * chosen.norm) * power_of(s[i] / (chosen.norm - rule.eps), rule.norm - 1);
    ds[i] *= rule.scale;
  }
  const auto add = [&](std::size_t i, double d) { d_logits[static_cast<std::size_t>(experts[i])] += static_cast<float>(d); };
  if (rule.score == Weighing::Score::softmax || rule.score == Weighing::Score::softmax_chosen) {
    double mean = 0;
    for (std::size_t i = 0; i < s.size(); ++i) mean += ds[i] * s[i];
    for (std::size_t i = 0; i < s.size(); ++i)
      if (s[i] > 0) add(i, s[i] * ds[i]);
    if (rule.score == Weighing::Score::softmax_chosen) {
      for (std::size_t i = 0; i < s.size(); ++i)
        if (s[i] > 0) add(i, -s[i] * mean);
    } else {
      for (std::size_t e = 0; mean != 0 && e < logits.size(); ++e) d_logits[e] -= static_cast<float>(chosen.share[e] / chosen.sum * mean);
    }
    return;
  }
  for (std::size_t i = 0; i < s.size(); ++i)
    if (s[i] > 0) add(i, ds[i] * (rule.score == Weighing::Score::sigmoid ? s[i] * (1 - s[i]) : sigmoid(logits[static_cast<std::size_t>(experts[i])]) / (2 * s[i])));
}

void weigh_by(Router& router, Weighing rule, LogitsOf logits) {
  const auto k = static_cast<std::size_t>(router.top_k);
  if (rule.renormalise || rule.score == Weighing::Score::softmax_chosen) {
    const Weighing plain{.score = rule.score == Weighing::Score::softmax_chosen ? Weighing::Score::softmax : rule.score, .renormalise = false};
    router.prioritise = [plain, logits, k](const GateBatch& batch, std::span<const std::int32_t> experts, std::span<float> priority) {
      std::vector<float> room, slope, weights(k);
      for (std::int64_t t = 0; t < batch.tokens; ++t) {
        weigh(plain, logits ? logits(batch, t, room, slope) : batch.row(t), experts.subspan(static_cast<std::size_t>(t) * k, k), weights);
        priority[static_cast<std::size_t>(t)] = std::ranges::max(weights);
      }
    };
  }
  router.weigh = [rule, logits, k](const GateBatch& batch, std::span<const std::int32_t> experts, std::span<float> weights) {
    std::vector<float> room, slope;
    for (std::int64_t t = 0; t < batch.tokens; ++t) {
      const std::size_t at = static_cast<std::size_t>(t) * k;
      weigh(rule, logits ? logits(batch, t, room, slope) : batch.row(t), experts.subspan(at, k), weights.subspan(at, k));
    }
  };
  router.backward = [rule, logits, k](const GateBatch& batch, std::span<const std::int32_t> experts, std::span<const float> d_weights, std::span<float> d_logits) {
    const auto columns = static_cast<std::size_t>(batch.experts);
    std::vector<float> room, slope, d(columns);
    for (std::int64_t t = 0; t < batch.tokens; ++t) {
      const std::size_t at = static_cast<std::size_t>(t) * k;
      const std::span<float> mine = d_logits.subspan(static_cast<std::size_t>(t) * columns, columns);
      slope.clear();
      const std::span<const float> row = logits ? logits(batch, t, room, slope) : batch.row(t);
      if (slope.empty()) {
        weigh_backward(rule, row, experts.subspan(at, k), d_weights.subspan(at, k), mine);
        continue;
      }
      std::ranges::fill(d, 0.0F);
      weigh_backward(rule, row, experts.subspan(at, k), d_weights.subspan(at, k), d);
      for (std::size_t e = 0; e < columns; ++e) mine[e] += d[e] * slope[e];
    }
  };
}

void choose_by_token(Router& router, std::function<void(const GateBatch&, std::int64_t, std::span<const float>, std::span<std::int32_t>)> pick, LogitsOf logits) {
  router.choose = [pick = std::move(pick), logits = std::move(logits), weigh_all = router.weigh, k = static_cast<std::size_t>(router.top_k)](
                      const GateBatch& batch, std::span<std::int32_t> experts, std::span<float> weights) {
    std::vector<float> room, slope;
    for (std::int64_t t = 0; t < batch.tokens; ++t)
      pick(batch, t, logits ? logits(batch, t, room, slope) : batch.row(t), experts.subspan(static_cast<std::size_t>(t) * k, k));
    weigh_all(batch, experts, weights);
  };
}

void scores_of(Weighing::Score score, std::span<const float> logits, std::span<double> scores) {
  if (score == Weighing::Score::softmax || score == Weighing::Score::softmax_chosen) {
    const double top = *std::ranges::max_element(logits);
    double sum = 0;
    for (std::size_t e = 0; e < scores.size(); ++e) sum += scores[e] = std::exp(double{logits[e]} - top);
    for (double& s : scores) s /= sum;
    return;
  }
  for (std::size_t e = 0; e < scores.size(); ++e) {
    const double l = logits[e];
    scores[e] = score == Weighing::Score::sigmoid ? sigmoid(l) : std::sqrt(l > 30 ? l : std::log1p(std::exp(l)));
  }
}

void best_of(std::span<const double> values, std::span<std::int32_t> ids) {
  const std::size_t k = std::min(ids.size(), values.size());
  std::size_t found = 0;
  for (std::size_t e = 0; e < values.size(); ++e) {
    if (values[e] == -std::numeric_limits<double>::infinity() || std::isnan(values[e])) continue;
    if (found == k && !(k > 0 && values[e] > values[static_cast<std::size_t>(ids[k - 1])])) continue;
    std::size_t at = found < k ? found++ : k - 1;
    for (; at > 0 && values[e] > values[static_cast<std::size_t>(ids[at - 1])]; --at) ids[at] = ids[at - 1];
    ids[at] = static_cast<std::int32_t>(e);
  }
  std::fill(ids.begin() + static_cast<std::ptrdiff_t>(found), ids.end(), -1);
}

}  // namespace epsim
