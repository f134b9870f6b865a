#include "sim/moe/activation.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>

#include "tests/support/moe_oracle.h"

namespace epsim {
namespace {

const std::vector<Activation> kAll = {Activation::swiglu, Activation::clamped_swiglu, Activation::gelu, Activation::gelu_tanh, Activation::relu};

/// Pairs of g and u: a fine ladder of each, no point on a kink.
struct Points {
  std::vector<float> g, u;
  Points() {
    for (int i = -3001; i <= 3001; i += 2) g.push_back(static_cast<float>(i) / 250), u.push_back(static_cast<float>((i * 7 + 3) % 3001) / 300);
  }
};

TEST(Activation, FollowsItsDefinition) {
  const Points p;
  for (const Activation a : kAll)
    for (const bool gated : {true, false}) {
      if (!gated && always_gated(a)) continue;
      std::vector<float> out(p.g.size());
      activate(a, p.g.size(), p.g.data(), gated ? p.u.data() : nullptr, out.data());
      for (std::size_t i = 0; i < out.size(); ++i) {
        const double expected = testing::oracle_activation(a, p.g[i], p.u[i], gated);
        // An error of a few units in the last place of g u.
        EXPECT_NEAR(out[i], expected, 6e-7 * std::max(1.0, std::abs(double{p.g[i]}) * (gated ? std::abs(double{p.u[i]}) + 1 : 1))) << name_of(a) << " of " << p.g[i] << ", " << p.u[i];
      }
    }
}

TEST(Activation, SlopesAreDifferenceQuotients) {
  const Points p;
  const std::size_t n = p.g.size();
  std::vector<float> da(n);
  for (std::size_t i = 0; i < n; ++i) da[i] = static_cast<float>(i % 5) - 2;
  for (const Activation a : kAll)
    for (const bool gated : {true, false}) {
      if (!gated && always_gated(a)) continue;
      std::vector<float> out(n), again(n), dg(n), du(n);
      activate(a, n, p.g.data(), gated ? p.u.data() : nullptr, out.data());
      activate_backward(a, n, p.g.data(), gated ? p.u.data() : nullptr, da.data(), 1.0F, again.data(), dg.data(), gated ? du.data() : nullptr);
      EXPECT_EQ(out, again);
      for (std::size_t i = 0; i < n; ++i) {
        const double g = p.g[i], u = p.u[i], step = 1e-4;
        const double slope_g = (testing::oracle_activation(a, g + step, u, gated) - testing::oracle_activation(a, g - step, u, gated)) / (2 * step);
        const double slope_u = (testing::oracle_activation(a, g, u + step, gated) - testing::oracle_activation(a, g, u - step, gated)) / (2 * step);
        const double scale = std::abs(double{da[i]}) * (1 + std::abs(g)) * (gated ? 1 + std::abs(u) : 1);
        if (std::abs(g) > 2 * step && std::abs(g - 7) > 2 * step) EXPECT_NEAR(dg[i], da[i] * slope_g, 1e-6 * scale + 1e-12) << name_of(a) << " of " << g << ", " << u;
        if (gated && std::abs(std::abs(u) - 7) > 2 * step) EXPECT_NEAR(du[i], da[i] * slope_u, 1e-6 * scale + 1e-12) << name_of(a) << " of " << g << ", " << u;
      }
    }
}

// Of any values: rounding alone errs by 2^-8 of a result, and a sum of two by that of both.
TEST(Activation, RoundedOnesAreThoseToBfloat16) {
  const Points p;
  const std::size_t n = p.g.size();
  std::vector<float> da(n);
  for (std::size_t i = 0; i < n; ++i) da[i] = static_cast<float>(i % 5) - 2;
  for (const Activation a : kAll)
    for (const bool gated : {true, false}) {
      if (!gated && always_gated(a)) continue;
      const float scale = 0.75F, *u = gated ? p.u.data() : nullptr;
      std::vector<float> exact(n), out(n), dg(n), du(n);
      std::vector<Bfloat16> coarse(n), again(n), coarse_dg(n), coarse_du(n);
      activate(a, n, p.g.data(), u, exact.data());
      activate(a, n, p.g.data(), u, coarse.data());
      const float sum = activate_backward(a, n, p.g.data(), u, da.data(), scale, out.data(), dg.data(), gated ? du.data() : nullptr);
      const float coarse_sum = activate_backward(a, n, p.g.data(), u, da.data(), scale, again.data(), coarse_dg.data(), gated ? coarse_du.data() : nullptr);
      double magnitude = 0;
      const auto near = [](Bfloat16 of, float value) { return std::abs(widened(of) - value) <= std::abs(value) / 250 + 1e-4F; };
      for (std::size_t i = 0; i < n; ++i) {
        EXPECT_TRUE(near(coarse[i], exact[i])) << name_of(a) << " of " << p.g[i];
        EXPECT_TRUE(near(again[i], scale * exact[i]) && near(again[i], out[i])) << name_of(a) << " of " << p.g[i];
        EXPECT_TRUE(near(coarse_dg[i], dg[i])) << name_of(a) << " of " << p.g[i];
        EXPECT_TRUE(!gated || near(coarse_du[i], du[i])) << name_of(a) << " of " << p.g[i];
        magnitude += std::abs(double{exact[i]} * double{da[i]});
      }
      EXPECT_NEAR(sum, coarse_sum, 1e-5 * magnitude);
    }
}

TEST(Activation, SaturatesFarOut) {
  const float g[] = {-1e30F, -100.0F, 100.0F, 1e30F}, u[] = {1, 1, 1, 1};
  float a[4];
  Bfloat16 coarse[4];
  activate(Activation::swiglu, 4, g, u, a);
  activate(Activation::swiglu, 4, g, u, coarse);
  EXPECT_EQ(a[2], 100.0F);
  EXPECT_EQ(a[3], 1e30F);
  EXPECT_NEAR(a[1], 0, 1e-35);
  for (int i = 1; i < 4; ++i) EXPECT_EQ(coarse[i], rounded(a[i])) << i;
}

TEST(Bfloat16, IsTheNearestAndTiesToEven) {
  const float tie = 1.0F + 0x1p-8F, above = 1.0F + 0x1.8p-7F, infinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(widened(rounded(tie)), 1.0F);
  EXPECT_EQ(widened(rounded(above)), 1.0F + 0x1p-6F);
  EXPECT_EQ(widened(rounded(std::nextafter(tie, 2.0F))), 1.0F + 0x1p-7F);
  EXPECT_EQ(widened(rounded(-tie)), -1.0F);
  EXPECT_EQ(widened(rounded(infinity)), infinity);
  EXPECT_EQ(widened(rounded(std::numeric_limits<float>::max())), infinity);
  EXPECT_TRUE(std::isnan(widened(rounded(std::bit_cast<float>(0x7f800001U)))));
  EXPECT_TRUE(std::isnan(widened(rounded(std::bit_cast<float>(0x7fffffffU)))));
}

TEST(Activation, ClampsHaveNoSlopeOutside) {
  const float g[] = {7.5F, 1.0F, -9.0F}, u[] = {1.0F, 7.5F, -7.5F}, da[] = {1, 1, 1};
  float a[3], dg[3], du[3];
  activate_backward(Activation::clamped_swiglu, 3, g, u, da, 1.0F, a, dg, du);
  EXPECT_EQ(dg[0], 0.0F);
  EXPECT_EQ(du[1], 0.0F);
  EXPECT_NE(dg[2], 0.0F);  // g is clamped above only
  EXPECT_EQ(du[2], 0.0F);
}

TEST(Activation, NamesAreTheirOwn) {
  for (const Activation a : kAll) EXPECT_EQ(activation_from_name(name_of(a)), a);
}

}  // namespace
}  // namespace epsim
