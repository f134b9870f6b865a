#pragma once
#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "base/rng.h"

namespace epsim::bench {

enum class Sizes {
  uniform,    ///< 1 MiB
  zipf,       ///< by destination, exponent 1, in a shuffled order: a few hot ranks, all sources alike
  log_normal  ///< every pair its own, sigma 1
};

/// Whole bytes of an all-to-all [source][destination], 1 MiB in the mean; 0 on the diagonal. Always the same.
inline std::vector<double> matrix(int ranks, Sizes sizes) {
  constexpr double kMean = 1048576;
  const auto n = static_cast<std::size_t>(ranks);
  std::vector<double> cells(n * n), weight(n, 1);
  Rng rng(1, Stream::test);
  if (sizes == Sizes::zipf) {
    std::vector<std::uint32_t> place(n);
    rng.permutation(place);
    for (std::size_t d = 0; d < n; ++d) weight[d] = 1.0 / (place[d] + 1);
    const double mean = std::accumulate(weight.begin(), weight.end(), 0.0) / ranks;
    for (double& w : weight) w /= mean;
  }
  for (std::size_t s = 0; s < n; ++s)
    for (std::size_t d = 0; d < n; ++d) {
      const double share = sizes == Sizes::log_normal ? std::exp(rng.normal() - 0.5) : weight[d];
      cells[s * n + d] = s == d ? 0 : std::max(1.0, std::round(kMean * share));
    }
  return cells;
}

}  // namespace epsim::bench
