#include "policies/loss/shared/probability.h"

#include <algorithm>
#include <cmath>

namespace epsim {

void loss_scores(bool sigmoid, std::span<const float> logits, std::span<double> scores) {
  const double top = sigmoid ? 0 : double{*std::ranges::max_element(logits)};
  double sum = 0;
  for (std::size_t e = 0; e < scores.size(); ++e) sum += scores[e] = sigmoid ? 1 / (1 + std::exp(-double{logits[e]})) : std::exp(double{logits[e]} - top);
  for (double& s : scores) s /= sum;
}

void loss_scores_backward(bool sigmoid, std::span<const float> logits, std::span<const double> scores, std::span<const double> d_scores, std::span<float> d_logits) {
  double mean = 0;
  for (std::size_t e = 0; e < scores.size(); ++e) mean += scores[e] * d_scores[e];
  for (std::size_t e = 0; e < scores.size(); ++e) {
    const double slope = sigmoid ? 1 / (1 + std::exp(double{logits[e]})) : 1;  // of the score before it is divided, over the score
    d_logits[e] += static_cast<float>(scores[e] * (d_scores[e] - mean) * slope);
  }
}

double squared_variation(std::span<const double> values, bool sample, std::span<double> d) {
  const auto n = static_cast<double>(values.size());
  double mean = 0, square = 0;
  for (const double v : values) mean += v / n, square += v * v / n;
  if (mean == 0 || (sample && n < 2)) return 0;
  const double factor = sample ? n / (n - 1) : 1;
  for (std::size_t e = 0; e < d.size(); ++e) d[e] = factor * (2 * values[e] / (n * mean * mean) - 2 * square / (n * mean * mean * mean));
  double variance = 0;  // not square - mean^2, which loses digits where values are even
  for (const double v : values) variance += (v - mean) * (v - mean) / n;
  return factor * variance / (mean * mean);
}

}  // namespace epsim
