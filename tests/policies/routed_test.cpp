// Batches through routers and capacities as the frameworks' own code gives them, and the gradients by finite differences.
#include "policies/routed.h"

#include <fmt/format.h>
#include <gmock/gmock.h>

#include <cmath>
#include <filesystem>

#include "base/npz.h"
#include "base/rng.h"
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
  std::vector<std::int64_t> size;  ///< capacity of each block
};

class Frameworks : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!std::filesystem::exists(folder_)) GTEST_SKIP() << "no " << folder_;
  }
  std::map<std::string, NpyArray> arrays(const std::string& name) const { return read_npz(read_text(folder_ + name + ".npz")); }

  void agrees(const Case& c) const {
    SCOPED_TRACE(c.name);
    const auto a = arrays(c.name);
    const std::vector<float> logits = floats(a.at("logits"));
    Shape shape;
    shape.experts = c.experts, shape.top_k = c.top_k, shape.ranks = shape.nodes = 1;
    const Router router = part_from_yaml(builtin_routers(), c.router, &shape);
    const Capacity capacity = part_from_yaml(builtin_capacities(), c.capacity, &shape);
    GateBatch batch;
    batch.experts = c.experts, batch.tokens = static_cast<std::int64_t>(logits.size()) / c.experts, batch.logits = logits;
    std::vector<float> bias;
    if (a.contains("bias")) batch.bias = bias = floats(a.at("bias"));
    const Routed r = route_batch(router, capacity, batch);
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
      for (std::size_t i = 0; i < position.size(); ++i)
        if (r.kept[i]) ASSERT_EQ(r.position[i], position[i]) << i;
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

}  // namespace
}  // namespace epsim
