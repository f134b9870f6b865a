// The serial reference of the backward pass against the layer that trains, which knows no plan, and against the definition.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "sim/moe/layer.h"
#include "sim/moe/reference.h"
#include "sim/moe/vectors.h"
#include "tests/support/random_case.h"

namespace epsim {
namespace {

using testing::RandomCase;

constexpr std::int64_t kHidden = 8, kFfn = 12;

std::vector<float> vectors(std::int64_t tokens, std::uint64_t seed) {
  std::vector<float> x(static_cast<std::size_t>(tokens * kHidden));
  for (std::int64_t t = 0; t < tokens; ++t) token_vector(seed, t, std::span(x).subspan(static_cast<std::size_t>(t * kHidden), kHidden));
  return x;
}

void load(int expert, ExpertBank& bank) { bank.add(expert, kFfn, make_expert_weights(1, 0, expert, kHidden, kFfn), ExpertBank::Passes::both); }

/// The layer of a plan: a router without logits that has made the plan's kept choices.
struct LayerOfPlan {
  MoeLayer layer;
  LayerWeights weights;

  explicit LayerOfPlan(const RandomCase& c) {
    const Routing& routing = c.plan.routing;
    layer.shape = {kHidden, kFfn, routing.experts, c.shared_expert ? kFfn : 0};
    layer.router.top_k = routing.top_k;
    layer.router.may_choose_fewer = true;
    layer.router.choose = [&plan = c.plan](const GateBatch&, std::span<std::int32_t> experts, std::span<float> w) {
      for (std::size_t i = 0; i < plan.slot.size(); ++i) {
        const bool kept = plan.slot[i] >= 0;
        experts[i] = kept ? plan.routing.expert[i] : -1, w[i] = kept ? plan.routing.weight[i] : 0;
      }
    };
    weights.gate.resize(static_cast<std::size_t>(kHidden * routing.experts));
    const auto append = [](ExpertWeights& to, const ExpertWeights& from) {
      to.w1.insert(to.w1.end(), from.w1.begin(), from.w1.end()), to.w3.insert(to.w3.end(), from.w3.begin(), from.w3.end()), to.w2.insert(to.w2.end(), from.w2.begin(), from.w2.end());
    };
    for (int e = 0; e < routing.experts; ++e) append(weights.experts, make_expert_weights(1, 0, e, kHidden, kFfn));
    if (c.shared_expert) append(weights.shared, make_expert_weights(1, 0, kSharedExpert, kHidden, kFfn));
  }
};

TEST(ReferenceBackward, GivesTheGradientsOfTheLayer) {
  int alone = 0, several = 0;
  for (std::uint64_t seed = 0; seed < 120; ++seed) {
    const RandomCase c(seed);
    SCOPED_TRACE(fmt::format("seed {}", seed));
    const std::int64_t tokens = c.plan.routing.tokens();
    const int k = c.plan.routing.top_k;
    const std::vector<float> x = vectors(tokens, 5), r = vectors(tokens, 6);
    ExpertBank bank(kHidden);
    const Exchange exchange = c.exchange("hierarchical");
    const PlanGradients got = reference_backward(c.plan, adding_order(exchange, c.plan, c.topology), c.shared_expert, x, r, bank, [&](int e) { load(e, bank); });

    const LayerOfPlan by_layer(c);
    const LayerTokens in{x, {}};
    const LayerForward forwards = forward(by_layer.layer, by_layer.weights, in);
    LayerGradients expected = backward(by_layer.layer, by_layer.weights, in, forwards, r);
    ASSERT_EQ(got.x.size(), expected.x.size());
    for (std::size_t i = 0; i < got.x.size(); ++i) ASSERT_NEAR(got.x[i], expected.x[i], 2e-5 * (1 + std::abs(expected.x[i])));

    const std::int64_t matrix = kHidden * kFfn;
    const auto compare = [&](const std::vector<float>& mine, const ExpertWeights& theirs, std::int64_t which, bool bits) {
      const FfnView v = view_of(theirs, by_layer.layer.shape.expert(), which);
      const float* parts[] = {v.w1, v.w3, v.w2};
      for (std::int64_t p = 0; p < 3; ++p)
        for (std::int64_t i = 0; i < matrix; ++i) {
          const float a = mine[static_cast<std::size_t>(p * matrix + i)], b = parts[p][i];
          if (bits)
            ASSERT_EQ(a, b);
          else
            ASSERT_NEAR(a, b, 2e-5 * (1 + std::abs(b)));
        }
    };
    for (int e = 0; e < c.plan.routing.experts; ++e) {
      // In one slot all rows of an expert are summed in one go, as the layer does it.
      const bool one = c.plan.placement.slots_of_expert[static_cast<std::size_t>(e)].size() == 1;
      compare(got.experts[static_cast<std::size_t>(e)], expected.weights.experts, e, one);
      ++(one ? alone : several);
    }
    ASSERT_EQ(got.shared.empty(), !c.shared_expert);
    if (c.shared_expert) compare(got.shared, expected.weights.shared, 0, false);

    // By definition the gradient of a choice's weight is FFN(x) . r.
    for (int e = 0; e < c.plan.routing.experts; ++e) load(e, bank);
    for (std::size_t i = 0; i < c.plan.slot.size(); ++i) {
      if (c.plan.slot[i] < 0) {
        ASSERT_EQ(got.d_weight[i], 0);
        continue;
      }
      const auto at = i / static_cast<std::size_t>(k) * kHidden;
      float y[kHidden];
      bank.forward(c.plan.routing.expert[i], std::span(x).subspan(at, kHidden), y);
      ASSERT_NEAR(got.d_weight[i], dot(y, r.data() + at, kHidden), 1e-5);
    }
  }
  EXPECT_GT(alone, 100);
  EXPECT_GT(several, 100);
}

}  // namespace
}  // namespace epsim
