#include "policies/solve/linear_program.h"

#include <coin/ClpSimplex.hpp>

#include "base/check.h"

namespace epsim {

int LinearProgram::add_column(Column column) {
  columns.push_back(column);
  return static_cast<int>(columns.size()) - 1;
}

void LinearProgram::add_row(double low, double high, std::vector<Term> terms) { rows.push_back({low, high, std::move(terms)}); }

LinearSolution solve(const LinearProgram& program) {
  const int columns = static_cast<int>(program.columns.size()), rows = static_cast<int>(program.rows.size());
  std::vector<double> low, high, cost, row_low, row_high, coefficient;
  for (const LinearProgram::Column& c : program.columns) low.push_back(c.low), high.push_back(c.high), cost.push_back(c.cost);
  std::vector<CoinBigIndex> first{0};
  std::vector<int> column;
  for (const LinearProgram::Row& row : program.rows) {
    row_low.push_back(row.low), row_high.push_back(row.high);
    for (const LinearProgram::Term& t : row.terms) {
      ensure(t.column >= 0 && t.column < columns, "a term of a linear program names one of its columns");
      column.push_back(t.column), coefficient.push_back(t.coefficient);
    }
    first.push_back(static_cast<CoinBigIndex>(column.size()));
  }
  const CoinPackedMatrix matrix(false, columns, rows, first.back(), coefficient.data(), column.data(), first.data(), nullptr);
  ClpSimplex clp;
  clp.setLogLevel(0);
  clp.loadProblem(matrix, low.data(), high.data(), cost.data(), row_low.data(), row_high.data());
  clp.dual();

  LinearSolution solution;
  if (clp.isProvenOptimal()) {
    solution.status = SolveStatus::optimal;
    solution.cost = clp.objectiveValue();
    solution.values.assign(clp.getColSolution(), clp.getColSolution() + columns);
  } else if (clp.isProvenPrimalInfeasible()) {
    solution.status = SolveStatus::infeasible;
  } else if (clp.isProvenDualInfeasible()) {
    solution.status = SolveStatus::unbounded;
  }
  return solution;
}

}  // namespace epsim
