#include "policies/placement/shared/recent.h"

#include <algorithm>
#include <numeric>

namespace epsim {
namespace {

/// Parts of each batch's load that its experts have: [batch][E].
Matrix<double> shares_of(const Matrix<std::int64_t>& loads) {
  Matrix<double> shares(loads.rows, loads.columns);
  for (std::int64_t b = 0; b < loads.rows; ++b) {
    const std::span<const std::int64_t> row = loads.row(b);
    const auto sum = static_cast<double>(std::max<std::int64_t>(1, std::accumulate(row.begin(), row.end(), std::int64_t{0})));
    for (std::int64_t e = 0; e < loads.columns; ++e) shares(b, e) = static_cast<double>(loads(b, e)) / sum;
  }
  return shares;
}

/// Squares by which the mean of batches [first, origin) misses the batches from `origin` on.
double missed(const Matrix<double>& shares, std::int64_t first, std::int64_t origin) {
  double squares = 0;
  for (std::int64_t e = 0; e < shares.columns; ++e) {
    double mean = 0;
    for (std::int64_t b = first; b < origin; ++b) mean += shares(b, e);
    mean /= static_cast<double>(origin - first);
    for (std::int64_t b = origin; b < shares.rows; ++b) squares += (shares(b, e) - mean) * (shares(b, e) - mean);
  }
  return squares;
}

}  // namespace

std::size_t telling_batches(const Problem& problem) {
  constexpr double kLess = 1 - 1e-9;  // more than rounding
  constexpr std::int64_t kEnough = 8;
  const std::int64_t batches = problem.loads_by_batch(0).rows;
  if (batches < kEnough) return static_cast<std::size_t>(batches);
  std::int64_t best = batches;
  double least = 0;
  for (std::int64_t parts = 1; batches / parts >= 2; parts *= 2) {
    double squares = 0;
    for (std::size_t l = 0; l < problem.counts.size(); ++l) {
      const Matrix<double> shares = shares_of(problem.loads_by_batch(l));
      for (std::int64_t origin = (batches + 1) / 2; origin < batches; ++origin) squares += missed(shares, origin - origin / parts, origin);
    }
    if (parts == 1 || squares < kLess * least) least = squares, best = batches / parts;
  }
  return static_cast<std::size_t>(best);
}

}  // namespace epsim
