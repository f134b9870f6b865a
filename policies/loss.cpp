#include "policies/loss.h"

#include <algorithm>
#include <numeric>

namespace epsim {

std::vector<float> updated_bias(std::span<const std::int64_t> counts, std::span<const float> bias, double rate) {
  std::vector<float> next(counts.size());
  const std::int64_t total = std::accumulate(counts.begin(), counts.end(), std::int64_t{0}), experts = static_cast<std::int64_t>(counts.size());
  for (std::size_t e = 0; e < next.size(); ++e) {
    const std::int64_t below = total - counts[e] * experts;  // mean - count, times the experts
    next[e] = (bias.empty() ? 0 : bias[e]) + static_cast<float>(rate) * static_cast<float>((below > 0) - (below < 0));
  }
  return next;
}

}  // namespace epsim
