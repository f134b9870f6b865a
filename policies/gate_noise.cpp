#include "policies/gate_noise.h"

#include <cmath>

#include "base/rng.h"

namespace epsim {

std::vector<double> shazeer_width(const GateBatch& batch, std::int64_t token) {
  std::vector<double> width(static_cast<std::size_t>(batch.experts));
  for (std::size_t e = 0; e < width.size(); ++e) {
    const double raw = batch.noise.empty() ? 0 : double{batch.noise[static_cast<std::size_t>(token * batch.experts) + e]};
    width[e] = (raw > 30 ? raw : std::log1p(std::exp(raw))) + 0.01;
  }
  return width;
}

std::vector<float> noisy_logits(const GateBatch& batch, std::int64_t token, const std::vector<double>& width) {
  const auto row = batch.row(token);
  std::vector<float> noisy(row.begin(), row.end());
  if (!batch.training) return noisy;
  Rng rng(batch.seed, Stream::router, static_cast<std::uint64_t>(batch.first_token + token), static_cast<std::uint32_t>(batch.layer));
  for (std::size_t e = 0; e < noisy.size(); ++e) noisy[e] += static_cast<float>(width[e] * rng.normal());
  return noisy;
}

std::vector<float> shazeer_logits(const GateBatch& batch, std::int64_t token) { return noisy_logits(batch, token, shazeer_width(batch, token)); }

}  // namespace epsim
