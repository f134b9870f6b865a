#include "sim/train/text_model.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/rng.h"
#include "sim/train/dense.h"
#include "tests/support/part_from_yaml.h"

namespace epsim {
namespace {

using testing::part_from_yaml;

struct Case {
  TextModel model;
  TextModelWeights weights;
  TextBatch batch;

  Case(std::uint64_t seed, const std::string& router, const std::string& capacity, int top_k, std::int64_t shared_ffn) {
    TextModelShape& s = model.shape;
    s.layers = 2, s.taps = 3;
    s.moe.hidden = 6, s.moe.ffn = 5, s.moe.experts = 4, s.moe.shared_ffn = shared_ffn;
    Shape sizes;
    sizes.experts = 4, sizes.top_k = top_k, sizes.ranks = sizes.nodes = 1;
    s.moe.idle = part_from_yaml(builtin_routers(), router, &sizes).idle;
    model.moe = {s.moe, part_from_yaml(builtin_routers(), router, &sizes), part_from_yaml(builtin_capacities(), capacity, &sizes), {}};
    model.losses = {part_from_yaml(builtin_losses(), "balance: {coefficient: 0.3}", &sizes), part_from_yaml(builtin_losses(), "z: {coefficient: 0.05}", &sizes)};
    weights = make_weights(s, {seed, 1, false});
    Rng rng(seed, Stream::test);
    for (const TextModelTensor& t : tensors(s, weights))
      if (t.role == TextModelTensor::Role::gain)
        for (float& g : *t.values) g = static_cast<float>(0.5 + rng.uniform());
    batch.sequences = 2, batch.length = 7, batch.seed = seed, batch.training = true;
    for (int i = 0; i < 16; ++i) batch.bytes.push_back(static_cast<std::uint8_t>('a' + rng.below(5)));
  }

  double loss(const TextForward& f) const {
    double sum = f.cross_entropy;
    for (int l = 0; l < model.shape.layers; ++l)
      for (const Loss& each : model.losses) {
        const GateBatch gate = gate_batch(model, batch, f, l, {});
        sum += each.value({gate, f.blocks[static_cast<std::size_t>(l)].moe.routed, model.moe.router}, {});
      }
    return sum;
  }
};

bool same_choices(const TextForward& a, const TextForward& b) {
  for (std::size_t l = 0; l < a.blocks.size(); ++l)
    if (a.blocks[l].moe.routed.expert != b.blocks[l].moe.routed.expert || a.blocks[l].moe.routed.kept != b.blocks[l].moe.routed.kept) return false;
  return true;
}

// The model computes in float32, so steps are large: central differences are right to about 1e-5, and the gradients to a few parts in a thousand of the largest of their array.
TEST(TextModel, GradientsAreDifferenceQuotients) {
  std::uint64_t seed = 0;
  for (const auto& [router, capacity, top_k, shared_ffn] : {std::tuple{"topk", "dropless", 2, 0}, std::tuple{"topk: {score: sigmoid, renormalise: false}", "dropless", 1, 3},
                                                            std::tuple{"topk: {renormalise: false}", "megatron: {factor: 1}", 2, 3}, std::tuple{"zero_experts: {zero: 1, identity: 1, constant: 2}", "dropless", 3, 0}}) {
    Case c(++seed, router, capacity, top_k, shared_ffn);
    const TextForward f = forward(c.model, c.weights, c.batch);
    TextGradients grad = backward(c.model, c.weights, c.batch, f);
    EXPECT_NEAR(f.cross_entropy + grad.losses, c.loss(f), 1e-9);
    const auto weights = tensors(c.model.shape, c.weights), gradients = tensors(c.model.shape, grad.weights);
    ASSERT_EQ(weights.size(), gradients.size());
    Rng rng(seed, Stream::test, 1);
    int compared = 0;
    for (std::size_t a = 0; a < weights.size(); ++a) {
      ASSERT_EQ(weights[a].name, gradients[a].name);
      double largest = 0;
      for (const float g : *gradients[a].values) largest = std::max(largest, std::abs(double{g}));
      EXPECT_GT(largest, 1e-4) << weights[a].name;
      for (int i = 0; i < 6; ++i) {
        std::size_t at = rng.below(weights[a].values->size());
        if (weights[a].name == "embedding") at = static_cast<std::size_t>('a' + i % 5) * 6 + at % 6;  // of bytes that occur
        float& w = (*weights[a].values)[at];
        const float kept = w, step = 4e-3F;
        w = kept + step;
        const TextForward above = forward(c.model, c.weights, c.batch);
        const double high = c.loss(above), up = w;
        w = kept - step;
        const TextForward below = forward(c.model, c.weights, c.batch);
        const double low = c.loss(below), down = w;
        w = kept;
        if (!same_choices(f, above) || !same_choices(f, below)) continue;
        EXPECT_NEAR((*gradients[a].values)[at], (high - low) / (up - down), 4e-3 * largest + 3e-5) << router << ": " << weights[a].name << "[" << at << "]";
        ++compared;
      }
    }
    EXPECT_GT(compared, 100);
  }
}

TEST(TextModel, SeesNoByteBehindItsOwn) {
  Case c(9, "topk", "dropless", 2, 0);
  const TextForward f = forward(c.model, c.weights, c.batch);
  for (int changed = 1; changed < 8; ++changed) {
    TextBatch other = c.batch;
    other.bytes[static_cast<std::size_t>(changed)] = 'z';
    const TextForward g = forward(c.model, c.weights, other);
    for (std::int64_t t = 0; t < 14; ++t) {
      const bool same = std::equal(f.logits.begin() + t * kBytes, f.logits.begin() + (t + 1) * kBytes, g.logits.begin() + t * kBytes);
      EXPECT_EQ(same, t < changed || t >= 7) << "byte " << changed << ", token " << t;  // two layers of three taps see four bytes back: tokens changed to changed + 4
      if (t == std::min(changed + 4, 6)) t = 6;
    }
  }
}

TEST(Dense, RootMeanSquareNorm) {
  const std::vector<float> x = {3, 4, 0, 0, 1, 1, 1, 1}, gain = {1, 2, 1, 1};
  const Normed n = rms_norm(x, gain);
  EXPECT_NEAR(n.y[0], 3 / 2.5, 1e-6);  // root of 25 / 4
  EXPECT_NEAR(n.y[1], 2 * 4 / 2.5, 1e-6);
  EXPECT_NEAR(n.y[4], 1, 1e-6);
}

TEST(Dense, ConvolutionIsCausalAndStaysInItsSequence) {
  const std::vector<float> x = {1, 2, 3, 10, 20, 30}, kernel = {1, 100};  // two sequences of three, one channel; the second tap looks back
  EXPECT_EQ(convolved(x, 3, 1, kernel), (std::vector<float>{1, 102, 203, 10, 1020, 2030}));
}

TEST(Dense, CrossEntropyOfEvenLogitsIsTheLogarithm) {
  const std::vector<float> logits(2 * 8, 3.0F);
  const std::vector<std::uint8_t> classes = {1, 7};
  std::vector<float> d;
  EXPECT_NEAR(cross_entropy(logits, 8, classes, &d), std::log(8), 1e-12);
  EXPECT_NEAR(d[0], 1.0 / 8 / 2, 1e-7);
  EXPECT_NEAR(d[1], (1.0 / 8 - 1) / 2, 1e-7);
}

}  // namespace
}  // namespace epsim
