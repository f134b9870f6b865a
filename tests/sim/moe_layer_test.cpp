#include "sim/moe/layer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include <fmt/format.h>

#include "base/npz.h"
#include "base/rng.h"
#include "policies/loss.h"
#include "sim/moe/layer_file.h"
#include "tests/support/moe_oracle.h"
#include "tests/support/part_from_yaml.h"
#include "tests/support/test_data.h"

namespace epsim {
namespace {

std::vector<float> random_values(Rng& rng, std::int64_t count, double bound) {
  std::vector<float> v(static_cast<std::size_t>(count));
  for (float& x : v) x = static_cast<float>((2 * rng.uniform() - 1) * bound);
  return v;
}

/// A layer of random weights and tokens.
struct Case {
  MoeLayer layer;
  LayerWeights weights;
  std::vector<float> x, r;

  struct Form {
    Activation activation = Activation::swiglu;
    bool gated = true, biased = false, weigh_input = false, linear_bias = false, shared = false, shared_gate = false;
  };

  Case(const Form& form, std::uint64_t seed, const std::string& router = "topk", const std::string& capacity = "dropless", int top_k = 2, std::int64_t tokens = 13) {
    Rng rng(seed, Stream::test);
    LayerShape& s = layer.shape;
    s.hidden = 5 + static_cast<std::int64_t>(rng.below(8)), s.ffn = 3 + static_cast<std::int64_t>(rng.below(9)), s.experts = 8;
    s.shared_ffn = form.shared ? 7 : 0;
    s.activation = form.activation, s.weigh_input = form.weigh_input;
    Shape shape;
    shape.experts = s.experts, shape.top_k = top_k, shape.ranks = shape.nodes = 1;
    layer.router = testing::part_from_yaml(builtin_routers(), router, &shape);
    layer.capacity = testing::part_from_yaml(builtin_capacities(), capacity, &shape);
    s.idle = layer.router.idle;
    for (const LayerTensor& t : tensors(s, weights)) {
      if (t.name.find("w3") != std::string::npos && !form.gated) continue;
      if (t.name == "linear_bias" ? !form.linear_bias : (t.name.find("b1") != std::string::npos || t.name.find("b2") != std::string::npos) && !form.biased) continue;
      if (t.name.find("b3") != std::string::npos && !(form.biased && form.gated)) continue;
      if (t.name.starts_with("shared_") && (!form.shared || (t.name == "shared_gate" && !form.shared_gate))) continue;
      std::int64_t count = 1;
      for (const std::int64_t n : t.shape) count *= n;
      *t.values = random_values(rng, count, t.name == "gate" ? 0.5 : 0.8);
    }
    x = random_values(rng, tokens * s.hidden, 1.5), r = random_values(rng, tokens * s.hidden, 1);
  }

  LayerTokens tokens() const { return {x, {}}; }
  LayerForward forward() const { return epsim::forward(layer, weights, tokens()); }
};

double largest(const std::vector<float>& v) {
  double most = 1e-3;
  for (const float x : v) most = std::max(most, std::abs(double{x}));
  return most;
}

double loss(const std::vector<double>& y, const std::vector<float>& r) {
  double sum = 0;
  for (std::size_t i = 0; i < y.size(); ++i) sum += y[i] * r[i];
  return sum;
}

std::vector<Case::Form> forms() {
  std::vector<Case::Form> out;
  for (const Activation a : {Activation::swiglu, Activation::clamped_swiglu, Activation::gelu, Activation::gelu_tanh, Activation::relu})
    for (const bool gated : {true, false})
      for (const bool biased : {false, true})
        if (gated || !always_gated(a)) out.push_back({a, gated, biased, false, biased, false, false});
  out.push_back({Activation::swiglu, true, false, true, false, true, false});             // Llama 4
  out.push_back({Activation::swiglu, true, false, false, false, true, true});             // Qwen2-MoE
  out.push_back({Activation::clamped_swiglu, true, true, true, true, true, true});        // everything at once
  out.push_back({Activation::gelu, false, true, false, false, true, false});
  return out;
}

TEST(MoeLayer, ForwardFollowsItsDefinition) {
  std::uint64_t seed = 0;
  for (const Case::Form& form : forms()) {
    const Case c(form, ++seed);
    const LayerForward f = c.forward();
    const testing::OracleLayer oracle(c.layer.shape, c.weights, c.x);
    const std::vector<double> logits = oracle.logits(), y = oracle.forward(f.routed, {f.routed.weight_after.begin(), f.routed.weight_after.end()});
    for (std::size_t i = 0; i < logits.size(); ++i) EXPECT_NEAR(f.logits[i], logits[i], 1e-6);
    for (std::size_t i = 0; i < y.size(); ++i) EXPECT_NEAR(f.y[i], y[i], 2e-6 * largest(f.y)) << "form " << seed;
  }
}

/// With the weights of choices held, central differences in double precision are right to about 1e-8.
void expect_gradients_of_experts(const Case& c, const std::string& name) {
  const LayerForward f = c.forward();
  LayerGradients grad = backward(c.layer, c.weights, c.tokens(), f, c.r);
  testing::OracleLayer oracle(c.layer.shape, c.weights, c.x);
  const std::vector<double> weight(f.routed.weight_after.begin(), f.routed.weight_after.end());
  const std::vector<LayerTensor> arrays = tensors(c.layer.shape, grad.weights);
  for (std::size_t a = 2; a < arrays.size(); ++a)  // the gate comes below
    for (std::size_t i = 0; i < arrays[a].values->size(); ++i) {
      double& place = oracle.weights[a][i];
      const double kept = place, step = 1e-5;
      place = kept + step;
      const double above = loss(oracle.forward(f.routed, weight), c.r);
      place = kept - step;
      const double below = loss(oracle.forward(f.routed, weight), c.r);
      place = kept;
      EXPECT_NEAR((*arrays[a].values)[i], (above - below) / (2 * step), 3e-6 * largest(*arrays[a].values)) << name << ", " << arrays[a].name << "[" << i << "]";
    }
}

TEST(MoeLayer, GradientsOfExpertsAreDifferenceQuotients) {
  std::uint64_t seed = 100;
  for (const Case::Form& form : forms()) {
    ++seed;
    expect_gradients_of_experts(Case(form, seed), fmt::format("form {}", seed));
  }
}

struct Routers {
  const char *router, *capacity;
  int top_k;
};

/// Through the gate: the router computes in float32, so steps are larger and agreement is to a few parts in a thousand.
void expect_gradients_through_the_gate(const Case& c, const std::string& name) {
  const LayerForward f = c.forward();
  const LayerGradients grad = backward(c.layer, c.weights, c.tokens(), f, c.r);
  testing::OracleLayer oracle(c.layer.shape, c.weights, c.x);
  int compared = 0;
  const auto check = [&](std::vector<double>& values, const std::vector<float>& gradient, const char* array) {
    for (std::size_t i = 0; i < values.size(); ++i) {
      const double kept = values[i], step = 2e-3;
      bool same = true;
      const auto value = [&](double at) {
        values[i] = at;
        const std::vector<double> exact = oracle.logits();
        const std::vector<float> logits(exact.begin(), exact.end());
        const Routed routed = route_batch(c.layer.router, c.layer.capacity, gate_batch(c.layer, c.tokens(), logits));
        same = same && routed.expert == f.routed.expert && routed.kept == f.routed.kept;
        return loss(oracle.forward(routed, {routed.weight_after.begin(), routed.weight_after.end()}), c.r);
      };
      const double above = value(kept + step), below = value(kept - step);
      values[i] = kept;
      if (!same) continue;  // another choice: not differentiable here
      ++compared;
      EXPECT_NEAR(gradient[i], (above - below) / (2 * step), 3e-3 * largest(gradient)) << name << ", " << array << "[" << i << "]";
    }
  };
  check(oracle.weights[0], grad.weights.gate, "gate");
  check(oracle.weights[1], grad.weights.linear_bias, "linear_bias");
  check(oracle.x, grad.x, "x");
  EXPECT_GT(compared, static_cast<int>(c.x.size()));
}

TEST(MoeLayer, GradientsThroughTheGateAreDifferenceQuotients) {
  std::uint64_t seed = 200;
  for (const Routers& r : {Routers{"topk", "dropless", 2}, {"topk: {score: softmax_after}", "dropless", 3}, {"topk: {score: sigmoid, renormalise: false}", "dropless", 1},
                           {"grouped_topk: {groups: 4, groups_kept: 2, scale: 2.5}", "dropless", 3}, {"topk: {renormalise: false}", "megatron: {factor: 1}", 2}, {"topk: {renormalise: false}", "deepspeed: {factor: 0.75, min_capacity: 1}", 2}})
    for (const Case::Form& form : {Case::Form{}, Case::Form{Activation::swiglu, true, false, true, true, true, true}, Case::Form{Activation::gelu, false, true}}) {
      ++seed;
      expect_gradients_through_the_gate(Case(form, seed, r.router, r.capacity, r.top_k), fmt::format("{}, form {}", r.router, seed));
    }
}

// MoE++: zero experts give nothing, identity ones the token, constant ones a vector mixed with it; others are LongCat-Flash's.
TEST(MoeLayer, ExpertsThatComputeNothingFollowTheirDefinition) {
  std::uint64_t seed = 250;
  for (const Routers& r : {Routers{"zero_experts: {zero: 2, identity: 1, constant: 2}", "dropless", 2}, {"zero_experts: {zero: 1, identity: 3, constant: 3}", "megatron: {factor: 1/2}", 3},
                           {"zero_experts: {identity: 6, renormalise: false, scale: 6}", "dropless", 3}, {"zero_experts: {constant: 4, score: softmax_after}", "deepspeed: {factor: 0.75, min_capacity: 1}", 2}}) {
    const Case c({Activation::swiglu, true, false, false, true, true, true}, ++seed, r.router, r.capacity, r.top_k, 17);
    SCOPED_TRACE(r.router);
    const LayerForward f = c.forward();
    EXPECT_GT(std::ranges::count_if(f.routed.expert, [](std::int32_t e) { return e >= 8; }), 4);
    const testing::OracleLayer oracle(c.layer.shape, c.weights, c.x);
    const std::vector<double> y = oracle.forward(f.routed, {f.routed.weight_after.begin(), f.routed.weight_after.end()});
    for (std::size_t i = 0; i < y.size(); ++i) EXPECT_NEAR(f.y[i], y[i], 2e-6 * largest(f.y));
    expect_gradients_of_experts(c, r.router);
    expect_gradients_through_the_gate(c, r.router);
  }
}

/// All that a layer gives, in one row of numbers.
std::vector<float> everything(const Case& c) {
  const LayerForward f = c.forward();
  LayerGradients grad = backward(c.layer, c.weights, c.tokens(), f, c.r);
  std::vector<float> all = f.y;
  all.insert(all.end(), grad.x.begin(), grad.x.end());
  for (const LayerTensor& t : tensors(c.layer.shape, grad.weights)) all.insert(all.end(), t.values->begin(), t.values->end());
  return all;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) { return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0; }

// I5: the same bytes for any number of threads.
TEST(MoeLayer, SameBitsForAnyNumberOfThreads) {
  const Case c({Activation::swiglu, true, true, false, true, true, true}, 300, "topk", "dropless", 2, 1500);
  std::vector<std::vector<float>> results;
  for (const char* threads : {"1", "2", "5"}) {
    setenv("EPSIM_THREADS", threads, 1);
    results.push_back(everything(c));
  }
  unsetenv("EPSIM_THREADS");
  EXPECT_TRUE(same_bits(results[0], results[1]));
  EXPECT_TRUE(same_bits(results[0], results[2]));
}

// I7 rests on this: a token's result and its gradient are the same bits whatever else is in the batch.
TEST(MoeLayer, TokenAloneEqualsTokenInBatch) {
  const Case c({Activation::swiglu, true, true, false, true, true, true}, 301, "topk", "dropless", 2, 200);
  const std::size_t h = static_cast<std::size_t>(c.layer.shape.hidden);
  const LayerForward all = c.forward();
  const LayerGradients grad = backward(c.layer, c.weights, c.tokens(), all, c.r);
  for (std::size_t t = 0; t < 200; t += 7) {
    const std::span<const float> x = std::span(c.x).subspan(t * h, h), r = std::span(c.r).subspan(t * h, h);
    const LayerForward one = forward(c.layer, c.weights, {x, {}});
    const LayerGradients mine = backward(c.layer, c.weights, {x, {}}, one, r);
    EXPECT_EQ(std::memcmp(one.y.data(), all.y.data() + t * h, h * sizeof(float)), 0) << t;
    EXPECT_EQ(std::memcmp(mine.x.data(), grad.x.data() + t * h, h * sizeof(float)), 0) << t;
  }
}

TEST(MoeLayer, GradientsToTheLogitsAreAdded) {
  const Case c({}, 302);
  const LayerForward f = c.forward();
  std::vector<float> dlogits(f.logits.size());
  dlogits[3] = 2;  // token 0, expert 3
  const std::vector<float> none(c.x.size());
  const LayerGradients grad = backward(c.layer, c.weights, c.tokens(), f, none, dlogits);
  for (std::int64_t i = 0; i < c.layer.shape.hidden; ++i) {
    EXPECT_FLOAT_EQ(grad.x[static_cast<std::size_t>(i)], 2 * c.weights.gate[static_cast<std::size_t>(i * 8 + 3)]);
    EXPECT_FLOAT_EQ(grad.weights.gate[static_cast<std::size_t>(i * 8 + 3)], 2 * c.x[static_cast<std::size_t>(i)]);
  }
}

// bfloat16 has 8 bits: each of the two or three products in a row rounds both factors by up to 2^-9, so results differ from float32's by about 1 % of the largest.
TEST(MoeLayer, Bfloat16IsWithinItsRounding) {
  std::uint64_t seed = 400;
  for (const Case::Form& form : forms()) {
    Case c(form, ++seed, "topk", "dropless", 2, 100);
    const std::vector<float> exact = everything(c);
    c.layer.shape.precision = Precision::bf16;
    const std::vector<float> coarse = everything(c);
    EXPECT_FALSE(same_bits(exact, coarse));
    // The gradient of relu jumps at 0: a row next to that may change the gradients of one inner unit, of the row and of its choice.
    const std::int64_t may_jump = form.activation == Activation::relu ? 2 * (c.layer.shape.hidden + 1) : 0;
    std::int64_t far = 0;
    for (std::size_t i = 0; i < exact.size(); ++i) far += std::abs(coarse[i] - exact[i]) > 0.02 * largest(exact);
    EXPECT_LE(far, may_jump) << "form " << seed;
  }
}

TEST(MoeLayer, Bfloat16HasTheSameBitsForAnyNumberOfThreadsAndForATokenAlone) {
  Case c({Activation::swiglu, true, true, false, true, true, true}, 304, "topk", "dropless", 2, 1500);
  c.layer.shape.precision = Precision::bf16;
  setenv("EPSIM_THREADS", "1", 1);
  const std::vector<float> one = everything(c);
  setenv("EPSIM_THREADS", "3", 1);
  EXPECT_TRUE(same_bits(one, everything(c)));
  unsetenv("EPSIM_THREADS");
  const std::size_t h = static_cast<std::size_t>(c.layer.shape.hidden);
  const LayerForward all = c.forward();
  const LayerGradients grad = backward(c.layer, c.weights, c.tokens(), all, c.r);
  for (std::size_t t = 0; t < 1500; t += 131) {
    const std::span<const float> x = std::span(c.x).subspan(t * h, h), r = std::span(c.r).subspan(t * h, h);
    const LayerForward alone = forward(c.layer, c.weights, {x, {}});
    const LayerGradients mine = backward(c.layer, c.weights, {x, {}}, alone, r);
    EXPECT_EQ(std::memcmp(alone.y.data(), all.y.data() + t * h, h * sizeof(float)), 0) << t;
    EXPECT_EQ(std::memcmp(mine.x.data(), grad.x.data() + t * h, h * sizeof(float)), 0) << t;
  }
}

/// What a framework's own block gives, in float32 and in double; settings that say what its framework does.
struct Block {
  std::string name, router, capacity;
  int top_k;
  Activation activation;
  std::string loss;
};

TEST(MoeLayer, GivesWhatFrameworksGive) {
  const std::string folder = test_data() + "/moe_blocks/";
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << "no " << folder;
  for (const Block& b : std::vector<Block>{
           {"block_mixtral_e8k2", "topk", "dropless", 2, Activation::swiglu, ""},
           {"block_deepseekv3_e32k4_g8t4", "grouped_topk: {groups: 8, groups_kept: 4, masked: zero, scale: 2.5}", "dropless", 4, Activation::swiglu, ""},
           {"block_megatron_drop_probs_cf1.0", "topk: {score: softmax_after}", "megatron: {factor: 1}", 2, Activation::swiglu, ""},
           {"block_deepspeed_top2_gelu_cf0.75", "topk: {renormalise: false}", "deepspeed: {factor: 0.75}", 2, Activation::gelu, "balance: {count: first, coefficient: 2}"},
       }) {
    SCOPED_TRACE(b.name);
    const auto file = read_text(folder + b.name + ".npz");
    const LayerFile in = read_layer_file(file, b.activation);
    MoeLayer layer;
    layer.shape = in.shape;
    layer.shape.activation = b.activation;
    Shape shape;
    shape.experts = in.shape.experts, shape.top_k = b.top_k, shape.ranks = shape.nodes = 1;
    layer.router = testing::part_from_yaml(builtin_routers(), b.router, &shape);
    layer.capacity = testing::part_from_yaml(builtin_capacities(), b.capacity, &shape);
    LayerTokens tokens{in.x, {}};
    tokens.batch.bias = in.bias;
    const LayerForward f = forward(layer, in.weights, tokens);
    std::vector<float> dlogits(b.loss.empty() ? 0 : f.logits.size());
    const GateBatch batch = gate_batch(layer, tokens, f.logits);
    if (!b.loss.empty()) testing::part_from_yaml(builtin_losses(), b.loss, &shape).value({batch, f.routed, layer.router}, dlogits);
    LayerGradients grad = backward(layer, in.weights, tokens, f, in.r, dlogits);
    const auto results = read_npz(std::make_shared<SourceText>(SourceText{"results", layer_results(in, f, &grad)})), expected = read_npz(file);
    int compared = 0;
    for (const auto& [name, array] : results)
      for (const std::string& other : {name, name + "_f64"}) {
        if (!expected.contains(other)) continue;
        ++compared;
        const NpyArray& theirs = expected.at(other);
        EXPECT_EQ(array.integers, theirs.integers) << other;
        ASSERT_EQ(array.floats.size(), theirs.floats.size()) << other;
        double most = 0, error = 0;
        for (std::size_t i = 0; i < array.floats.size(); ++i) most = std::max(most, std::abs(theirs.floats[i])), error = std::max(error, std::abs(array.floats[i] - theirs.floats[i]));
        EXPECT_LE(error, 2e-6 * most) << other;
      }
    EXPECT_GE(compared, 14);
  }
}

}  // namespace
}  // namespace epsim
