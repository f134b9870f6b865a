#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace epsim {

/// A dense row-major matrix.
template <class T>
struct Matrix {
  std::int64_t rows = 0, columns = 0;
  std::vector<T> cells;

  Matrix() = default;
  Matrix(std::int64_t r, std::int64_t c) : rows(r), columns(c), cells(static_cast<std::size_t>(r * c)) {}
  T& operator()(std::int64_t r, std::int64_t c) { return cells[static_cast<std::size_t>(r * columns + c)]; }
  const T& operator()(std::int64_t r, std::int64_t c) const { return cells[static_cast<std::size_t>(r * columns + c)]; }
  std::span<T> row(std::int64_t r) { return {cells.data() + r * columns, static_cast<std::size_t>(columns)}; }
  std::span<const T> row(std::int64_t r) const { return {cells.data() + r * columns, static_cast<std::size_t>(columns)}; }
  friend bool operator==(const Matrix&, const Matrix&) = default;
};

}  // namespace epsim
