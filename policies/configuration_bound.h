#pragma once
#include <cstdint>
#include <vector>

#include "base/matrix.h"

namespace epsim {

/// What every expert that is wanted takes of any rank that has it whole, and what a rank may have.
struct Configurations {
  /// A way that rows come to ranks, or results leave them.
  struct Way {
    double latency = 0;       ///< seconds before or after all that goes this way
    Matrix<double> seconds;   ///< [experts][ranks] for which what goes this way keeps the rank's links busy; 0: nothing does
  };
  Matrix<double> compute;     ///< [experts][ranks] seconds
  std::vector<Way> in, out;
  Matrix<double> enters, leaves;     ///< [experts][ranks] seconds until an expert's rows have come, and until its results have left, at least, were it alone
  bool rows_add = true;              ///< rows of different experts are different rows; otherwise tokens may share them
  std::vector<std::int32_t> slots;   ///< [ranks]
};

/// Seconds that some rank is busy at least, taking in all its rows, computing, and giving all results, one after another, wherever experts lie, each whole. It is `known` or more.
/// A time is refuted by weights of the experts: where no set of experts that a rank can be done with by then weighs more than the rank's share, and all experts together weigh more than all shares, there is no room for them. (The dual of the
/// linear relaxation of packing by configurations: Gilmore and Gomory 1961.) Weights are found by raising those of experts that the heaviest sets leave out. Where sets are too many to look at, it is what was known.
double configuration_bound(const Configurations& layer, double known);

}  // namespace epsim
