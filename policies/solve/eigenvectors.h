#pragma once
#include "base/matrix.h"

namespace epsim {

/// Eigenvectors of the `count` largest eigenvalues of a symmetric matrix [n][n], largest first, as columns: [n][count], count at most n. Each has length 1, and
/// its entry of largest magnitude (of nearly equal ones the first) is positive. LAPACK's dsyevr; the last bits are the library's own, and vectors of equal
/// eigenvalues are some basis of their space.
Matrix<double> top_eigenvectors(Matrix<double> symmetric, int count);

/// The largest eigenvalue of a symmetric matrix [n][n], n at least 1: no v' M v is more than it times v' v, but for rounding.
double largest_eigenvalue(Matrix<double> symmetric);

}  // namespace epsim
