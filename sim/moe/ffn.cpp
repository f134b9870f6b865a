#include "sim/moe/ffn.h"

#include <algorithm>

#include "base/check.h"
#include "sim/moe/vectors.h"

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
  const std::int64_t f = shape_.ffn;
  w1_.multiply(x, rows, g);
  add_bias(g, b1_, rows, f);
  if (gated_) {
    w3_.multiply(x, rows, u);
    add_bias(u, b3_, rows, f);
  }
  std::vector<float> a(static_cast<std::size_t>(rows * f));
  activate(shape_.activation, a.size(), g, gated_ ? u : nullptr, a.data());
  w2_.multiply(a.data(), rows, y);
  add_bias(y, b2_, rows, shape_.hidden);
}

FfnRows FfnRows::part(std::int64_t first, std::int64_t count, const FfnShape& s) const {
  const auto at = [first](auto* values, std::int64_t size) { return values ? values + first * size : nullptr; };
  return {count,          at(x, s.hidden), at(dy, s.hidden), at(scale, 1),     at(g, s.ffn),  at(u, s.ffn),
          at(a, s.ffn), at(dg, s.ffn),   at(du, s.ffn),    at(dx, s.hidden), at(dscale, 1)};
}

FfnBackward::FfnBackward(const FfnShape& s, const FfnView& w)
    : shape_(s), gated_(w.w3 != nullptr), b2_(w.b2), w1_(s.ffn, s.hidden, w.w1, true, s.precision), w2_(s.hidden, s.ffn, w.w2, true, s.precision) {
  if (w.w3) w3_ = RightSide(s.ffn, s.hidden, w.w3, true, s.precision);
}

void FfnBackward::backward(const FfnRows& r) const {
  const std::int64_t f = shape_.ffn, h = shape_.hidden;
  std::vector<float> da(static_cast<std::size_t>(r.rows * f));
  w2_.multiply(r.dy, r.rows, da.data());
  activate_backward(shape_.activation, da.size(), r.g, gated_ ? r.u : nullptr, da.data(), r.a, r.dg, r.du);
  for (std::int64_t i = 0; r.scale && i < r.rows; ++i) {
    // The row's result is not needed for this: (a w2 + b2) . dy = a . (dy w2^T) + b2 . dy.
    r.dscale[i] = dot(r.a + i * f, da.data() + i * f, f) + (b2_ ? dot(b2_, r.dy + i * h, h) : 0.0F);
    scale_by(r.a + i * f, r.scale[i], f);
    scale_by(r.dg + i * f, r.scale[i], f);
    if (gated_) scale_by(r.du + i * f, r.scale[i], f);
  }
  w1_.multiply(r.dg, r.rows, r.dx);
  if (gated_) w3_.multiply(r.du, r.rows, r.dx, true);
}

void weight_gradient(const FfnShape& s, const FfnRows& r, FfnMatrix matrix, const FfnSlice& out) {
  switch (matrix) {
    case FfnMatrix::w1:
      sum_outer_products(r.x, s.hidden, r.dg, s.ffn, r.rows, out.w1, s.precision);
      if (out.b1) sum_rows(nullptr, r.dg, s.ffn, r.rows, out.b1);
      return;
    case FfnMatrix::w3:
      if (out.w3) sum_outer_products(r.x, s.hidden, r.du, s.ffn, r.rows, out.w3, s.precision);
      if (out.b3) sum_rows(nullptr, r.du, s.ffn, r.rows, out.b3);
      return;
    case FfnMatrix::w2:
      sum_outer_products(r.a, s.ffn, r.dy, s.hidden, r.rows, out.w2, s.precision);
      if (out.b2) sum_rows(r.scale, r.dy, s.hidden, r.rows, out.b2);
  }
}

}  // namespace epsim
