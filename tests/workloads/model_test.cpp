#include "workloads/model.h"
#include "tests/support/test_data.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <sstream>

namespace epsim {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

Model import(const std::string& json, const std::string& name = "config.json") {
  return import_hf_config(std::make_shared<SourceText>(SourceText{name, json}));
}

std::string refusal(const std::string& json) {
  try {
    import(json);
  } catch (const InputError& e) {
    return e.what();
  }
  return "accepted";
}

const std::string kQwen = R"({
  "model_type": "qwen2_moe",
  "hidden_size": 2048, "num_hidden_layers": 24, "vocab_size": 151936,
  "num_attention_heads": 16, "num_key_value_heads": 16,
  "num_experts": 60, "num_experts_per_tok": 4, "intermediate_size": 5632,
  "moe_intermediate_size": 1408, "shared_expert_intermediate_size": 5632,
  "decoder_sparse_step": 1, "norm_topk_prob": false, "torch_dtype": "bfloat16"
})";

std::string with(std::string json, const std::string& from, const std::string& to) {
  EXPECT_NE(json.find(from), std::string::npos) << from;
  return json.replace(json.find(from), from.size(), to);
}

// Of DeepSeek-V3: 8 experts of 2,048 and a shared one of as much.
TEST(Model, DenseTwinDoesTheSameFlops) {
  const Model moe = load_model("deepseek-v3", {}), twin = load_model("dense:deepseek-v3", {});
  EXPECT_EQ(twin.name, "dense:deepseek-v3");
  EXPECT_EQ(twin.expert_ffn, 9 * 2048);
  EXPECT_EQ(twin.shared_ffn, 0);
  EXPECT_EQ(twin.num_experts, 1);
  EXPECT_EQ(twin.top_k, 1);
  EXPECT_DOUBLE_EQ(twin.expert_params(), 9 * moe.expert_params());
  EXPECT_DOUBLE_EQ(moe.total_params - twin.total_params, 58 * (248 * moe.expert_params() + 7168.0 * 256));
  EXPECT_DOUBLE_EQ(moe.active_params - twin.active_params, 58 * 7168.0 * 256);
  EXPECT_THROW(load_model("dense:deepseek-v4", {}), InputError);
}

TEST(Model, PresetsEqualTheirConfigurationFiles) {
  const std::string folder = test_data() + "/configs";
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << "no " << folder;
  int compared = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::string name = entry.path().stem().string();
    const Model file = load_model(entry.path().string(), {});
    const std::optional<Model> preset = model_preset(name);
    ASSERT_TRUE(preset) << name;
    EXPECT_EQ(preset->name, file.name);
    EXPECT_EQ(preset->model_type, file.model_type) << name;
    EXPECT_EQ(preset->hidden, file.hidden) << name;
    EXPECT_EQ(preset->expert_ffn, file.expert_ffn) << name;
    EXPECT_EQ(preset->num_experts, file.num_experts) << name;
    EXPECT_EQ(preset->top_k, file.top_k) << name;
    EXPECT_EQ(preset->shared_ffn, file.shared_ffn) << name;
    EXPECT_EQ(preset->num_layers, file.num_layers) << name;
    EXPECT_EQ(preset->moe_layers, file.moe_layers) << name;
    EXPECT_EQ(preset->expert_bias, file.expert_bias) << name;
    EXPECT_EQ(preset->weights, file.weights) << name;
    EXPECT_EQ(to_yaml(preset->router), to_yaml(file.router)) << name;
    EXPECT_EQ(preset->expert_groups, file.expert_groups) << name;
    EXPECT_EQ(preset->total_params, file.total_params) << name;
    EXPECT_EQ(preset->active_params, file.active_params) << name;
    EXPECT_EQ(preset->active_params_no_embedding, file.active_params_no_embedding) << name;
    EXPECT_TRUE(file.warnings.empty()) << name;
    ++compared;
  }
  EXPECT_GE(compared, 6);
}

/// The table of docs/models.md, by columns.
std::vector<std::vector<std::string>> documented() {
  std::ifstream in(std::string(EPSIM_SOURCE_DIR) + "/docs/models.md");
  std::vector<std::vector<std::string>> rows;
  for (std::string line; std::getline(in, line);) {
    if (!line.starts_with("| ") || line.starts_with("| preset")) continue;
    std::vector<std::string> cells;
    std::istringstream cut(line.substr(2));
    for (std::string cell; std::getline(cut, cell, '|');)
      cells.push_back(cell.substr(cell.front() == ' ', cell.find_last_not_of(' ') + 1 - (cell.front() == ' ')));
    rows.push_back(cells);
  }
  return rows;
}

/// A number of billions as a publisher would print it, with as many digits as `like`.
std::string digits(double count, const std::string& like, bool cut) {
  const int places = like.find('.') == std::string::npos ? 0 : static_cast<int>(like.size() - like.find('.') - 1);
  const double unit = std::pow(10.0, places);
  const double scaled = count * 1e-9 * unit;
  return fmt::format("{:.{}f}", (cut ? std::floor(scaled) : std::round(scaled)) / unit, places);
}

TEST(Model, TotalsAndActiveCountsRoundToThePublishedOnes) {
  const auto rows = documented();
  ASSERT_EQ(rows.size(), 6U);
  for (const auto& row : rows) {
    ASSERT_EQ(row.size(), 7U);
    const Model m = *model_preset(row[0]);
    EXPECT_EQ(digits(m.total_params, row[1], false), row[1]) << row[0];
    EXPECT_EQ(digits(m.total_params, row[2], false), row[2]) << row[0];
    EXPECT_EQ(digits(m.active_params, row[4], false), row[4]) << row[0];
    EXPECT_EQ(digits(m.active_params_no_embedding, row[5], false), row[5]) << row[0];
    const double meant = row[6].starts_with("active") ? m.active_params : m.active_params_no_embedding;
    EXPECT_EQ(digits(meant, row[3], row[6].find("cut off") != std::string::npos), row[3]) << row[0];
  }
  // Published: Mistral AI, DeepSeek, Qwen and OpenAI model cards. Typed here so that the table cannot drift along with the code.
  EXPECT_EQ(rows[0][1] + " " + rows[0][3], "46.7 12.9");
  EXPECT_EQ(rows[1][1] + " " + rows[1][3], "141 39");
  EXPECT_EQ(rows[2][1] + " " + rows[2][3], "671 37");
  EXPECT_EQ(rows[3][1] + " " + rows[3][3], "15.7 2.4");
  EXPECT_EQ(rows[4][1] + " " + rows[4][3], "30.5 3.3");
  EXPECT_EQ(rows[5][1] + " " + rows[5][3], "20.9 3.6");
}

TEST(Model, CountsOfAModelSmallEnoughToAddByHand) {
  const Model m = import(R"({"model_type": "mixtral", "hidden_size": 4, "intermediate_size": 6, "num_hidden_layers": 2, "num_attention_heads": 2,
                             "num_key_value_heads": 1, "num_local_experts": 3, "num_experts_per_tok": 2, "vocab_size": 10})");
  const double attention = 4 * 4 + 2 * (4 * 2) + 4 * 4, expert = 3 * 4 * 6;
  EXPECT_EQ(m.expert_params(), expert);
  EXPECT_EQ(m.total_params, 2 * 10 * 4 + 4 + 2 * (attention + 2 * 4 + 3 * 4 + 3 * expert));
  EXPECT_EQ(m.active_params, 2 * 10 * 4 + 4 + 2 * (attention + 2 * 4 + 3 * 4 + 2 * expert));
  EXPECT_EQ(m.active_params_no_embedding, m.active_params - 10 * 4);
}

TEST(Model, SwitchBaseHasExpertsInEverySecondFfn) {
  const Model m = *model_preset("switch-base-128");
  EXPECT_THAT(m.moe_layers, ElementsAre(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23));
  EXPECT_EQ(m.top_k, 1);
  EXPECT_EQ(m.expert_matrices, 2);
  EXPECT_NEAR(m.total_params * 1e-9, 7.4, 0.05);
  EXPECT_NEAR(model_preset("switch-base-8")->total_params * 1e-6, 619, 1) << "as its published checkpoint";
}

// Totals as the publishers state them, in billions, to the digits they give.
TEST(Model, PresetsOfOtherFamiliesHaveTheStatedTotals) {
  struct Stated {
    std::string name;
    double total, within;
    std::string router;
  };
  for (const Stated& s : std::vector<Stated>{{"deepseek-v2", 236, 0.5, "{grouped_topk: {groups: 8, groups_kept: 3, score: softmax, group_score: max, renormalise: false, scale: 16}}"},
                                             {"qwen1.5-moe-a2.7b", 14.3, 0.05, "{topk: {score: softmax_before, renormalise: false, scale: 1}}"},
                                             {"qwen2-57b-a14b", 57.4, 0.05, "{topk: {score: softmax_before, renormalise: false, scale: 1}}"},
                                             {"qwen3-235b-a22b", 235, 0.5, "{topk: {score: softmax_before, renormalise: true, scale: 1}}"},
                                             {"gpt-oss-120b", 116.8, 0.05, "{topk: {score: softmax_after}}"},
                                             {"olmoe-1b-7b", 6.9, 0.05, "{topk: {score: softmax_before, renormalise: false, scale: 1}}"},
                                             {"kimi-k2", 1026, 1, "{grouped_topk: {groups: 1, groups_kept: 1, score: sigmoid, group_score: top2, renormalise: true, scale: 2.827}}"},
                                             {"glm-4.5", 355, 4, "{grouped_topk: {groups: 1, groups_kept: 1, score: sigmoid, group_score: top2, renormalise: true, scale: 2.5}}"},
                                             {"glm-4.5-air", 106, 1.5, "{grouped_topk: {groups: 1, groups_kept: 1, score: sigmoid, group_score: top2, renormalise: true, scale: 1}}"},
                                             {"llama-4-scout", 109, 2, "{topk: {score: sigmoid, renormalise: false, scale: 1}}"},
                                             {"llama-4-maverick", 400, 3, "{topk: {score: sigmoid, renormalise: false, scale: 1}}"},
                                             {"dbrx", 132, 0.5, "{topk: {score: softmax_before, renormalise: true, scale: 1}}"},
                                             {"switch-c-2048", 1571, 5, "{topk: {score: softmax_before, renormalise: false}}"},
                                             {"glam-64b-64e", 1200, 50, "gshard"},
                                             {"vmoe-l16", 3.4, 0.1, "{topk: {renormalise: false, noise: 0.03125}}"},
                                             {"vmoe-h14", 7.2, 0.1, "{topk: {renormalise: false, noise: 0.03125}}"},
                                             {"speculated-gpt-4-8e", 1760, 0, "topk"},
                                             {"speculated-qwen2.5-moe", 42, 0, "topk"}}) {
    const std::optional<Model> m = model_preset(s.name);
    ASSERT_TRUE(m) << s.name;
    EXPECT_EQ(m->name, s.name);
    EXPECT_NEAR(m->total_params * 1e-9, s.total, s.within) << s.name;
    EXPECT_EQ(to_yaml(m->router), s.router) << s.name;
    EXPECT_EQ(m->warnings.empty(), !s.name.starts_with("speculated")) << s.name;
  }
}

TEST(Model, RoutersFollowTheModel) {
  EXPECT_EQ(to_yaml(model_preset("deepseek-v3")->router),
            "{grouped_topk: {groups: 8, groups_kept: 4, score: sigmoid, group_score: top2, renormalise: true, scale: 2.5}}");
  EXPECT_EQ(to_yaml(model_preset("gpt-oss-20b")->router), "{topk: {score: softmax_after}}");
  EXPECT_EQ(to_yaml(import(kQwen).router), "{topk: {score: softmax_before, renormalise: false, scale: 1}}");
  EXPECT_EQ(model_preset("deepseek-v3")->weights, Precision::fp8);
  EXPECT_EQ(model_preset("gpt-oss-20b")->weights, Precision::fp4);
}

TEST(Model, QwenSparseStepAndDenseLayers) {
  const Model m = import(with(kQwen, "\"decoder_sparse_step\": 1", "\"decoder_sparse_step\": 2, \"mlp_only_layers\": [3, 23]"));
  EXPECT_THAT(m.moe_layers, ElementsAre(1, 5, 7, 9, 11, 13, 15, 17, 19, 21));
  EXPECT_NEAR(import(kQwen).total_params * 1e-9, 14.3, 0.05) << "Qwen1.5-MoE-A2.7B";
  EXPECT_NEAR(import(kQwen).active_params * 1e-9, 2.7, 0.05);
}

TEST(Model, TextConfigOfMultimodalModelsIsRead) {
  const Model m = import("{\"model_type\": \"some_vl\", \"vision_config\": {\"hidden_size\": 1}, \"text_config\": " + kQwen + "}");
  EXPECT_EQ(m.hidden, 2048);
  EXPECT_EQ(m.model_type, "qwen2_moe");
}

TEST(Model, UnknownTypesAreGuessedWithOneWarning) {
  const Model m = import(with(kQwen, "qwen2_moe", "brand_new"));
  EXPECT_EQ(m.num_experts, 60);
  ASSERT_EQ(m.warnings.size(), 1U);
  EXPECT_THAT(m.warnings[0], AllOf(HasSubstr("`brand_new` is not known"), HasSubstr("`num_experts`"), HasSubstr("`shared_expert_intermediate_size`")));
}

TEST(Model, RefusalsPointAtTheKey) {
  EXPECT_THAT(refusal(with(kQwen, "\"num_experts_per_tok\": 4", "\"num_experts_per_tok\": 61")),
              HasSubstr("config.json:5:22: error: top_k is 61, but there are 60 experts"));
  EXPECT_THAT(refusal(with(kQwen, "\"hidden_size\": 2048, ", "")),
              HasSubstr("config.json:1:1: error: the length of a token vector is missing: expected `hidden_size`"));
  EXPECT_THAT(refusal(with(kQwen, "2048", "-2048")), HasSubstr("config.json:3:3: error: `hidden_size` must be an integer from 1 to 2^31, got -2048"));
  EXPECT_THAT(refusal(with(kQwen, "2048", "\"2048\"")), HasSubstr("got \"2048\""));
  EXPECT_THAT(refusal(with(kQwen, "2048", "2048.5")), HasSubstr("got 2048.5"));
  EXPECT_THAT(refusal(with(kQwen, "2048", "99999999999999999999")), HasSubstr("`hidden_size` must be an integer"));
  EXPECT_THAT(refusal(with(kQwen, "\"num_attention_heads\": 16", "\"num_attention_heads\": 48")),
              HasSubstr("config.json:4:3: error: 48 heads do not divide the hidden size 2048"));
  EXPECT_THAT(refusal(with(kQwen, "\"num_key_value_heads\": 16", "\"num_key_value_heads\": 3")), HasSubstr("3 key/value heads do not divide"));
  EXPECT_THAT(refusal(with(kQwen, "\"decoder_sparse_step\": 1", "\"decoder_sparse_step\": 25")), HasSubstr("config.json:7:3: error: no layer has experts"));
  EXPECT_THAT(refusal(with(kQwen, "\"num_experts\": 60", "\"num_experts\": 60, \"num_local_experts\": 8")), HasSubstr("another name of it says"));
  EXPECT_THAT(refusal(with(kQwen, "\"norm_topk_prob\": false", "\"norm_topk_prob\": 0")), HasSubstr("`norm_topk_prob` must be true or false"));
  EXPECT_THAT(refusal(with(kQwen, "24", "24,,")), HasSubstr("config.json:3:48: error: not valid JSON"));
  EXPECT_THAT(refusal(with(kQwen, "24", "1e999")), HasSubstr("a number is out of range"));
  EXPECT_THAT(refusal("[1]"), HasSubstr("expected a JSON object"));
  const std::string v3 =
      R"({"model_type": "deepseek_v3", "hidden_size": 64, "intermediate_size": 8, "moe_intermediate_size": 8, "num_hidden_layers": 5, "vocab_size": 9,
    "num_attention_heads": 4, "kv_lora_rank": 4, "q_lora_rank": 4, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 4, "n_routed_experts": 16,
    "num_experts_per_tok": 4, "n_group": 4, "topk_group": 2})";
  EXPECT_EQ(refusal(v3), "accepted");
  EXPECT_THAT(refusal(with(v3, "\"n_group\": 4", "\"n_group\": 3")), HasSubstr("3 groups do not divide 16 experts"));
  EXPECT_THAT(refusal(with(v3, "\"topk_group\": 2", "\"topk_group\": 5")), HasSubstr("`topk_group` is 5, but there are 4 groups"));
  EXPECT_THAT(refusal(with(v3, "\"num_experts_per_tok\": 4", "\"num_experts_per_tok\": 9")), HasSubstr("2 of 4 groups hold only 8 experts"));
}

TEST(Model, OnePassFindsAllProblems) {
  const std::string all =
      refusal(with(with(with(kQwen, "\"num_experts_per_tok\": 4", "\"num_experts_per_tok\": 61"), "\"num_key_value_heads\": 16", "\"num_key_value_heads\": 3"),
                   "\"vocab_size\": 151936", "\"vocab_size\": []"));
  EXPECT_THAT(all, AllOf(HasSubstr("config.json:5:22"), HasSubstr("config.json:4:30"), HasSubstr("config.json:3:49"), HasSubstr("`vocab_size`")));
}

TEST(Model, AnUnknownNameIsToldWithTheNearest) {
  try {
    load_model("deepsek-v3", {});
    FAIL();
  } catch (const InputError& e) {
    EXPECT_THAT(e.what(), HasSubstr("did you mean `deepseek-v3`?"));
  }
  EXPECT_THROW(load_model("/nowhere/config.json", {}), InputError);
}

}  // namespace
}  // namespace epsim
