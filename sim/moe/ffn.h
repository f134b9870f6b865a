#pragma once
#include <cstdint>
#include <vector>

#include "sim/moe/activation.h"
#include "sim/moe/product.h"

namespace epsim {

/// The matrices of an expert, or of several one after another, row-major: w1 and w3 are [hidden][ffn], w2 is [ffn][hidden]; b1 and b3 are [ffn], b2 is [hidden].
/// Empty: there is none. An expert with a w3 is gated.
struct ExpertWeights {
  std::vector<float> w1, w3, w2, b1, b3, b2;
};

/// The sizes of an expert and how it computes y = activation(x w1 + b1, x w3 + b3) w2 + b2.
struct FfnShape {
  std::int64_t hidden = 0, ffn = 0;
  Activation activation = Activation::swiglu;
  Precision precision = Precision::fp32;  ///< of the matrix products
};

/// Rows that pass through an expert's matrices together, each matrix after the other: it comes from far memory once for all of them.
inline constexpr std::int64_t kBlockRows = 4 * RightSide::kTileRows;

/// One expert's part of ExpertWeights; null: there is none.
struct FfnView {
  const float *w1 = nullptr, *w3 = nullptr, *w2 = nullptr, *b1 = nullptr, *b3 = nullptr, *b2 = nullptr;
};
FfnView view_of(const ExpertWeights& weights, const FfnShape& shape, std::int64_t expert);
/// The same, to be written.
struct FfnSlice {
  float *w1 = nullptr, *w3 = nullptr, *w2 = nullptr, *b1 = nullptr, *b3 = nullptr, *b2 = nullptr;
};
FfnSlice slice_of(ExpertWeights& weights, const FfnShape& shape, std::int64_t expert);

/// An expert packed for computing forwards. Its biases must outlive it.
class Ffn {
 public:
  Ffn() = default;
  Ffn(const FfnShape& shape, const FfnView& weights);
  /// y [rows][hidden] from x [rows][hidden]. `g` and `u` [rows][ffn] are what `backward` needs to know; u is null where the expert is not gated.
  void forward(const float* x, std::int64_t rows, float* g, float* u, float* y) const;

 private:
  void block(const float* x, std::int64_t rows, float* g, float* u, float* y) const;
  FfnShape shape_;
  bool gated_ = false;
  const float *b1_ = nullptr, *b3_ = nullptr, *b2_ = nullptr;
  RightSide w1_, w3_, w2_;
};

/// Factors of the gradients of weights that are rounded to bfloat16: once, for all products that they are in.
struct RoundedRows {
  Bfloat16 *x = nullptr, *dy = nullptr;                ///< [rows][hidden]
  Bfloat16 *a = nullptr, *dg = nullptr, *du = nullptr;  ///< [rows][ffn]
};

/// What the gradients of some rows of an expert are computed from and written to; all by row. A row's result is scale * FFN(x), its gradient dy.
struct FfnRows {
  std::int64_t rows = 0;
  const float *x = nullptr, *dy = nullptr;               ///< [rows][hidden]
  const float* scale = nullptr;                          ///< [rows]; null: ones
  const float *g = nullptr, *u = nullptr;                ///< [rows][ffn], of `forward`
  float *a = nullptr, *dg = nullptr, *du = nullptr;      ///< [rows][ffn]: scale times the activations, and gradients; in fp32
  RoundedRows rounded = {};                                 ///< the same, and x and dy, in bf16
  float* dx = nullptr;                                   ///< [rows][hidden]
  float* dscale = nullptr;                               ///< [rows]; null where there is no scale

  /// Rows [first, first + count) of these.
  FfnRows part(std::int64_t first, std::int64_t count, const FfnShape& shape) const;
};

/// Memory for what `backward` leaves of some rows for `weight_gradient`.
class FfnFactors {
 public:
  FfnFactors(const FfnShape& shape, bool gated, std::int64_t rows);
  /// These rows, with this memory to write to.
  FfnRows of(FfnRows rows);

 private:
  std::vector<float> a_, dg_, du_;
  std::vector<Bfloat16> x16_, dy16_, a16_, dg16_, du16_;
};

/// An expert packed for computing backwards. Its biases must outlive it.
class FfnBackward {
 public:
  FfnBackward() = default;
  FfnBackward(const FfnShape& shape, const FfnView& weights);
  /// Fills in what is to be written; a row's gradients do not depend on the rows beside it.
  void backward(const FfnRows& rows) const;

 private:
  void block(const FfnRows& rows) const;
  FfnShape shape_;
  bool gated_ = false;
  const float* b2_ = nullptr;
  RightSide w1_, w3_, w2_;  // transposed
};

/// The matrices of an expert whose gradients are computed independently of each other.
enum class FfnMatrix { w1, w3, w2 };
/// The gradients of a matrix and of its bias, from all rows of the expert in global token order, after `backward`; summed in chunks of kChunkRows. Slices that are null are left out.
void weight_gradient(const FfnShape& shape, const FfnRows& rows, FfnMatrix matrix, const FfnSlice& out);

}  // namespace epsim
