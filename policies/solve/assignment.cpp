#include "policies/solve/assignment.h"

#include <limits>
#include <span>

#include "base/check.h"

namespace epsim {

std::vector<int> least_cost_assignment(const Matrix<double>& cost) {
  ensure(cost.columns >= cost.rows, "an assignment has a column for each row");
  const auto rows = static_cast<std::size_t>(cost.rows), columns = static_cast<std::size_t>(cost.columns);
  constexpr double kFar = std::numeric_limits<double>::infinity();
  constexpr std::int32_t kNone = -1;
  // Potentials keep cost - row_price - column_price at 0 for assigned pairs and at 0 or more for all others, so that every search is by shortest path.
  std::vector<double> row_price(rows), column_price(columns), distance(columns), open_price(columns);
  std::vector<std::int32_t> row_of(columns, kNone), before(columns), reached;
  std::vector<double> reached_at;
  for (std::size_t start = 0; start < rows; ++start) {
    distance.assign(columns, kFar);
    open_price = column_price;  // that of a column that was searched from is made so low that the column is never near again: the loops stay without branches
    reached.clear(), reached_at.clear();
    std::size_t row = start;
    std::int32_t column = kNone;  // by which the row was reached
    double so_far = 0;
    while (true) {
      const double* costs = cost.row(static_cast<std::int64_t>(row)).data();
      const double base = so_far - row_price[row];
      double nearest = kFar;
      for (std::size_t c = 0; c < columns; ++c) {
        const double through = base + costs[c] - open_price[c];
        before[c] = through < distance[c] ? column : before[c];
        distance[c] = through < distance[c] ? through : distance[c];
        nearest = distance[c] < nearest ? distance[c] : nearest;
      }
      ensure(nearest < kFar, "costs of an assignment are finite");
      std::int32_t at = kNone;
      for (std::size_t c = 0; c < columns; ++c) {
        if (distance[c] != nearest) continue;
        if (at == kNone) at = static_cast<std::int32_t>(c);
        if (row_of[c] != kNone) continue;
        at = static_cast<std::int32_t>(c);  // one that ends the search, before others that are as near
        break;
      }
      column = at;
      so_far = nearest;
      const auto c = static_cast<std::size_t>(column);
      if (row_of[c] == kNone) break;
      reached.push_back(column), reached_at.push_back(nearest);
      distance[c] = kFar, open_price[c] = -kFar;
      row = static_cast<std::size_t>(row_of[c]);
    }
    row_price[start] += so_far;
    for (std::size_t i = 0; i < reached.size(); ++i) {
      const auto c = static_cast<std::size_t>(reached[i]);
      row_price[static_cast<std::size_t>(row_of[c])] += so_far - reached_at[i];
      column_price[c] -= so_far - reached_at[i];
    }
    auto last = static_cast<std::size_t>(column);
    for (; before[last] != kNone; last = static_cast<std::size_t>(before[last])) row_of[last] = row_of[static_cast<std::size_t>(before[last])];
    row_of[last] = static_cast<std::int32_t>(start);
  }
  std::vector<int> out(rows);
  for (std::size_t c = 0; c < columns; ++c)
    if (row_of[c] != kNone) out[static_cast<std::size_t>(row_of[c])] = static_cast<int>(c);
  return out;
}

}  // namespace epsim
