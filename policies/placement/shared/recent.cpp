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

/// By how much batches differ that are so many apart: the mean square of what shares of the load differ between two, over pairs and summed over layers (a variogram). From half of the batches on, where pairs are few, it is the straight line
/// through these, which goes on for as long as there is anything to foretell; level where they do not rise in a line.
class Variogram {
 public:
  explicit Variogram(std::int64_t batches) : squares_(static_cast<std::size_t>(batches)), far_(batches / 2) {}
  void add(const Matrix<double>& shares) {
    for (std::int64_t i = 0; i < shares.rows; ++i)
      for (std::int64_t j = i + 1; j < shares.rows; ++j)
        for (std::int64_t e = 0; e < shares.columns; ++e) squares_[static_cast<std::size_t>(j - i)] += (shares(i, e) - shares(j, e)) * (shares(i, e) - shares(j, e));
  }
  /// After the last `add`.
  void find_line() {
    const auto batches = static_cast<std::int64_t>(squares_.size());
    double pairs = 0, apart = 0, height = 0, products = 0, spread = 0, squares = 0;
    for (std::int64_t lag = far_; lag < batches; ++lag) pairs += static_cast<double>(batches - lag), apart += static_cast<double>((batches - lag) * lag), height += squares_[static_cast<std::size_t>(lag)];
    middle_ = apart / pairs, height_ = height / pairs;
    for (std::int64_t lag = far_; lag < batches; ++lag) {
      const auto of = static_cast<double>(batches - lag), from_middle = static_cast<double>(lag) - middle_, above = squares_[static_cast<std::size_t>(lag)] / of - height_;
      products += of * from_middle * above, spread += of * from_middle * from_middle, squares += of * above * above;
    }
    const bool is_line = products > 0 && products * products > 0.5 * spread * squares;  // it explains more than a half
    slope_ = is_line ? products / spread : 0;
  }
  double operator()(std::int64_t apart) const {
    const std::int64_t lag = std::abs(apart);
    if (lag >= far_) return height_ + slope_ * (static_cast<double>(lag) - middle_);
    return lag == 0 ? 0 : squares_[static_cast<std::size_t>(lag)] / static_cast<double>(static_cast<std::int64_t>(squares_.size()) - lag);
  }

 private:
  std::vector<double> squares_;  // sums, by batches apart
  std::int64_t far_;
  double middle_ = 0, height_ = 0, slope_ = 0;
};

}  // namespace

std::size_t telling_batches(const Problem& problem) {
  constexpr double kLess = 0.9;  // of what all of them miss: a line through the few pairs that are far apart rises by chance, too
  constexpr std::int64_t kEnough = 8;
  const std::int64_t batches = problem.loads_by_batch(0).rows;
  if (batches < kEnough) return static_cast<std::size_t>(batches);
  Variogram difference(batches);
  for (std::size_t l = 0; l < problem.counts.size(); ++l) difference.add(shares_of(problem.loads_by_batch(l)));
  difference.find_line();
  const auto missed = [&](std::int64_t last) {
    double ahead = 0, among = 0;
    for (std::int64_t i = 0; i < last; ++i) {
      for (std::int64_t later = 1; later <= batches; ++later) ahead += difference(i + later) / static_cast<double>(last * batches);
      for (std::int64_t j = 0; j < last; ++j) among += difference(i - j) / static_cast<double>(last * last);
    }
    return 2 * ahead - among;
  };
  std::int64_t best = batches;
  double least = kLess * missed(batches);
  for (std::int64_t last = batches / 2; last >= 2; last /= 2)
    if (const double m = missed(last); m < least) least = m, best = last;
  return static_cast<std::size_t>(best);
}

}  // namespace epsim
