#pragma once
#include <optional>

#include "policies/solve/linear_program.h"

namespace epsim {

/// A linear program some of whose columns take whole numbers only.
struct IntegerProgram {
  LinearProgram linear;
  std::vector<bool> whole;    ///< [columns]
  std::vector<double> start;  ///< [columns] feasible values to begin from; empty: none are known

  /// Gives the column's number.
  int add_column(LinearProgram::Column column, bool is_whole);
};

/// When to stop. A limit in nodes stops at the same values every time; one in seconds does not.
struct SolveLimits {
  std::optional<double> seconds;
  std::optional<int> nodes;
  double gap = 0;  ///< stop when the cost is proven to be within this much (absolute) of the least
};

struct IntegerSolution {
  SolveStatus status = SolveStatus::unknown;
  double cost = 0;
  double bound = -LinearProgram::kInfinity;  ///< no values cost less, whatever the status
  std::vector<double> values;                ///< [columns], whole ones rounded; empty unless optimal or feasible
  int nodes = 0;                             ///< of the search
};

/// Solves by CBC's branch and cut: silent, on one thread, the same values for the same program unless a limit in seconds strikes. Throws std::logic_error where sizes do not agree.
IntegerSolution solve(const IntegerProgram& program, const SolveLimits& limits = {});

}  // namespace epsim
