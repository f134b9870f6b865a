#pragma once
#include <limits>
#include <vector>

namespace epsim {

/// What a solver found out.
enum class SolveStatus {
  optimal,     ///< the values are feasible and none are better
  feasible,    ///< the values are feasible; a limit was met before they were proven best
  infeasible,  ///< no values meet all bounds
  unbounded,   ///< values of any low cost do
  unknown,     ///< a limit was met before any feasible values were found
};

/// Values of columns of least cost, where rows (weighted sums of columns) and columns keep between their bounds.
struct LinearProgram {
  static constexpr double kInfinity = std::numeric_limits<double>::infinity();
  struct Column {
    double low = 0, high = kInfinity, cost = 0;
  };
  struct Term {
    int column = 0;
    double coefficient = 1;
  };
  struct Row {
    double low = -kInfinity, high = kInfinity;
    std::vector<Term> terms;  ///< each column at most once
  };
  std::vector<Column> columns;
  std::vector<Row> rows;

  /// Gives the column's number.
  int add_column(Column column);
  void add_row(double low, double high, std::vector<Term> terms);
};

struct LinearSolution {
  SolveStatus status = SolveStatus::unknown;
  double cost = 0;
  std::vector<double> values;  ///< [columns]; empty unless optimal
};

/// Solves by CLP's dual simplex: silent, on one thread, the same values for the same program. Values may leave their bounds by 1e-7. Throws std::logic_error where a term names no column.
LinearSolution solve(const LinearProgram& program);

}  // namespace epsim
