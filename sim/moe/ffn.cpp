#include "sim/moe/ffn.h"

#include <algorithm>

#include "base/check.h"
#include "sim/moe/vectors.h"
#include "sim/moe/workspace.h"

namespace epsim {
namespace {

template <class Slice, class Weights>
Slice part_of(Weights& w, const FfnShape& s, std::int64_t expert) {
  const auto at = [expert](auto& values, std::int64_t size) { return values.empty() ? nullptr : values.data() + expert * size; };
  return {at(w.w1, s.hidden * s.ffn), at(w.w3, s.hidden * s.ffn), at(w.w2, s.ffn * s.hidden), at(w.b1, s.ffn), at(w.b3, s.ffn), at(w.b2, s.hidden)};
}

void add_bias(float* rows, const float* bias, std::int64_t count, std::int64_t width) {
  if (!bias) return;
  for (std::int64_t r = 0; r < count; ++r) add_to(rows + r * width, bias, width);
}

}  // namespace

FfnView view_of(const ExpertWeights& weights, const FfnShape& shape, std::int64_t expert) { return part_of<FfnView>(weights, shape, expert); }
FfnSlice slice_of(ExpertWeights& weights, const FfnShape& shape, std::int64_t expert) { return part_of<FfnSlice>(weights, shape, expert); }

Ffn::Ffn(const FfnShape& s, const FfnView& w)
    : shape_(s), gated_(w.w3 != nullptr), b1_(w.b1), b3_(w.b3), b2_(w.b2), w1_(s.hidden, s.ffn, w.w1, false, s.precision), w2_(s.ffn, s.hidden, w.w2, false, s.precision) {
  ensure(w.w3 || !always_gated(s.activation), "a gated activation has its second matrix");
  if (w.w3) w3_ = RightSide(s.hidden, s.ffn, w.w3, false, s.precision);
}

void Ffn::forward(const float* x, std::int64_t rows, float* g, float* u, float* y) const {
  const std::int64_t h = shape_.hidden, f = shape_.ffn;
  for (std::int64_t first = 0; first < rows; first += kBlockRows)
    block(x + first * h, std::min(kBlockRows, rows - first), g + first * f, gated_ ? u + first * f : nullptr, y + first * h);
}

void Ffn::block(const float* x, std::int64_t rows, float* g, float* u, float* y) const {
  struct Room;
  const std::int64_t h = shape_.hidden, f = shape_.ffn;
  const auto compute = [&](const auto* in, auto* a) {
    w1_.multiply(in, rows, g);
    add_bias(g, b1_, rows, f);
    if (gated_) {
      w3_.multiply(in, rows, u);
      add_bias(u, b3_, rows, f);
    }
    activate(shape_.activation, static_cast<std::size_t>(rows * f), g, gated_ ? u : nullptr, a);
    w2_.multiply(a, rows, y);
  };
  if (shape_.precision == Precision::bf16) {
    Bfloat16* room = workspace<Room, Bfloat16>(rows * (h + f));
    round_to(x, room, rows * h);
    compute(room, room + rows * h);
  } else {
    compute(x, workspace<Room, float>(rows * f));
  }
  add_bias(y, b2_, rows, h);
}

FfnRows FfnRows::part(std::int64_t first, std::int64_t count, const FfnShape& s) const {
  const auto at = [first](auto* values, std::int64_t size) { return values ? values + first * size : nullptr; };
  const std::int64_t h = s.hidden, f = s.ffn;
  return {count,     at(x, h),  at(dy, h), at(scale, 1), at(g, f), at(u, f), at(a, f), at(dg, f), at(du, f), {at(rounded.x, h), at(rounded.dy, h), at(rounded.a, f), at(rounded.dg, f), at(rounded.du, f)},
          at(dx, h), at(dscale, 1)};
}

FfnFactors::FfnFactors(const FfnShape& s, bool gated, std::int64_t rows) {
  const auto sized = [rows](auto& values, std::int64_t width) { values.resize(static_cast<std::size_t>(rows * width)); };
  if (s.precision == Precision::bf16) {
    sized(x16_, s.hidden), sized(dy16_, s.hidden), sized(a16_, s.ffn), sized(dg16_, s.ffn), sized(du16_, gated ? s.ffn : 0);
  } else {
    sized(a_, s.ffn), sized(dg_, s.ffn), sized(du_, gated ? s.ffn : 0);
  }
}

FfnRows FfnFactors::of(FfnRows rows) {
  rows.a = a_.data(), rows.dg = dg_.data(), rows.du = du_.data();
  rows.rounded = {x16_.data(), dy16_.data(), a16_.data(), dg16_.data(), du16_.data()};
  return rows;
}

FfnBackward::FfnBackward(const FfnShape& s, const FfnView& w)
    : shape_(s), gated_(w.w3 != nullptr), b2_(w.b2), w1_(s.ffn, s.hidden, w.w1, true, s.precision), w2_(s.hidden, s.ffn, w.w2, true, s.precision) {
  if (w.w3) w3_ = RightSide(s.ffn, s.hidden, w.w3, true, s.precision);
}

void FfnBackward::backward(const FfnRows& r) const {
  for (std::int64_t first = 0; first < r.rows; first += kBlockRows) block(r.part(first, std::min(kBlockRows, r.rows - first), shape_));
}

void FfnBackward::block(const FfnRows& r) const {
  struct Room;
  const std::int64_t f = shape_.ffn, h = shape_.hidden;
  float* all_da = workspace<Room, float>(r.rows * f);
  const auto compute = [&](const auto* dy, auto* all_a, auto* all_dg, auto* all_du) {
    w2_.multiply(dy, r.rows, all_da);
    for (std::int64_t i = 0; i < r.rows; ++i) {
      const auto row = [i, f](auto* values) { return values ? values + i * f : nullptr; };
      // The row's result is not needed for its scale's gradient: (a w2 + b2) . dy = a . (dy w2^T) + b2 . dy.
      const float along = activate_backward(shape_.activation, static_cast<std::size_t>(f), row(r.g), gated_ ? row(r.u) : nullptr, row(all_da), r.scale ? r.scale[i] : 1.0F, row(all_a), row(all_dg),
                                            row(all_du));
      if (r.dscale) r.dscale[i] = along + (b2_ ? dot(b2_, r.dy + i * h, h) : 0.0F);
    }
    w1_.multiply(all_dg, r.rows, r.dx);
    if (gated_) w3_.multiply(all_du, r.rows, r.dx, true);
  };
  if (shape_.precision == Precision::bf16) {
    round_to(r.x, r.rounded.x, r.rows * h);
    round_to(r.dy, r.rounded.dy, r.rows * h);
    compute(r.rounded.dy, r.rounded.a, r.rounded.dg, r.rounded.du);
  } else {
    compute(r.dy, r.a, r.dg, r.du);
  }
}

void weight_gradient(const FfnShape& s, const FfnRows& r, FfnMatrix matrix, const FfnSlice& out) {
  const auto of_matrix = [&](const auto* left, std::int64_t m, const auto* right, std::int64_t n, float* to) {
    if (to) sum_outer_products(left, m, right, n, r.rows, to);
  };
  const auto of_inner_bias = [&](const float* exact, const Bfloat16* rounded, float* to) {
    if (!to) return;
    s.precision == Precision::bf16 ? sum_rows(rounded, s.ffn, r.rows, to) : sum_rows(nullptr, exact, s.ffn, r.rows, to);
  };
  const auto all = [&](const auto* x, const auto* dy, const auto* a, const auto* dg, const auto* du) {
    switch (matrix) {
      case FfnMatrix::w1: return of_matrix(x, s.hidden, dg, s.ffn, out.w1);
      case FfnMatrix::w3: return of_matrix(x, s.hidden, du, s.ffn, out.w3);
      case FfnMatrix::w2: return of_matrix(a, s.ffn, dy, s.hidden, out.w2);
    }
  };
  s.precision == Precision::bf16 ? all(r.rounded.x, r.rounded.dy, r.rounded.a, r.rounded.dg, r.rounded.du) : all(r.x, r.dy, r.a, r.dg, r.du);
  if (matrix == FfnMatrix::w1) of_inner_bias(r.dg, r.rounded.dg, out.b1);
  if (matrix == FfnMatrix::w3) of_inner_bias(r.du, r.rounded.du, out.b3);
  if (matrix == FfnMatrix::w2 && out.b2) sum_rows(r.scale, r.dy, s.hidden, r.rows, out.b2);
}

}  // namespace epsim
