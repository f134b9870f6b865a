#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "sim/moe/bfloat16.h"
#include "topology/device.h"

namespace epsim {

/// The right side of a matrix product, [inner][outer], packed once for any number of left rows. A row's result does not depend on the rows beside it: products run on tiles of one fixed number
/// of rows, the last one filled up with zeros, because libraries may round differently for different row counts.
/// Sums are float32; so are both sides, or both are bfloat16, which some processors multiply many times faster.
class RightSide {
 public:
  static constexpr std::int64_t kTileRows = 64;

  RightSide() = default;
  /// Packs `values`, [inner][outer] row-major or, `transposed`, [outer][inner], rounded (nearest, ties to even) where `precision` is bf16.
  RightSide(std::int64_t inner, std::int64_t outer, const float* values, bool transposed, Precision precision);

  /// out [rows][outer] = left [rows][inner] times this; or += where `add`. `left` has this side's precision. Several threads may multiply at once; a call uses one.
  void multiply(const float* left, std::int64_t rows, float* out, bool add = false) const;
  void multiply(const Bfloat16* left, std::int64_t rows, float* out, bool add = false) const;
  std::int64_t inner() const { return inner_; }
  std::int64_t outer() const { return outer_; }

 private:
  template <class Left>
  void in_tiles(const Left* left, std::int64_t rows, float* out, bool add) const;
  struct Packed;
  std::int64_t inner_ = 0, outer_ = 0;
  std::shared_ptr<const Packed> packed_;
};

/// Rows that a sum over tokens adds up in one go; the sums of such chunks are added by a fixed binary tree. So a sum depends on the rows and their order alone, not on who adds which chunk.
inline constexpr std::int64_t kChunkRows = 512;

/// out [m][n] = the sum over rows of the outer products of left [rows][m] and right [rows][n], in chunks of kChunkRows: the gradient of a weight matrix. Zeros without rows.
void sum_outer_products(const float* left, std::int64_t m, const float* right, std::int64_t n, std::int64_t rows, float* out);
void sum_outer_products(const Bfloat16* left, std::int64_t m, const Bfloat16* right, std::int64_t n, std::int64_t rows, float* out);
/// out [n] = the sum over rows of scale[row] right[row], in the same chunks; a null `scale` is ones: the gradient of a bias.
void sum_rows(const float* scale, const float* right, std::int64_t n, std::int64_t rows, float* out);
/// The same with ones.
void sum_rows(const Bfloat16* right, std::int64_t n, std::int64_t rows, float* out);

}  // namespace epsim
