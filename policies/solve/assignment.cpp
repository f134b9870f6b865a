#include "policies/solve/assignment.h"

#include <limits>
#include <span>

#include "base/check.h"

namespace epsim {

std::vector<int> least_cost_assignment(const Matrix<double>& cost) {
  ensure(cost.columns >= cost.rows, "an assignment has a column for each row");
  const auto rows = static_cast<std::size_t>(cost.rows), columns = static_cast<std::size_t>(cost.columns);
  constexpr double kFar = std::numeric_limits<double>::infinity();
  constexpr std::size_t kNone = std::numeric_limits<std::size_t>::max();
  // Potentials keep cost - row_price - column_price at 0 for assigned pairs and at 0 or more for all others, so that every search is by shortest path.
  std::vector<double> row_price(rows), column_price(columns), distance(columns);
  std::vector<std::size_t> row_of(columns, kNone), before(columns), open(columns), reached;
  for (std::size_t start = 0; start < rows; ++start) {
    distance.assign(columns, kFar);
    open.resize(columns);
    for (std::size_t c = 0; c < columns; ++c) open[c] = c;
    reached.clear();
    std::size_t row = start, column = kNone;  // the row that is searched from, and the column it was reached by
    double so_far = 0;
    while (true) {
      const std::span<const double> costs = cost.row(static_cast<std::int64_t>(row));
      double nearest = kFar;
      std::size_t at = kNone;
      for (std::size_t i = 0; i < open.size(); ++i) {
        const std::size_t c = open[i];
        const double through = so_far + (costs[c] - row_price[row] - column_price[c]);
        if (through < distance[c]) distance[c] = through, before[c] = column;
        if (distance[c] < nearest) nearest = distance[c], at = i;
      }
      ensure(at != kNone, "costs of an assignment are finite");
      column = open[at];
      open.erase(open.begin() + static_cast<std::ptrdiff_t>(at));  // keeps the order: ties go to the lowest column
      so_far = nearest;
      if (row_of[column] == kNone) break;
      reached.push_back(column);
      row = row_of[column];
    }
    row_price[start] += so_far;
    for (const std::size_t c : reached) {
      const double slack = so_far - distance[c];
      row_price[row_of[c]] += slack;
      column_price[c] -= slack;
    }
    while (before[column] != kNone) row_of[column] = row_of[before[column]], column = before[column];
    row_of[column] = start;
  }
  std::vector<int> out(rows);
  for (std::size_t c = 0; c < columns; ++c)
    if (row_of[c] != kNone) out[row_of[c]] = static_cast<int>(c);
  return out;
}

}  // namespace epsim
