#include <algorithm>
#include <cmath>
#include <numbers>

#include "policies/gate_noise.h"
#include "policies/loss.h"
#include "policies/loss/shared/probability.h"

namespace epsim::parts_loss {

/// The load loss of noisy gates (Shazeer et al. 2017): the squared coefficient of variation of the experts' loads, where a token's part in an expert's load is the probability that the expert is chosen if its noise
/// is drawn again and the others' is not: the normal distribution function of (logit - threshold) / width. The threshold is the largest noisy logit that would not be chosen besides it (Shazeer), or the k-th largest
/// whoever has it (V-MoE).
Loss load(Params& p, const Shape*) {
  Loss loss;
  loss.summary = "the squared coefficient of variation of the experts' expected loads under a noisy gate (Shazeer et al. 2017, V-MoE)";
  const double coefficient = p.number("coefficient", "factor on the loss", 1);
  const double noise = p.number("noise", "width of the noise; 0: learned, softplus(x W_noise) + 0.01", 0);
  const bool others = p.choice("threshold", "to pass: the k-th largest of the other experts (Shazeer), or of all (V-MoE)", {"others", "all"}, "others") == "others";
  const bool sample = p.choice("variance", "over n - 1 (Shazeer's code) or over n (V-MoE)", {"sample", "population"}, "sample") == "sample";
  if (!p.usable()) return loss;
  loss.value = [=](const LossBatch& batch, std::span<float> d_logits) {
    const GateBatch& g = batch.gate;
    const auto experts = static_cast<std::size_t>(g.experts), k = static_cast<std::size_t>(batch.routed.top_k);
    std::vector<double> sums(experts), d(experts);
    std::vector<std::size_t> order(experts);
    if (k >= experts) return 0.0;  // everybody is chosen
    const auto each = [&](auto f) {
      for (std::int64_t t = 0; t < g.tokens; ++t) {
        if (!counts(g, t)) continue;
        const auto row = g.row(t);
        std::vector<double> width(experts, noise);
        if (noise == 0) width = shazeer_width(g, t);
        const std::vector<float> noisy = noisy_logits(g, t, width);
        for (std::size_t e = 0; e < experts; ++e) order[e] = e;
        std::partial_sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(k + 1), order.end(), [&](std::size_t a, std::size_t b) { return noisy[a] != noisy[b] ? noisy[a] > noisy[b] : a < b; });
        for (std::size_t e = 0; e < experts; ++e) {
          // Of the others' the k-th largest is the next one for an expert that is among the k itself.
          const std::size_t at = others && std::find(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(k), e) != order.begin() + static_cast<std::ptrdiff_t>(k) ? order[k] : order[k - 1];
          f(t, e, at, (double{row[e]} - double{noisy[at]}) / width[e], width[e]);
        }
      }
    };
    each([&](std::int64_t, std::size_t e, std::size_t, double x, double) { sums[e] += 0.5 * std::erfc(-x / std::numbers::sqrt2); });
    const double value = coefficient * squared_variation(sums, sample, d);
    if (d_logits.empty()) return value;
    each([&](std::int64_t t, std::size_t e, std::size_t at, double x, double width) {
      const double slope = coefficient * d[e] * std::exp(-x * x / 2) / std::sqrt(2 * std::numbers::pi) / width;
      d_logits[static_cast<std::size_t>(t) * experts + e] += static_cast<float>(slope);
      d_logits[static_cast<std::size_t>(t) * experts + at] -= static_cast<float>(slope);
    });
    return value;
  };
  return loss;
}

}  // namespace epsim::parts_loss
