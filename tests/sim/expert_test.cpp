#include "sim/moe/expert.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "sim/moe/buffers.h"
#include "workloads/source.h"

namespace epsim {
namespace {

std::vector<float> rows_of(std::int64_t n, std::int64_t hidden) {
  std::vector<float> x(static_cast<std::size_t>(n * hidden));
  for (std::int64_t t = 0; t < n; ++t) token_vector(9, t, std::span(x).subspan(static_cast<std::size_t>(t * hidden), static_cast<std::size_t>(hidden)));
  return x;
}

// I7 rests on this: a row's result may not depend on the rows beside it, for any batch size.
TEST(Expert, RowAloneEqualsRowInBatch) {
  for (const auto& [hidden, ffn] : {std::pair<std::int64_t, std::int64_t>{64, 128}, {48, 40}, {7, 33}, {256, 512}}) {
    ExpertBank bank(hidden);
    bank.add(0, ffn, make_expert_weights(3, 1, 0, hidden, ffn));
    const std::vector<float> x = rows_of(257, hidden);
    std::vector<float> alone(x.size());
    for (std::size_t r = 0; r < 257; ++r) {
      const std::size_t h = static_cast<std::size_t>(hidden);
      bank.forward(0, std::span(x).subspan(r * h, h), std::span(alone).subspan(r * h, h));
    }
    for (std::size_t n = 1; n <= 257; n += hidden == 256 ? 32 : 1) {
      std::vector<float> batch(n * static_cast<std::size_t>(hidden));
      bank.forward(0, std::span(x).first(batch.size()), batch);
      ASSERT_EQ(std::memcmp(batch.data(), alone.data(), batch.size() * sizeof(float)), 0) << n << " rows of " << hidden;
    }
  }
}

TEST(Expert, ComputesSwiGlu) {
  const std::int64_t hidden = 24, ffn = 40;
  const ExpertWeights w = make_expert_weights(3, 1, 5, hidden, ffn);
  ExpertBank bank(hidden);
  bank.add(5, ffn, w);
  const std::vector<float> x = rows_of(3, hidden);
  std::vector<float> y(x.size());
  bank.forward(5, x, y);
  for (std::int64_t r = 0; r < 3; ++r)
    for (std::int64_t o = 0; o < hidden; ++o) {
      double sum = 0;
      for (std::int64_t j = 0; j < ffn; ++j) {
        double a = 0, b = 0;
        for (std::int64_t i = 0; i < hidden; ++i) {
          a += double{x[static_cast<std::size_t>(r * hidden + i)]} * double{w.w1[static_cast<std::size_t>(i * ffn + j)]};
          b += double{x[static_cast<std::size_t>(r * hidden + i)]} * double{w.w3[static_cast<std::size_t>(i * ffn + j)]};
        }
        sum += a / (1 + std::exp(-a)) * b * double{w.w2[static_cast<std::size_t>(j * hidden + o)]};
      }
      EXPECT_NEAR(y[static_cast<std::size_t>(r * hidden + o)], sum, 1e-5);
    }
}

TEST(Expert, WeightsDependOnSeedLayerAndExpertAlone) {
  EXPECT_EQ(make_expert_weights(1, 2, 3, 8, 8).w1, make_expert_weights(1, 2, 3, 8, 8).w1);
  EXPECT_NE(make_expert_weights(1, 2, 3, 8, 8).w1, make_expert_weights(1, 2, 4, 8, 8).w1);
  EXPECT_NE(make_expert_weights(1, 2, 3, 8, 8).w1, make_expert_weights(1, 3, 3, 8, 8).w1);
  EXPECT_NE(make_expert_weights(1, 2, 3, 8, 8).w1, make_expert_weights(2, 2, 3, 8, 8).w1);
  EXPECT_NE(make_expert_weights(1, 2, kSharedExpert, 8, 8).w1, make_expert_weights(1, 2, 0, 8, 8).w1);
}

TEST(AddRows, AddsInOrderAndNothingIsZero) {
  const float a[] = {1e8F}, b[] = {1.0F}, c[] = {-1e8F};
  float out[1];
  add_rows(std::vector<WeightedRow>{{a, 1}, {b, 1}, {c, 1}}, out);
  EXPECT_EQ(out[0], 0.0F);  // (1e8 + 1) - 1e8 in float32
  add_rows(std::vector<WeightedRow>{{a, 1}, {c, 1}, {b, 1}}, out);
  EXPECT_EQ(out[0], 1.0F);
  add_rows({}, out);
  EXPECT_EQ(out[0], 0.0F);
}

}  // namespace
}  // namespace epsim
