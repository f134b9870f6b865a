#include "policies/solve/bottleneck_assignment.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "policies/solve/assignment.h"

namespace epsim {
namespace {

/// Whether all rows find columns of cost `limit` or less.
class Matching {
 public:
  Matching(const Matrix<double>& cost, double limit) : cost_(cost), limit_(limit), row_of_(static_cast<std::size_t>(cost.columns), -1) {}
  bool complete() {
    for (std::int64_t r = 0; r < cost_.rows; ++r) {
      seen_.assign(row_of_.size(), false);
      if (!augment(r)) return false;
    }
    return true;
  }

 private:
  bool augment(std::int64_t row) {
    for (std::int64_t c = 0; c < cost_.columns; ++c) {
      const auto i = static_cast<std::size_t>(c);
      if (seen_[i] || cost_(row, c) > limit_) continue;
      seen_[i] = true;
      if (row_of_[i] < 0 || augment(row_of_[i])) return row_of_[i] = row, true;
    }
    return false;
  }

  const Matrix<double>& cost_;
  double limit_;
  std::vector<std::int64_t> row_of_;
  std::vector<bool> seen_;
};

}  // namespace

std::vector<int> bottleneck_assignment(const Matrix<double>& cost, const Matrix<double>& then) {
  ensure(cost.rows == cost.columns && then.rows == cost.rows && then.columns == cost.columns, "a bottleneck assignment has as many columns as rows");
  std::vector<double> limits = cost.cells;
  std::ranges::sort(limits);
  limits.erase(std::unique(limits.begin(), limits.end()), limits.end());
  const double limit = *std::ranges::partition_point(limits, [&](double l) { return !Matching(cost, l).complete(); });

  double forbidden = 1;  // above what any assignment without it costs more than another
  for (const double t : then.cells) forbidden += 2 * std::abs(t);
  Matrix<double> allowed = then;
  for (std::size_t i = 0; i < allowed.cells.size(); ++i)
    if (cost.cells[i] > limit) allowed.cells[i] = forbidden;
  return least_cost_assignment(allowed);
}

}  // namespace epsim
