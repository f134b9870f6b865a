#include "sim/moe/product.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "base/rng.h"
#include "sim/moe/vectors.h"

namespace epsim {
namespace {

std::vector<float> random_values(std::uint64_t seed, std::int64_t count) {
  Rng rng(seed, Stream::test);
  std::vector<float> v(static_cast<std::size_t>(count));
  for (float& x : v) x = static_cast<float>(2 * rng.uniform() - 1);
  return v;
}

std::vector<Bfloat16> rounded_values(const std::vector<float>& v) {
  std::vector<Bfloat16> r(v.size());
  round_to(v.data(), r.data(), static_cast<std::int64_t>(v.size()));
  return r;
}

double exact(const std::vector<float>& left, const std::vector<float>& right, std::int64_t row, std::int64_t column, std::int64_t inner, std::int64_t outer) {
  double sum = 0;
  for (std::int64_t i = 0; i < inner; ++i) sum += double{left[static_cast<std::size_t>(row * inner + i)]} * double{right[static_cast<std::size_t>(i * outer + column)]};
  return sum;
}

TEST(RightSide, MultipliesBothWaysRound) {
  for (const auto& [inner, outer] : {std::pair<std::int64_t, std::int64_t>{24, 40}, {7, 1}, {65, 130}}) {
    const std::int64_t rows = 70;
    const std::vector<float> left = random_values(1, rows * inner), right = random_values(2, inner * outer);
    std::vector<float> turned(right.size());
    for (std::int64_t i = 0; i < inner; ++i)
      for (std::int64_t o = 0; o < outer; ++o) turned[static_cast<std::size_t>(o * inner + i)] = right[static_cast<std::size_t>(i * outer + o)];
    std::vector<float> out(static_cast<std::size_t>(rows * outer)), other(out.size(), 1.0F);
    RightSide(inner, outer, right.data(), false, Precision::fp32).multiply(left.data(), rows, out.data());
    RightSide(inner, outer, turned.data(), true, Precision::fp32).multiply(left.data(), rows, other.data(), true);
    for (std::int64_t r = 0; r < rows; ++r)
      for (std::int64_t o = 0; o < outer; ++o) {
        const double sum = exact(left, right, r, o, inner, outer);
        EXPECT_NEAR(out[static_cast<std::size_t>(r * outer + o)], sum, 1e-5);
        EXPECT_NEAR(other[static_cast<std::size_t>(r * outer + o)], sum + 1, 1e-5);
      }
  }
}

// bfloat16 keeps 8 bits: rounding both factors errs by at most 2^-8 of the sum of the products' magnitudes, and a little for the sums in float32.
TEST(RightSide, Bfloat16RoundsFactorsAndNothingElse) {
  const std::int64_t inner = 96, outer = 40, rows = 70;
  const std::vector<float> left = random_values(3, rows * inner), right = random_values(4, inner * outer);
  std::vector<float> out(static_cast<std::size_t>(rows * outer)), coarse_left, coarse_right;
  const auto rounded = [](const std::vector<float>& v) {
    std::vector<float> r;
    for (const float x : v) {
      const double unit = std::ldexp(1.0, std::ilogb(x) - 7);
      r.push_back(static_cast<float>(std::nearbyint(double{x} / unit) * unit));
    }
    return r;
  };
  RightSide(inner, outer, right.data(), false, Precision::bf16).multiply(rounded_values(left).data(), rows, out.data());
  coarse_left = rounded(left), coarse_right = rounded(right);
  for (std::int64_t r = 0; r < rows; ++r)
    for (std::int64_t o = 0; o < outer; ++o) EXPECT_NEAR(out[static_cast<std::size_t>(r * outer + o)], exact(coarse_left, coarse_right, r, o, inner, outer), 2e-5);
}

// I7 rests on this: a row's product is the same bits alone, in any batch, and in any place of a tile.
TEST(RightSide, RowAloneEqualsRowInBatch) {
  const std::int64_t inner = 48, outer = 33, rows = 150;
  const std::vector<float> left = random_values(5, rows * inner), right = random_values(6, inner * outer);
  const auto check = [&](const auto& factor, Precision precision) {
    const RightSide packed(inner, outer, right.data(), false, precision);
    for (const bool add : {false, true}) {
      std::vector<float> all(static_cast<std::size_t>(rows * outer), 0.5F);
      packed.multiply(factor.data(), rows, all.data(), add);
      for (std::int64_t r = 0; r < rows; ++r) {
        std::vector<float> one(static_cast<std::size_t>(outer), 0.5F);
        packed.multiply(factor.data() + r * inner, 1, one.data(), add);
        ASSERT_EQ(std::memcmp(one.data(), all.data() + r * outer, one.size() * sizeof(float)), 0) << r;
      }
    }
  };
  check(left, Precision::fp32);
  check(rounded_values(left), Precision::bf16);
}

// The sum over rows is a fixed tree of fixed chunks, so whoever holds a chunk may add it.
TEST(SumOverRows, IsATreeOfChunks) {
  const std::int64_t m = 5, n = 9;
  const auto check = [&](std::int64_t rows, const auto& left, const auto& right, auto tree, const std::vector<float>& exact_left, const std::vector<float>& exact_right, double tolerance) {
    std::vector<std::vector<float>> chunks;
    for (std::int64_t first = 0; first < rows; first += kChunkRows)
      sum_outer_products(left.data() + first * m, m, right.data() + first * n, n, std::min(kChunkRows, rows - first), chunks.emplace_back(static_cast<std::size_t>(m * n)).data());
    std::vector<float> all(static_cast<std::size_t>(m * n));
    sum_outer_products(left.data(), m, right.data(), n, rows, all.data());
    for (std::size_t i = 0; i < all.size(); ++i) EXPECT_EQ(all[i], tree(chunks, i));
    double expected = 0, magnitude = 0;
    for (std::int64_t r = 0; r < rows; ++r) {
      const double term = double{exact_left[static_cast<std::size_t>(r * m + 2)]} * double{exact_right[static_cast<std::size_t>(r * n + 3)]};
      expected += term, magnitude += std::abs(term);
    }
    EXPECT_NEAR(all[2 * 9 + 3], expected, magnitude * tolerance);
  };
  const auto both = [&](std::int64_t rows, auto tree) {
    const std::vector<float> left = random_values(7, rows * m), right = random_values(8, rows * n);
    check(rows, left, right, tree, left, right, 1e-6);
    check(rows, rounded_values(left), rounded_values(right), tree, left, right, 1.0 / 256);
  };
  using Chunks = std::vector<std::vector<float>>;
  both(2 * kChunkRows + 300, [](const Chunks& c, std::size_t i) { return (c[0][i] + c[1][i]) + c[2][i]; });
  both(6 * kChunkRows + 17, [](const Chunks& c, std::size_t i) { return ((c[0][i] + c[1][i]) + (c[2][i] + c[3][i])) + ((c[4][i] + c[5][i]) + c[6][i]); });
}

TEST(SumOverRows, OfBiasesIsTheSameTree) {
  const std::int64_t n = 9, rows = 2 * kChunkRows + 300;
  const std::vector<float> right = random_values(8, rows * n), scale = random_values(9, rows);
  std::vector<std::vector<float>> chunks;
  for (std::int64_t first = 0; first < rows; first += kChunkRows)
    sum_rows(scale.data() + first, right.data() + first * n, n, std::min(kChunkRows, rows - first), chunks.emplace_back(static_cast<std::size_t>(n)).data());
  std::vector<float> all(static_cast<std::size_t>(n));
  sum_rows(scale.data(), right.data(), n, rows, all.data());
  for (std::size_t i = 0; i < all.size(); ++i) EXPECT_EQ(all[i], (chunks[0][i] + chunks[1][i]) + chunks[2][i]);
}

TEST(SumOverRows, OfNoRowsIsZero) {
  std::vector<float> out(6, 1.0F);
  sum_outer_products(static_cast<const float*>(nullptr), 2, nullptr, 3, 0, out.data());
  EXPECT_EQ(out, std::vector<float>(6));
  sum_rows(nullptr, nullptr, 6, 0, out.data());
  EXPECT_EQ(out, std::vector<float>(6));
}

TEST(Dot, AddsEveryProduct) {
  for (std::int64_t n = 0; n < 70; ++n) {
    std::vector<float> ones(static_cast<std::size_t>(n), 1.0F), counts;
    for (std::int64_t i = 0; i < n; ++i) counts.push_back(static_cast<float>(i));
    EXPECT_EQ(dot(ones.data(), counts.data(), n), static_cast<float>(n * (n - 1) / 2));
  }
}

}  // namespace
}  // namespace epsim
