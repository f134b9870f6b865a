#pragma once
#include <vector>

#include "base/matrix.h"

namespace epsim {

/// The column of each row, all different, with the least sum of costs: [rows]. At least as many columns as rows, finite costs of any sign; O(rows^2 x columns)
/// (Kuhn 1955, Munkres 1957, in the form with potentials and shortest augmenting paths of Jonker and Volgenant, 1987). Sums of whole numbers below 2^53 are
/// exact. Rows are settled in order; among equally near columns free ones go first, then low ones, so the answer is the same everywhere.
std::vector<int> least_cost_assignment(const Matrix<double>& cost);

}  // namespace epsim
