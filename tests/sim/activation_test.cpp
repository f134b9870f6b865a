#include "sim/moe/activation.h"

#include <gtest/gtest.h>

#include <cmath>

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
