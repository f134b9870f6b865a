#include "policies/solve/eigenvectors.h"

#include <lapacke.h>

#include <algorithm>
#include <cmath>

#include "base/check.h"

namespace epsim {

Matrix<double> top_eigenvectors(Matrix<double> symmetric, int count) {
  const auto n = static_cast<lapack_int>(symmetric.rows);
  ensure(symmetric.columns == n && 0 < count && count <= n, "eigenvectors are those of a square matrix, and no more than it has");
  std::vector<double> values(static_cast<std::size_t>(n)), columns(static_cast<std::size_t>(n) * static_cast<std::size_t>(count));
  std::vector<lapack_int> support(2 * static_cast<std::size_t>(n));
  lapack_int found = 0;
  // Row by row or column by column, a symmetric matrix is the same.
  const lapack_int error = LAPACKE_dsyevr(LAPACK_COL_MAJOR, 'V', 'I', 'U', n, symmetric.cells.data(), n, 0, 0, n - count + 1, n, 0, &found, values.data(),
                                          columns.data(), n, support.data());
  ensure(error == 0 && found == count, "LAPACK finds the eigenvectors");

  Matrix<double> out(n, count);
  for (int c = 0; c < count; ++c) {
    const double* v = &columns[static_cast<std::size_t>(count - 1 - c) * static_cast<std::size_t>(n)];  // LAPACK's order is ascending
    double largest = 0;
    for (int i = 0; i < n; ++i) largest = std::max(largest, std::abs(v[i]));
    const double* lead = std::find_if(v, v + n, [&](double x) { return std::abs(x) >= largest * (1 - 1e-9); });
    for (int i = 0; i < n; ++i) out(i, c) = *lead < 0 ? -v[i] : v[i];
  }
  return out;
}

double largest_eigenvalue(Matrix<double> symmetric) {
  const auto n = static_cast<lapack_int>(symmetric.rows);
  ensure(symmetric.columns == n && n > 0, "eigenvalues are those of a square matrix");
  std::vector<double> values(static_cast<std::size_t>(n));
  double unused = 0;
  std::vector<lapack_int> support(2);
  lapack_int found = 0;
  const lapack_int error = LAPACKE_dsyevr(LAPACK_COL_MAJOR, 'N', 'I', 'U', n, symmetric.cells.data(), n, 0, 0, n, n, 0, &found, values.data(), &unused, 1, support.data());
  ensure(error == 0 && found == 1, "LAPACK finds the eigenvalue");
  return values.front();
}

}  // namespace epsim
