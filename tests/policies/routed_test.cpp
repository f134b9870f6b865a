// Batches through routers and capacities as the frameworks' own code gives them, and the gradients by finite differences.
#include "policies/routed.h"

#include <fmt/format.h>
#include <gmock/gmock.h>

#include <cmath>
#include <filesystem>
#include <functional>

#include "base/npz.h"
#include "base/rng.h"
#include "policies/loss.h"
#include "tests/support/part_from_yaml.h"
#include "tests/support/test_data.h"

namespace epsim {
namespace {

using testing::part_from_yaml;

std::vector<float> floats(const NpyArray& a) { return {a.floats.begin(), a.floats.end()}; }

/// A reference case: parts that say what its framework does.
struct Case {
  std::string name, router, capacity;
  int top_k = 1, experts = 0;
  std::vector<std::int64_t> size = {};  ///< capacity of each block
};

/// A reference case's file, and its logits through its parts. Stays where it was made: the batch points into it.
struct RoutedCase {
  RoutedCase(std::map<std::string, NpyArray> file, const std::string& router_yaml, const std::string& capacity_yaml, int top_k, int experts) : arrays(std::move(file)), logits(floats(arrays.at("logits"))) {
    shape.experts = experts, shape.top_k = top_k, shape.ranks = shape.nodes = 1;
    router = part_from_yaml(builtin_routers(), router_yaml, &shape);
    batch.experts = experts, batch.tokens = static_cast<std::int64_t>(logits.size()) / experts, batch.logits = logits;
    if (arrays.contains("bias")) batch.bias = bias = floats(arrays.at("bias"));
    routed = route_batch(router, part_from_yaml(builtin_capacities(), capacity_yaml, &shape), batch);
  }
  RoutedCase(const RoutedCase&) = delete;

  std::map<std::string, NpyArray> arrays;
  std::vector<float> logits, bias;
  Shape shape;
  Router router;
  GateBatch batch;
  Routed routed;
};

class Frameworks : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!std::filesystem::exists(folder_)) GTEST_SKIP() << "no " << folder_;
  }
  std::map<std::string, NpyArray> arrays(const std::string& name) const { return read_npz(read_text(folder_ + name + ".npz")); }

  void agrees(const Case& c) const {
    SCOPED_TRACE(c.name);
    const RoutedCase of(arrays(c.name), c.router, c.capacity, c.top_k, c.experts);
    const auto& a = of.arrays;
    const Routed& r = of.routed;
    ASSERT_EQ(r.top_k, c.top_k);
    const auto& ids = a.at("expert_ids").integers;
    EXPECT_TRUE(std::equal(r.expert.begin(), r.expert.end(), ids.begin(), ids.end())) << "expert ids";
    if (a.contains("kept")) {
      const auto& kept = a.at("kept").integers;
      EXPECT_TRUE(std::equal(r.kept.begin(), r.kept.end(), kept.begin(), kept.end())) << "kept";
    }
    const auto close = [&](const std::string& array, const std::vector<float>& got) {
      if (!a.contains(array)) return;
      const std::vector<float> expected = floats(a.at(array));
      ASSERT_EQ(got.size(), expected.size()) << array;
      const float largest = *std::ranges::max_element(expected);
      for (std::size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], expected[i], 2e-6 * largest) << array << " " << i;
    };
    close("weights", r.weight), close("weights_after", r.weight_after);
    EXPECT_EQ(r.capacity, c.size);
    if (a.contains("position")) {
      const auto& position = a.at("position").integers;
      for (std::size_t i = 0; i < position.size(); ++i) {
        if (r.kept[i]) {
          ASSERT_EQ(r.position[i], position[i]) << i;
        }
      }
    }
  }

  std::string folder_ = test_data() + "/routers/";
};

TEST_F(Frameworks, TopkAndGroupsWithoutCapacity) {
  for (const Case& c : std::vector<Case>{
           {"dsv3_v3_e256k8_g8t4", "grouped_topk: {groups: 8, groups_kept: 4, scale: 2.5}", "dropless", 8, 256},
           {"hf_kimik2_e384k8", "grouped_topk: {groups: 1, groups_kept: 1, masked: zero, scale: 2.827}", "dropless", 8, 384},
           {"hf_deepseekv2_e160k6_g8t3", "grouped_topk: {groups: 8, groups_kept: 3, score: softmax, group_score: max, masked: zero, renormalise: false, scale: 16}", "dropless", 6, 160},
           {"mcore_sigmoid_bias_e64k8_g8t2", "grouped_topk: {groups: 8, groups_kept: 2, group_score: share}", "dropless", 8, 64},
           {"hf_mixtral_e8k2", "topk", "dropless", 2, 8},
           {"hf_gptoss_e32k4", "topk: {score: softmax_after}", "dropless", 4, 32},
           {"hf_qwen2moe_e60k4", "topk: {renormalise: false}", "dropless", 4, 60},
           {"hf_llama4_e16k1", "topk: {score: sigmoid, renormalise: false}", "dropless", 1, 16},
           {"mcore_softmax_post_e64k6", "topk: {score: softmax_after}", "dropless", 6, 64},
           {"deepseekv2_gate_seq_aux", "topk: {renormalise: false}", "dropless", 6, 64}})
    agrees(c);
}

TEST_F(Frameworks, Megatron) {
  agrees({"mcore_drop_probs_cf1.25_e8k2", "topk: {renormalise: false}", "megatron: {factor: 1.25}", 2, 8, {63}});
  agrees({"mcore_drop_position_cf1.0_e64k6", "topk: {score: softmax_after}", "megatron: {factor: 1, order: position}", 6, 64, {48}});
  agrees({"mcore_drop_probs_pad_cf1.0_e16k2", "topk: {score: softmax_after}", "megatron: {factor: 1, overflow: pad}", 2, 16, {16}});
}

TEST_F(Frameworks, DeepSpeed) {
  const std::string raw = "topk: {renormalise: false}";
  agrees({"ds_top1_cf1.0_e16", raw, "deepspeed: {factor: 1, order: position}", 1, 16, {16}});
  agrees({"ds_top2_cf0.5_e8", raw, "deepspeed: {factor: 0.5}", 2, 8, {32}});
  agrees({"ds_topk_probs_cf1.0_e64k6", raw, "deepspeed: {factor: 1, min_capacity: 8}", 6, 64, {48}});
}

TEST_F(Frameworks, TutelFastMoeMegaBlocksAndNllb) {
  agrees({"tutel_cf1.25_e60k4", "topk", "tutel: {factor: 1.25}", 4, 60, {24}});
  agrees({"tutel_dynamic_limit_e16k2", "topk", "tutel: {factor: 1.25, limit: at_most}", 2, 16, {20}});
  agrees({"fastmoe_gshard_e16", "topk", "fastmoe: {factor: 1.2}", 2, 16, {38}});
  agrees({"megablocks_cf1.25_e60k4", "topk", "megablocks: {form: moe, factor: 1.25}", 4, 60, {25}});
  agrees({"hf_nllb_top2_norm_after", "topk: {renormalise: false}", "nllb", 2, 16, {32}});
}

TEST_F(Frameworks, GroupsOfTokens) {
  agrees({"stmoe_top2_cf1.25_e8", "topk", "mesh_tf: {factor: 1.25, group: 64}", 2, 8, {10, 10, 10, 10}});
  agrees({"flaxformer_k1_cf1.25_e8", "topk: {renormalise: false}", "flaxformer: {factor: 1.25, group: 64}", 1, 8, {10, 10, 10, 10}});
  agrees({"vmoe_k2_cf0.5_e8_bpr", "topk: {renormalise: false}", "vmoe: {factor: 0.5, order: priority}", 2, 8, {28}});
}

TEST_F(Frameworks, Sinkhorn) {
  const auto a = arrays("mcore_sinkhorn_e16k1");
  const std::vector<float> logits = floats(a.at("logits"));
  Shape shape;
  shape.experts = 16, shape.top_k = 1, shape.ranks = shape.nodes = 1;
  const Router router = part_from_yaml(builtin_routers(), "sinkhorn", &shape);
  for (const bool training : {true, false}) {
    GateBatch batch;
    batch.experts = 16, batch.tokens = 256, batch.logits = logits, batch.training = training;
    const Routed r = route_batch(router, {}, batch);
    const auto& ids = a.at(training ? "expert_ids" : "eval_expert_ids").integers;
    EXPECT_TRUE(std::equal(r.expert.begin(), r.expert.end(), ids.begin(), ids.end())) << training;
    const std::vector<float> weights = floats(a.at(training ? "weights" : "eval_weights"));
    for (std::size_t i = 0; i < weights.size(); ++i) ASSERT_NEAR(r.weight[i], weights[i], 2e-6) << training << " " << i;
  }
}

TEST_F(Frameworks, ExpertChoice) {
  const auto a = arrays("vmoe_expert_choice_e16_cf2");
  const std::vector<float> logits = floats(a.at("logits"));
  Shape shape;
  shape.experts = 16, shape.top_k = 2, shape.ranks = shape.nodes = 1;
  const Router router = part_from_yaml(builtin_routers(), "expert_choice: {factor: 2}", &shape);
  GateBatch batch;
  batch.experts = 16, batch.tokens = 128, batch.logits = logits;
  const Routed r = route_batch(router, {}, batch);
  const auto& expected = a.at("tokens_of_expert").integers;
  const std::vector<float> weights = floats(a.at("weights_of_expert"));
  std::vector<std::int64_t> per_token(128);
  for (std::size_t e = 0; e < 16; ++e) {
    std::vector<std::pair<float, std::int64_t>> mine;
    for (std::int64_t t = 0; t < 128; ++t)
      for (int i = 0; i < r.top_k; ++i)
        if (r.expert[static_cast<std::size_t>(t * r.top_k + i)] == static_cast<std::int32_t>(e)) mine.emplace_back(-r.weight[static_cast<std::size_t>(t * r.top_k + i)], t), ++per_token[static_cast<std::size_t>(t)];
    std::ranges::sort(mine);
    ASSERT_EQ(mine.size(), 16U);
    for (std::size_t i = 0; i < 16; ++i) {
      EXPECT_EQ(mine[i].second, expected[e * 16 + i]);
      EXPECT_NEAR(-mine[i].first, weights[e * 16 + i], 2e-6);
    }
  }
  EXPECT_EQ(per_token, a.at("experts_per_token").integers);
}

TEST_F(Frameworks, BiasUpdate) {
  const auto a = arrays("mcore_expert_bias_update");
  const std::vector<float> bias = floats(a.at("bias")), after = floats(a.at("bias_after"));
  const auto& counts = a.at("tokens_per_expert").integers;
  for (std::size_t layer = 0; layer < 3; ++layer) {
    const std::vector<float> next = updated_bias(std::span(counts).subspan(layer * 64, 64), std::span(bias).subspan(layer * 64, 64), 1e-3);
    for (std::size_t e = 0; e < 64; ++e) EXPECT_NEAR(next[e], after[layer * 64 + e], 1e-7);
  }
}

/// A loss of a reference case: the part, the scalar it must give, and the array of its gradient.
struct LossCase {
  std::string name, router, capacity, loss;
  int top_k = 1, experts = 0;
  double value = 0;
  std::string gradient = {}, earlier = {}, mask = {};
};

class Losses : public Frameworks {
 protected:
  void agrees(const LossCase& c) const {
    SCOPED_TRACE(c.name + " " + c.loss);
    RoutedCase of(arrays(c.name), c.router, c.capacity, c.top_k, c.experts);
    const auto& a = of.arrays;
    std::vector<std::uint8_t> counted;
    if (!c.mask.empty()) {
      const auto& mask = a.at(c.mask).integers;
      for (std::int64_t t = 0; t < of.batch.tokens; ++t) counted.push_back(mask[static_cast<std::size_t>(t) % mask.size()] != 0);
      of.batch.counted = counted;
    }
    std::vector<float> earlier, gradient(of.logits.size());
    if (!c.earlier.empty()) earlier = floats(a.at(c.earlier));
    const Loss loss = part_from_yaml(builtin_losses(), c.loss, &of.shape);
    EXPECT_NEAR(loss.value({of.batch, of.routed, of.router, earlier, earlier.empty() ? 0 : 1}, gradient), c.value, 1e-5 * c.value);
    if (c.gradient.empty()) return;
    const std::vector<float> expected = floats(a.at(c.gradient));
    float largest = 0;
    for (const float g : expected) largest = std::max(largest, std::abs(g));
    for (std::size_t i = 0; i < expected.size(); ++i) ASSERT_NEAR(gradient[i], expected[i], 1e-5 * largest) << i;
  }
};

// The values are the scalars of the cases' descriptions.
TEST_F(Losses, OfTheFrameworks) {
  const std::string raw = "topk: {renormalise: false}";
  agrees({"ds_top1_cf1.0_e16", raw, "dropless", "balance: {count: first}", 1, 16, 1.2370123863220215, "grad_aux_loss"});
  agrees({"ds_top2_cf0.5_e8", raw, "dropless", "balance: {count: first}", 2, 8, 1.1244829893112183, "grad_aux_loss"});
  agrees({"ds_topk_probs_cf1.0_e64k6", raw, "dropless", "balance", 6, 64, 1.2571276426315308, "grad_aux_loss"});
  agrees({"deepseekv2_gate_seq_aux", raw, "dropless", "balance: {sequences: 4, coefficient: 0.003}", 6, 64, 0.003544171340763569});
  agrees({"fastmoe_gshard_e16", "topk", "dropless", "balance: {count: first}", 2, 16, 1.5520200682276588});
  agrees({"flaxformer_k1_cf1.25_e8", raw, "dropless", "balance: {sequences: 4}", 1, 8, 1.149781584739685});
  agrees({"flaxformer_k1_cf1.25_e8", raw, "dropless", "z", 1, 8, 8.228351593017578});
  agrees({"hf_load_balancing_loss", raw, "dropless", "balance: {over: tokens}", 4, 16, 4.441705703735352, "grad_unmasked"});
  agrees({"hf_load_balancing_loss", raw, "dropless", "balance: {over: tokens}", 4, 16, 4.427984714508057, "grad_masked", "", "attention_mask"});
  agrees({"mcore_aux_softmax_e16k2", raw, "dropless", "balance: {count: plain, coefficient: 0.01}", 2, 16, 0.014017432928085327, "grad_aux_loss"});
  agrees({"mcore_aux_softmax_e16k2", raw, "dropless", "balance: {count: plain, coefficient: 0.01, sequences: 4, layout: position_major}", 2, 16, 0.014287248253822327, "grad_seq_aux_loss"});
  agrees({"mcore_aux_softmax_e16k2", raw, "dropless", "balance: {count: plain, coefficient: 0.01}", 2, 16, 0.012113422155380249, "grad_global_aux_loss", "global_previous_tokens_per_expert"});
  agrees({"mcore_aux_softmax_e16k2", raw, "dropless", "z: {coefficient: 0.001}", 2, 16, 0.011784515343606472, "grad_z_loss"});
  agrees({"megablocks_cf1.25_e60k4", "topk", "dropless", "balance", 4, 60, 1.0784627199172974});
  agrees({"stmoe_top2_cf1.25_e8", "topk", "mesh_tf: {factor: 1.25, group: 64}", "balance: {count: kept_first, sequences: 4}", 2, 8, 0.9774457216262817});
  agrees({"stmoe_top2_cf1.25_e8", "topk", "dropless", "z", 2, 8, 7.928263187408447});
  agrees({"tutel_cf1.25_e60k4", "topk", "dropless", "balance: {count: first}", 4, 60, 1.4989827871322632});
  agrees({"tutel_dynamic_limit_e16k2", "topk", "dropless", "balance: {count: first}", 2, 16, 1.2187163829803467});
  agrees({"vmoe_k2_cf0.5_e8_bpr", raw, "dropless", "balance: {count: first}", 2, 8, 1.2109030552208422});
  agrees({"vmoe_k2_cf0.5_e8_bpr", raw, "dropless", "importance: {of: scores}", 2, 8, 0.13587888684219251});
}

std::vector<float> random_logits(int tokens, int experts, std::uint64_t seed, double spread = 1) {
  std::vector<float> logits;
  Rng rng(seed, Stream::test);
  for (int i = 0; i < tokens * experts; ++i) logits.push_back(static_cast<float>(spread * rng.normal()));
  return logits;
}

/// dL/dlogits by central differences, L in double of float32 weights; a logit that changes a choice when moved gives nothing to compare.
void expect_gradient(const std::string& what, std::vector<float> logits, int experts, const std::function<double(const GateBatch&)>& value, const std::function<std::vector<std::int32_t>(const GateBatch&)>& choices,
                     const std::vector<float>& gradient, bool training) {
  SCOPED_TRACE(what);
  GateBatch batch;
  batch.experts = experts, batch.tokens = static_cast<std::int64_t>(logits.size()) / experts, batch.logits = logits, batch.training = training;
  const auto chosen = choices(batch);
  double largest = 1e-3;
  for (const float g : gradient) largest = std::max(largest, std::abs(double{g}));
  int compared = 0;
  for (std::size_t i = 0; i < logits.size(); i += 7) {
    const float before = logits[i], step = 1.0F / 64;
    logits[i] = before + step;
    const double up = value(batch);
    const bool same = choices(batch) == chosen;
    logits[i] = before - step;
    const double down = value(batch);
    const bool both = same && choices(batch) == chosen;
    logits[i] = before;
    if (!both) continue;
    ++compared;
    ASSERT_NEAR(gradient[i], (up - down) / (2 * double{step}), 5e-3 * largest) << i;
  }
  EXPECT_GT(compared, 10);
}

TEST(RouteBackward, IsTheDerivativeOfWhatTheCombineTakes) {
  constexpr int kExperts = 16;
  for (const auto& [router_yaml, capacity_yaml] : std::vector<std::pair<std::string, std::string>>{
           {"topk", "dropless"},
           {"topk: {renormalise: false}", "megatron: {factor: 0.75}"},
           {"topk: {renormalise: false}", "deepspeed: {factor: 0.5}"},
           {"topk: {renormalise: false, scale: 2}", "nllb"},
           {"topk: {score: softmax_after, scale: 3}", "tutel: {factor: 1}"},
           {"topk: {score: sigmoid}", "dropless"},
           {"topk: {score: sqrt_softplus, scale: 1.5}", "dropless"},
           {"topk: {norm: 2}", "dropless"},
           {"topk: {jitter: 0.1}", "dropless"},
           {"grouped_topk: {groups: 4, groups_kept: 2, scale: 2.5}", "dropless"},
           {"noisy_topk", "dropless"},
           {"gshard: {second: mesh}", "dropless"},
           {"zero_experts: {zero: 4}", "dropless"},
           {"phimoe: {jitter: 1}", "dropless"},
           {"top_p: {p: 0.6}", "dropless"}}) {
    Shape shape;
    shape.experts = router_yaml.starts_with("zero") ? kExperts - 4 : kExperts, shape.top_k = 2, shape.ranks = shape.nodes = 1;
    const Router router = part_from_yaml(builtin_routers(), router_yaml, &shape);
    const Capacity capacity = part_from_yaml(builtin_capacities(), capacity_yaml, &shape);
    const std::vector<float> logits = random_logits(24, kExperts, 5);
    GateBatch batch;
    batch.experts = kExperts, batch.tokens = 24, batch.logits = logits, batch.training = true;
    const Routed routed = route_batch(router, capacity, batch);
    std::vector<float> d(routed.weight.size()), gradient(logits.size());
    Rng rng(9, Stream::test);
    for (float& x : d) x = static_cast<float>(rng.normal());
    route_backward(router, capacity, batch, routed, d, gradient);
    expect_gradient(
        router_yaml + ", " + capacity_yaml, logits, kExperts,
        [&](const GateBatch& b) {
          const Routed r = route_batch(router, capacity, b);
          double sum = 0;
          for (std::size_t i = 0; i < d.size(); ++i) sum += double{d[i]} * double{r.weight_after[i]};
          return sum;
        },
        [&](const GateBatch& b) {
          Routed r = route_batch(router, capacity, b);
          for (std::size_t i = 0; i < r.expert.size(); ++i)
            if (!r.kept[i]) r.expert[i] = -2;
          return r.expert;
        },
        gradient, true);
  }
}

Routed route_by(const std::string& router, const std::string& capacity, const std::vector<float>& logits, int columns, int experts, int top_k, int ranks = 1) {
  Shape shape;
  shape.experts = experts, shape.top_k = top_k, shape.ranks = ranks, shape.nodes = 1;
  GateBatch batch;
  batch.experts = columns, batch.tokens = static_cast<std::int64_t>(logits.size()) / columns, batch.logits = logits;
  std::vector<std::int64_t> first;
  for (int r = 0; r <= ranks; ++r) first.push_back(batch.tokens / ranks * r);
  batch.first_of_rank = first;
  return route_batch(part_from_yaml(builtin_routers(), router, &shape), part_from_yaml(builtin_capacities(), capacity, &shape), batch);
}

// Tutel, NLLB-MoE and V-MoE rank tokens by the softmax itself, whatever becomes of the weights.
TEST(RouteBatch, BatchPriorityDoesNotSeeNormalising) {
  const std::vector<float> logits = random_logits(120, 16, 11);
  for (const std::string capacity : {"tutel: {factor: 0.5, order: priority}", "nllb: {fraction: 0.05, order: priority, normalise: before}", "vmoe: {factor: 0.5, multiple: 1, order: priority}"})
    for (const int ranks : {1, 3}) {
      const Routed raw = route_by("topk: {renormalise: false}", capacity, logits, 16, 16, 2, ranks);
      for (const std::string router : {"topk", "topk: {scale: 2.5}", "topk: {score: softmax_after}", "topk: {norm: 2}", "gshard", "noisy_topk"}) {
        const Routed r = route_by(router, capacity, logits, 16, 16, 2, ranks);
        ASSERT_EQ(r.expert, raw.expert) << router;
        EXPECT_EQ(r.kept, raw.kept) << router << ", " << capacity;
        EXPECT_EQ(r.position, raw.position) << router << ", " << capacity;
      }
    }
  // With one choice all normalised weights are 1.
  const std::string capacity = "flaxformer: {factor: 0.5, min_capacity: 1, order: priority}";
  EXPECT_EQ(route_by("topk", capacity, logits, 16, 16, 1).kept, route_by("topk: {renormalise: false}", capacity, logits, 16, 16, 1).kept);
}

TEST(RouteBatch, AZeroExpertWeighsNothing) {
  // The zero expert is the best one of both tokens.
  const std::vector<float> logits = {0, 1, 2, 1, 0, 2};
  for (const std::string score : {"softmax", "sigmoid", "sqrt_softplus"}) {
    const Routed r = route_by("zero_experts: {zero: 1, renormalise: false, score: " + score + "}", "dropless", logits, 3, 2, 2);
    EXPECT_EQ(r.expert, (std::vector<std::int32_t>{2, 1, 2, 0}));
    EXPECT_EQ(r.weight[0], 0) << score;
    EXPECT_GT(r.weight[1], 0) << score;
  }
}

// V-MoE's compute_capacity multiplies in double precision: 200 x 1.1 / 11 is a little above 20.
TEST(RouteBatch, ExpertChoiceRoundsAsVMoeDoes) {
  const Routed r = route_by("expert_choice: {factor: 1.1}", "dropless", random_logits(200, 11, 3), 11, 11, 1);
  EXPECT_THAT(r.choices, ::testing::Each(24));
}

// One token is sure of expert 0, the other takes both: of three choices two are expert 0's.
TEST(Loss, BalanceSharesTheChoicesThatAreMade) {
  const std::vector<float> logits = {40, 0, 1, 1};
  Shape shape;
  shape.experts = 2, shape.top_k = 1, shape.ranks = shape.nodes = 1;
  GateBatch batch;
  batch.experts = 2, batch.tokens = 2, batch.logits = logits;
  const Router router = part_from_yaml(builtin_routers(), "top_p: {p: 0.6}", &shape);
  const Routed routed = route_batch(router, {}, batch);
  const auto value = [&](const std::string& yaml) { return part_from_yaml(builtin_losses(), yaml, &shape).value({batch, routed, router}, {}); };
  EXPECT_NEAR(value("balance"), 2 * (2.0 / 3 * 0.75 + 1.0 / 3 * 0.25), 1e-6);
  EXPECT_NEAR(value("balance: {over: tokens}"), 2 * (0.75 + 0.5 * 0.25), 1e-6);
  EXPECT_NEAR(value("balance: {count: plain}"), 2 * 0.75, 1e-6) << "a plain top-1, as the model has it";
}

TEST(Loss, GradientsAreDerivatives) {
  constexpr int kExperts = 16;
  Shape shape;
  shape.experts = kExperts, shape.top_k = 2, shape.ranks = shape.nodes = 1;
  const Capacity capacity = part_from_yaml(builtin_capacities(), "megatron: {factor: 1}", &shape);
  for (const std::string yaml : {"balance", "balance: {score: sigmoid, count: kept, over: counted}", "balance: {sequences: 4, layout: position_major}", "z", "importance", "importance: {of: scores}", "load",
                                 "load: {threshold: all, noise: 0.5}"}) {
    const std::string gate = yaml.find("noise") != std::string::npos ? "topk: {score: softmax_after, noise: 0.5}" : "noisy_topk";
    const Router router = part_from_yaml(builtin_routers(), gate, &shape);
    const Loss loss = part_from_yaml(builtin_losses(), yaml, &shape);
    const std::vector<float> logits = random_logits(24, kExperts, 6);
    GateBatch batch;
    batch.experts = kExperts, batch.tokens = 24, batch.logits = logits, batch.training = true;
    const auto value = [&](const GateBatch& b) {
      const Routed r = route_batch(router, capacity, b);
      return loss.value({b, r, router}, {});
    };
    std::vector<float> gradient(logits.size());
    const Routed routed = route_batch(router, capacity, batch);
    EXPECT_EQ(loss.value({batch, routed, router}, gradient), value(batch)) << yaml;
    expect_gradient(yaml, logits, kExperts, value, [&](const GateBatch& b) {
      const Routed r = route_batch(router, capacity, b);
      std::vector<std::int32_t> all = r.expert;
      // The next one behind the chosen is a threshold, too.
      Shape three = shape;
      three.top_k = 3;
      const Routed wider = route_batch(part_from_yaml(builtin_routers(), gate, &three), {}, b);
      all.insert(all.end(), wider.expert.begin(), wider.expert.end());
      for (const auto k : r.kept) all.push_back(k);
      return all;
    }, gradient, true);
  }
}

}  // namespace
}  // namespace epsim
