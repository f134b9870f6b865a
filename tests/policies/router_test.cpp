#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "base/npz.h"
#include "base/rng.h"
#include "policies/router/shared/gate.h"
#include "policies/routing.h"
#include "tests/support/test_data.h"

namespace epsim {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

Router make(const std::string& yaml, const Shape& shape, Diagnostics& problems) {
  return builtin_routers().make(parse_yaml(std::make_shared<SourceText>(SourceText{"exp.yaml", yaml})), problems, &shape);
}

Shape shape_of(int experts, int top_k) {
  Shape s;
  s.experts = experts, s.top_k = top_k, s.ranks = 1, s.nodes = 1;
  return s;
}

struct Chosen {
  std::vector<std::uint16_t> ids;
  std::vector<float> weights;
};

/// What a part chooses for rows of logits, handed over in a form.
Chosen choose(const std::string& yaml, int experts, int top_k, const std::vector<float>& logits, ScoreForm form = ScoreForm::logits) {
  Diagnostics problems;
  const Router r = make(yaml, shape_of(experts, top_k), problems);
  problems.check();
  const std::size_t tokens = logits.size() / static_cast<std::size_t>(experts);
  Chosen c{std::vector<std::uint16_t>(tokens * static_cast<std::size_t>(top_k)), std::vector<float>(tokens * static_cast<std::size_t>(top_k))};
  std::vector<float> blocks(score_count(static_cast<std::int64_t>(tokens), experts), std::numeric_limits<float>::quiet_NaN());
  for (std::size_t i = 0; i < logits.size(); ++i) {
    const auto at = static_cast<std::int64_t>(i);
    blocks[score_index(at / experts, at % experts, experts)] = form == ScoreForm::odds ? static_cast<float>(-std::exp(-static_cast<double>(logits[i]))) : logits[i];
  }
  r.select(form, static_cast<std::int64_t>(tokens), blocks, c.ids, c.weights);
  return c;
}

std::string refusal(const std::string& yaml, int experts, int top_k) {
  Diagnostics problems;
  make(yaml, shape_of(experts, top_k), problems);
  try {
    problems.check();
  } catch (const InputError& e) {
    return e.what();
  }
  return "accepted";
}

std::vector<float> random_logits(int experts, int tokens, std::uint64_t seed, double step = 0) {
  std::vector<float> out;
  Rng rng(seed, Stream::test);
  for (int i = 0; i < experts * tokens; ++i) {
    const double v = 2 * rng.normal();
    out.push_back(static_cast<float>(step > 0 ? std::round(v / step) * step : v));
  }
  return out;
}

struct Settings {
  int experts, top_k;
  bool sigmoid;
  int groups = 1, kept = 1;
  bool sum_of_two = true, renormalise = true;
  double scale = 1;
  std::vector<double> bias = {};
};

/// The gate as its papers write it, in double and with full sorts. Without a bias experts are ranked by logits.
Chosen oracle(const Settings& s, const std::vector<float>& logits) {
  Chosen out;
  const auto n = static_cast<std::size_t>(s.experts);
  for (std::size_t t = 0; t < logits.size() / n; ++t) {
    std::vector<double> l(logits.begin() + static_cast<std::ptrdiff_t>(t * n), logits.begin() + static_cast<std::ptrdiff_t>((t + 1) * n)), score(n), sel(n);
    const double top = *std::max_element(l.begin(), l.end());
    double sum = 0;
    for (double v : l) sum += std::exp(v - top);
    for (std::size_t e = 0; e < n; ++e) {
      score[e] = s.sigmoid ? 1 / (1 + std::exp(-l[e])) : std::exp(l[e] - top) / sum;
      sel[e] = s.bias.empty() ? l[e] : score[e] + s.bias[e];
    }
    const std::size_t size = n / static_cast<std::size_t>(s.groups);
    std::vector<std::pair<double, int>> groups;
    for (int g = 0; g < s.groups; ++g) {
      std::vector<double> in;
      for (std::size_t e = static_cast<std::size_t>(g) * size; e < static_cast<std::size_t>(g + 1) * size; ++e)
        in.push_back(s.bias.empty() ? score[e] : sel[e]);
      std::sort(in.rbegin(), in.rend());
      groups.emplace_back(-(s.sum_of_two && in.size() > 1 ? in[0] + in[1] : in[0]), g);
    }
    std::stable_sort(groups.begin(), groups.end());
    std::vector<std::pair<double, std::size_t>> order;
    for (int i = 0; i < s.kept; ++i)
      for (std::size_t e = static_cast<std::size_t>(groups[static_cast<std::size_t>(i)].second) * size, j = 0; j < size; ++j)
        order.emplace_back(-sel[e + j], e + j);
    std::sort(order.begin(), order.end());
    double chosen = 0;
    for (int i = 0; i < s.top_k; ++i) chosen += score[order[static_cast<std::size_t>(i)].second];
    for (int i = 0; i < s.top_k; ++i) {
      const std::size_t e = order[static_cast<std::size_t>(i)].second;
      out.ids.push_back(static_cast<std::uint16_t>(e));
      out.weights.push_back(static_cast<float>(score[e] / (s.renormalise ? chosen : 1) * s.scale));
    }
  }
  return out;
}

void expect_same(const Chosen& got, const Chosen& expected, double tolerance = 2e-6) {
  EXPECT_EQ(got.ids, expected.ids);
  const float largest = *std::max_element(expected.weights.begin(), expected.weights.end());
  for (std::size_t i = 0; i < expected.weights.size(); ++i) ASSERT_NEAR(got.weights[i], expected.weights[i], tolerance * largest) << i;
}

TEST(Router, TopkAgreesWithTheFormulaForAllSizes) {
  for (const auto& [experts, k] :
       std::vector<std::pair<int, int>>{{1, 1}, {2, 1}, {8, 2}, {60, 4}, {33, 33}, {64, 6}, {100, 40}, {160, 6}, {256, 8}, {257, 31}, {384, 8}, {500, 300}}) {
    const std::vector<float> logits = random_logits(experts, 40, static_cast<std::uint64_t>(experts));
    expect_same(choose("topk", experts, k, logits), oracle({experts, k, false}, logits));
    expect_same(choose("topk: {score: softmax_after, scale: 3}", experts, k, logits), oracle({experts, k, false, 1, 1, true, true, 3}, logits));
    expect_same(choose("topk: {renormalise: false}", experts, k, logits), oracle({experts, k, false, 1, 1, true, false}, logits));
    expect_same(choose("topk: {score: sigmoid, renormalise: false, scale: 0.5}", experts, k, logits),
                oracle({experts, k, true, 1, 1, true, false, 0.5}, logits));
  }
}

TEST(Router, GroupedTopkAgreesWithTheFormulaForAllSizes) {
  struct Case {
    int experts, k, groups, kept;
  };
  for (const Case& c : {Case{256, 8, 8, 4}, Case{160, 6, 8, 3}, Case{64, 8, 8, 2}, Case{384, 8, 1, 1}, Case{12, 3, 4, 2}, Case{8, 2, 8, 4}, Case{480, 8, 96, 5},
                        Case{72, 12, 3, 1}, Case{56, 6, 8, 4}}) {
    const std::vector<float> logits = random_logits(c.experts, 60, static_cast<std::uint64_t>(c.experts + c.k));
    const std::string groups = fmt::format("groups: {}, groups_kept: {}", c.groups, c.kept);
    expect_same(choose("grouped_topk: {" + groups + ", scale: 2.5}", c.experts, c.k, logits),
                oracle({c.experts, c.k, true, c.groups, c.kept, true, true, 2.5}, logits));
    expect_same(choose("grouped_topk: {" + groups + ", group_score: max, score: softmax, renormalise: false}", c.experts, c.k, logits),
                oracle({c.experts, c.k, false, c.groups, c.kept, false, false}, logits));
    expect_same(choose("grouped_topk: {" + groups + ", score: softmax}", c.experts, c.k, logits), oracle({c.experts, c.k, false, c.groups, c.kept}, logits));
  }
}

TEST(Router, OddsSayTheSameAsLogits) {
  const std::vector<float> logits = random_logits(256, 100, 17);
  const auto odds = [&](const std::string& yaml) { return choose(yaml, 256, 8, logits, ScoreForm::odds); };
  expect_same(odds("topk"), oracle({256, 8, false}, logits));
  expect_same(odds("topk: {renormalise: false}"), oracle({256, 8, false, 1, 1, true, false}, logits));
  expect_same(odds("topk: {score: sigmoid, renormalise: false}"), oracle({256, 8, true, 1, 1, true, false}, logits));
  expect_same(odds("grouped_topk: {groups: 8, groups_kept: 4}"), oracle({256, 8, true, 8, 4}, logits));
  expect_same(odds("grouped_topk: {groups: 8, groups_kept: 4, score: softmax}"), oracle({256, 8, false, 8, 4}, logits));
  expect_same(odds("grouped_topk: {groups: 8, groups_kept: 4, group_score: max}"), oracle({256, 8, true, 8, 4, false}, logits));
}

TEST(Router, TheBiasChoosesButDoesNotWeigh) {
  const std::string path = (std::filesystem::path(testing::TempDir()) / "epsim_router_bias.npz").string();
  std::vector<float> bias;
  Rng rng(3, Stream::test);
  for (int e = 0; e < 64; ++e) bias.push_back(static_cast<float>(rng.normal() - 2));  // so negative that masking by 0 instead of minus infinity would show
  NpzWriter w;
  w.add("bias", {64}, bias);
  std::ofstream(path, std::ios::binary) << w.bytes();
  const std::vector<float> logits = random_logits(64, 100, 5);
  Settings s{64, 8, true, 8, 3};
  s.bias.assign(bias.begin(), bias.end());
  for (const ScoreForm form : {ScoreForm::logits, ScoreForm::odds}) {
    s.sigmoid = true;
    expect_same(choose("grouped_topk: {groups: 8, groups_kept: 3, bias: " + path + "}", 64, 8, logits, form), oracle(s, logits));
    s.sigmoid = false;
    expect_same(choose("grouped_topk: {groups: 8, groups_kept: 3, score: softmax, bias: " + path + "}", 64, 8, logits, form), oracle(s, logits));
  }
  EXPECT_THAT(refusal("grouped_topk: {groups: 8, groups_kept: 3, bias: " + path + "}", 32, 2), HasSubstr("expected an array `bias` of 32 floats"));
  std::filesystem::remove(path);
  EXPECT_THAT(refusal("grouped_topk: {groups: 8, groups_kept: 3, bias: " + path + "}", 64, 2), HasSubstr("no such file"));
}

// I5: the same bits with vectors of any width.
TEST(Router, EveryVectorWidthGivesTheSameBits) {
  GateRule grouped{256, 8, GateRule::Score::sigmoid, true, 2.5F, 8, 4, GateRule::GroupScore::top2, {}}, biased = grouped, plain{100, 6};
  for (int e = 0; e < 256; ++e) biased.bias.push_back(0.001F * static_cast<float>(e % 37));
  plain.renormalise = false;
  for (const GateRule* rule : {&grouped, &biased, &plain})
    for (const ScoreForm form : {ScoreForm::logits, ScoreForm::odds}) {
      constexpr std::int64_t kTokens = 1000;
      std::vector<float> scores(score_count(kTokens, rule->experts));
      Rng rng(23, Stream::test);
      for (float& x : scores) x = static_cast<float>(form == ScoreForm::odds ? -std::exp(rng.normal()) : std::round(40 * rng.normal()) / 20);  // logits with ties
      std::vector<Chosen> of_width;
      for (int width = 0; width < gate_widths(); ++width) {
        const auto choices = static_cast<std::size_t>(kTokens * rule->top_k);
        Chosen& c = of_width.emplace_back(Chosen{std::vector<std::uint16_t>(choices), std::vector<float>(choices)});
        apply_gate(*rule, form, kTokens, scores, c.ids, c.weights, width);
        EXPECT_EQ(c.ids, of_width.front().ids) << width;
        EXPECT_EQ(c.weights, of_width.front().weights) << width;
      }
    }
}

// I5: ties are broken by the lowest id. Logits on a coarse grid are full of them.
TEST(Router, TiesGoToTheLowestId) {
  for (const auto& [experts, k] : std::vector<std::pair<int, int>>{{8, 2}, {60, 4}, {256, 8}, {100, 40}}) {
    const std::vector<float> logits = random_logits(experts, 100, 11, 0.5);
    expect_same(choose("topk", experts, k, logits), oracle({experts, k, false}, logits));
  }
  const std::vector<float> flat(256, 1.0F);
  EXPECT_THAT(choose("topk", 256, 4, flat).ids, ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(choose("grouped_topk: {groups: 8, groups_kept: 2}", 256, 4, flat).ids, ElementsAre(0, 1, 2, 3));
  std::vector<float> late = flat;
  late[200] = 2, late[90] = 2;
  EXPECT_THAT(choose("grouped_topk: {groups: 8, groups_kept: 2}", 256, 4, late).ids, ElementsAre(90, 200, 64, 65));
}

TEST(Router, ScoresThatRoundingMakesEqualAreStillRankedByLogits) {
  std::vector<float> logits(16, -5.0F);
  logits[3] = 40, logits[7] = 60, logits[9] = 50;  // sigmoid is 1 in single precision
  EXPECT_THAT(choose("topk: {score: sigmoid}", 16, 3, logits).ids, ElementsAre(7, 9, 3));
  std::vector<float> low(16, -200.0F);
  low[5] = -150;
  const Chosen c = choose("topk: {score: sigmoid}", 16, 2, low);
  EXPECT_THAT(c.ids, ElementsAre(5, 0));
  for (float weight : c.weights) EXPECT_TRUE(std::isfinite(weight));
}

TEST(Router, ExpertsOutOfReachAreChosenLast) {
  constexpr float kOut = -std::numeric_limits<float>::infinity();
  EXPECT_THAT(choose("topk", 8, 4, {kOut, kOut, kOut, 1, kOut, 2, kOut, kOut}).ids, ElementsAre(5, 3, 0, 1));
}

TEST(Router, WhatCannotBeIsRefusedAtTheKey) {
  EXPECT_THAT(refusal("topk", 4, 5), HasSubstr("top_k is 5, but there are 4 experts"));
  EXPECT_THAT(refusal("topk: {score: softmax_after, renormalise: false}", 4, 2), HasSubstr("exp.yaml:1:43"));
  EXPECT_THAT(refusal("topk: {score: softmx_after}", 4, 2), HasSubstr("did you mean `softmax_after`?"));
  EXPECT_THAT(refusal("grouped_topk: {groups: 3, groups_kept: 1}", 64, 2), HasSubstr("exp.yaml:1:24: error: 3 groups do not divide 64 experts"));
  EXPECT_THAT(refusal("grouped_topk: {groups: 4, groups_kept: 5}", 64, 2), HasSubstr("exp.yaml:1:40: error: 5 groups are kept, but there are 4"));
  EXPECT_THAT(refusal("grouped_topk: {groups: 8, groups_kept: 1}", 64, 9), HasSubstr("1 of 8 groups hold only 8 experts"));
  EXPECT_THAT(refusal("grouped_topk", 64, 2), HasSubstr("needs `groups`"));
  const RouterCatalog routers = builtin_routers();
  for (const auto& entry : routers.entries()) {
    Params listing;
    EXPECT_FALSE(entry.make(listing, nullptr).summary.empty()) << entry.name;
  }
}

// Inputs and outputs of the frameworks' own gates. Selection gaps are wide, so ids must be equal; weights to 2e-6 of the largest.
TEST(Router, AgreesWithTheFrameworks) {
  struct Case {
    std::string name, yaml;
    int experts, top_k;
    bool has_bias = false;
  };
  const std::vector<Case> cases = {
      {"dsv3_v3_e256k8_g8t4", "groups: 8, groups_kept: 4, scale: 2.5", 256, 8, true},
      {"hf_kimik2_e384k8", "groups: 1, groups_kept: 1, scale: 2.827", 384, 8, true},
      {"hf_deepseekv2_e160k6_g8t3", "grouped_topk: {groups: 8, groups_kept: 3, score: softmax, group_score: max, renormalise: false, scale: 16}", 160, 6},
      {"hf_mixtral_e8k2", "topk: {score: softmax_before, renormalise: true}", 8, 2},
      {"hf_gptoss_e32k4", "topk: {score: softmax_after}", 32, 4},
      {"hf_qwen2moe_e60k4", "topk: {score: softmax_before, renormalise: false}", 60, 4},
      {"mcore_softmax_post_e64k6", "topk: {score: softmax_after}", 64, 6},
      {"deepseekv2_gate_seq_aux", "topk: {score: softmax_before, renormalise: false}", 64, 6},
      {"hf_llama4_e16k1", "topk: {score: sigmoid, renormalise: false}", 16, 1},
  };
  const std::string folder = test_data() + "/routers/";
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << "no " << folder;
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    const std::string path = folder + c.name + ".npz";
    ASSERT_TRUE(std::filesystem::exists(path));
    const auto arrays = read_npz(read_text(path));
    const auto floats = [&](const std::string& name) { return std::vector<float>(arrays.at(name).floats.begin(), arrays.at(name).floats.end()); };
    const std::string yaml = c.has_bias ? "grouped_topk: {" + c.yaml + ", bias: " + path + "}" : c.yaml;
    const auto& ids = arrays.at("expert_ids").integers;
    expect_same(choose(yaml, c.experts, c.top_k, floats("logits")), {std::vector<std::uint16_t>(ids.begin(), ids.end()), floats("weights")});
  }
  const auto counted = read_npz(read_text(folder + "mcore_aux_softmax_e16k2.npz"));  // gives only how many tokens each expert gets
  const Chosen c = choose("topk", 16, 2, {counted.at("logits").floats.begin(), counted.at("logits").floats.end()});
  std::vector<std::int64_t> tokens(16);
  for (std::uint16_t e : c.ids) ++tokens[e];
  EXPECT_EQ(tokens, counted.at("tokens_per_expert").integers);
}

}  // namespace
}  // namespace epsim
