#include "policies/solve/integer_program.h"

#include <cmath>
#include <coin/CbcHeuristic.hpp>
#include <coin/CbcHeuristicFPump.hpp>
#include <coin/CbcHeuristicLocal.hpp>
#include <coin/CbcModel.hpp>
#include <coin/CglGomory.hpp>
#include <coin/CglKnapsackCover.hpp>
#include <coin/CglMixedIntegerRounding2.hpp>
#include <coin/CglProbing.hpp>
#include <coin/OsiClpSolverInterface.hpp>

#include "base/check.h"

namespace epsim {
namespace {

void load(const IntegerProgram& program, OsiClpSolverInterface& solver) {
  const LinearProgram& linear = program.linear;
  const int columns = static_cast<int>(linear.columns.size());
  std::vector<double> low, high, cost, row_low, row_high, coefficient;
  for (const LinearProgram::Column& c : linear.columns) low.push_back(c.low), high.push_back(c.high), cost.push_back(c.cost);
  std::vector<CoinBigIndex> first{0};
  std::vector<int> column;
  for (const LinearProgram::Row& row : linear.rows) {
    row_low.push_back(row.low), row_high.push_back(row.high);
    for (const LinearProgram::Term& t : row.terms) {
      ensure(t.column >= 0 && t.column < columns, "a term of an integer program names one of its columns");
      column.push_back(t.column), coefficient.push_back(t.coefficient);
    }
    first.push_back(static_cast<CoinBigIndex>(column.size()));
  }
  const CoinPackedMatrix matrix(false, columns, static_cast<int>(linear.rows.size()), first.back(), coefficient.data(), column.data(), first.data(), nullptr);
  solver.setHintParam(OsiDoReducePrint, true, OsiHintTry);
  solver.messageHandler()->setLogLevel(0);
  solver.loadProblem(matrix, low.data(), high.data(), cost.data(), row_low.data(), row_high.data());
  for (int c = 0; c < columns; ++c)
    if (program.whole[static_cast<std::size_t>(c)]) solver.setInteger(c);
}

}  // namespace

int IntegerProgram::add_column(LinearProgram::Column column, bool is_whole) {
  whole.push_back(is_whole);
  return linear.add_column(column);
}

IntegerSolution solve(const IntegerProgram& program, const SolveLimits& limits) {
  const std::size_t columns = program.linear.columns.size();
  ensure(program.whole.size() == columns && (program.start.empty() || program.start.size() == columns), "an integer program says of each column whether it is whole");
  OsiClpSolverInterface solver;
  load(program, solver);
  IntegerSolution solution;
  solver.initialSolve();
  if (solver.isProvenPrimalInfeasible() || solver.isProvenDualInfeasible()) {
    solution.status = solver.isProvenPrimalInfeasible() ? SolveStatus::infeasible : SolveStatus::unbounded;
    return solution;
  }

  CbcModel model(solver);
  model.setLogLevel(0);
  model.solver()->messageHandler()->setLogLevel(0);
  CglProbing probing;
  probing.setUsingObjective(true);
  CglGomory gomory;
  CglKnapsackCover knapsack;
  CglMixedIntegerRounding2 rounding_cuts;
  model.addCutGenerator(&probing, -1, "probing");
  model.addCutGenerator(&gomory, -1, "gomory");
  model.addCutGenerator(&knapsack, -1, "knapsack");
  model.addCutGenerator(&rounding_cuts, -1, "rounding");
  CbcRounding rounding(model);
  CbcHeuristicFPump pump(model);
  CbcHeuristicLocal local(model);
  model.addHeuristic(&rounding);
  model.addHeuristic(&pump);
  model.addHeuristic(&local);
  if (limits.seconds) model.setMaximumSeconds(*limits.seconds);
  if (limits.nodes) model.setMaximumNodes(*limits.nodes);
  model.setAllowableGap(limits.gap);
  if (!program.start.empty()) {
    double cost = 0;
    for (std::size_t c = 0; c < columns; ++c) cost += program.start[c] * program.linear.columns[c].cost;
    model.setBestSolution(program.start.data(), static_cast<int>(columns), cost, true);
  }
  model.branchAndBound();

  solution.nodes = model.getNodeCount();
  solution.bound = model.getBestPossibleObjValue();
  const double* values = model.bestSolution();
  if (model.isProvenInfeasible()) {
    solution.status = SolveStatus::infeasible;
  } else if (values) {
    solution.status = model.isProvenOptimal() ? SolveStatus::optimal : SolveStatus::feasible;
    solution.cost = model.getObjValue();
    solution.values.assign(values, values + columns);
    for (std::size_t c = 0; c < columns; ++c)
      if (program.whole[c]) solution.values[c] = std::round(solution.values[c]);
  }
  return solution;
}

}  // namespace epsim
