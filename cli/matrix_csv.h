#pragma once
#include <cstdint>
#include <memory>

#include "base/check.h"
#include "base/matrix.h"
#include "base/units.h"

namespace epsim {

/// Most bytes that one pair of ranks may exchange in a matrix file: sums over any number of ranks stay exact.
inline constexpr Bytes kMostPairBytes = 1'000'000'000'000'000;

/// Reads a square matrix of byte counts: a line a source, a value a destination, separated by commas, no header. Values are whole numbers from 0 to kMostPairBytes, also written 1e6 or 1.5e3.
/// Empty lines at the end are ignored. Throws InputError with line and column of every value and line that is wrong (the first hundred).
Matrix<Bytes> read_matrix_csv(const std::shared_ptr<const SourceText>& source);

/// `value` as a byte count; -1 where it is no whole number from 0 to kMostPairBytes.
Bytes whole_bytes(double value);

}  // namespace epsim
