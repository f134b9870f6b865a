#pragma once
#include <vector>

#include "base/matrix.h"

namespace epsim {

/// The column of each row, all different, with the least largest `cost` and, among those, the least sum of `then`: [n]. Both are [n][n] with finite entries.
/// Threshold search over augmenting paths, then an assignment of least sum; O(n^3 log n).
std::vector<int> bottleneck_assignment(const Matrix<double>& cost, const Matrix<double>& then);

}  // namespace epsim
