// What a compression makes of an experiment.
#include "sim/compressed.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "base/npz.h"
#include "sim/run.h"
#include "tests/support/part_from_yaml.h"
#include "tests/support/program.h"

namespace epsim {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::input_error;

constexpr const char* kModel = R"({"model_type": "mixtral", "hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_hidden_layers": 2,
 "num_local_experts": 8, "num_experts_per_tok": 2, "vocab_size": 1000, "torch_dtype": "float32"})";

class CompressedTest : public ::testing::Test {
 protected:
  Experiment read(const std::string& source, const std::string& compression, const std::string& more = "") const {
    const std::string yaml = "model: " + model_ + "\ncluster: {single_switch: {ranks: 4, device: cpu}}\nsource: " + source + "\n" + (compression.empty() ? "" : "compression: " + compression + "\n") + more;
    return read_experiment(std::make_shared<SourceText>(SourceText{(space_.root / "test.yaml").string(), yaml}), {}, builtin_catalogs());
  }
  std::string error(const std::string& source, const std::string& compression, const std::string& more = "") const {
    return input_error([&] { read(source, compression, more); });
  }
  static Routing routed(const Experiment& e, int layer = 0) {
    Routing routing = e.routing();
    route_layer(e, 0, layer, 0, e.topology.ranks(), routing);
    return routing;
  }
  std::string map(const std::string& becomes, const std::string& more = "") const { return "{given: {file: " + space_.write("maps.json", "{\"layers\": [0, 1], \"becomes\": " + becomes + more + "}") + "}}"; }
  /// A trace of four tokens and two layers, alike in both.
  std::string trace() const {
    NpzWriter npz;
    npz.add("expert_ids", {4, 2, 2}, std::vector<std::int32_t>{0, 1, 0, 1, 2, 3, 2, 3, 5, 4, 5, 4, 7, 1, 7, 1});
    npz.add("expert_weights", {4, 2, 2}, std::vector<float>{0.5F, 0.5F, 0.5F, 0.5F, 0.75F, 0.25F, 0.75F, 0.25F, 0.75F, 0.25F, 0.75F, 0.25F, 0.5F, 0.5F, 0.5F, 0.5F});
    return "{trace: {file: " + space_.write("trace.npz", npz.bytes()) + "}}";
  }

  testing::Workspace space_{"epsim_compressed"};
  std::string model_ = space_.write("model.json", kModel);
};

const std::string kDrawn = "{lognormal: {sigma: 1, tokens_per_rank: 100}}";

// Experts that compute nothing are left alone: they stand behind those that are left, with their own columns of the gate.
TEST_F(CompressedTest, ExpertsThatComputeNothingStay) {
  const std::string idle = "router: {zero_experts: {zero: 1, identity: 2}}\n";
  const Routing whole = routed(read(kDrawn, "", idle)), merged = routed(read(kDrawn, "{frequency_merge: {keep: 5}}", idle)), pruned = routed(read(kDrawn, "{frequency_prune: {keep: 5}}", idle));
  std::int64_t idle_choices = 0, after = 0, other = 0;
  for (std::size_t t = 0; t < whole.expert.size(); t += 2)
    for (std::uint16_t e = 8; e < 11; ++e) {
      const auto in = [&](const Routing& r, std::uint16_t id) { return std::ranges::count(std::span(r.expert).subspan(t, 2), id); };
      ASSERT_EQ(in(whole, e), in(merged, static_cast<std::uint16_t>(e - 3))) << "token " << t / 2;
      idle_choices += in(whole, e), after += in(pruned, static_cast<std::uint16_t>(e - 3));
      other += in(pruned, e);
    }
  EXPECT_GT(idle_choices, 100);
  EXPECT_GT(after, idle_choices);  // of tokens whose experts were pruned
  EXPECT_EQ(other, 0);
}

// The gate of a pruned model never saw the pruned experts: tokens take the best two of those that are left, as if their logits were minus infinity.
TEST_F(CompressedTest, PrunedExpertsLeaveTheirTokensToTheNextBest) {
  const Experiment e = read(kDrawn, "{frequency_prune: {keep: 5}}");
  EXPECT_EQ(e.model.num_experts, 5);
  const Routing routing = routed(e);
  EXPECT_FALSE(routing.may_choose_fewer);
  const std::vector<std::uint16_t>& to = e.compressed->layer(0).map.to;
  EXPECT_EQ(std::ranges::count(to, kNoExpert), 3);
  const std::int64_t tokens = e.source.tokens();
  std::vector<float> blocks(score_count(tokens, 8)), logits(static_cast<std::size_t>(tokens * 8));
  e.compressed->whole().source.scores(0, 0, tokens, blocks);
  logits_of_scores(e.compressed->whole().source.form, tokens, 8, blocks, logits);
  for (std::int64_t t = 0; t < tokens; ++t) {
    std::vector<std::pair<float, int>> left;
    for (int i = 0; i < 8; ++i)
      if (to[static_cast<std::size_t>(i)] != kNoExpert) left.emplace_back(logits[static_cast<std::size_t>(t * 8 + i)], to[static_cast<std::size_t>(i)]);
    std::ranges::sort(left, std::greater());
    const auto at = static_cast<std::size_t>(t * 2);
    EXPECT_EQ(routing.expert[at], left[0].second);
    EXPECT_EQ(routing.expert[at + 1], left[1].second);
    EXPECT_NEAR(routing.weight[at], 1 / (1 + std::exp(left[1].first - left[0].first)), 1e-5);  // softmax over the two
  }
}

TEST_F(CompressedTest, PrunesThoseThatTheWholeModelChoosesLeast) {
  const Routing whole = routed(read(kDrawn, ""));
  std::vector<std::int64_t> counts(8);
  for (const std::uint16_t e : whole.expert) ++counts[e];
  const Experiment e = read(kDrawn, "{frequency_prune: {keep: 5}}");
  std::int64_t least_kept = 1'000'000, most_pruned = 0;
  for (std::size_t i = 0; i < 8; ++i) e.compressed->layer(0).map.to[i] == kNoExpert ? most_pruned = std::max(most_pruned, counts[i]) : least_kept = std::min(least_kept, counts[i]);
  EXPECT_LE(most_pruned, least_kept);
}

// Merging leaves the gate as it is: the choices are those of the whole model, and two that became one expert are one.
TEST_F(CompressedTest, MergedExpertsTakeTheChoicesOfAll) {
  const std::string maps = map("[[0, 0, 1, 1, 2, 2, 3, 3], [0, 1, 2, 3, 0, 1, 2, 3]]");
  const Experiment e = read(kDrawn, maps);
  EXPECT_EQ(e.model.num_experts, 4);
  const Routing whole = routed(read(kDrawn, "")), routing = routed(e);
  EXPECT_TRUE(routing.may_choose_fewer);
  for (std::size_t t = 0; t < whole.expert.size(); t += 2) {
    const auto first = whole.expert[t] / 2, second = whole.expert[t + 1] / 2;
    EXPECT_EQ(routing.expert[t], first);
    EXPECT_EQ(routing.expert[t + 1], first == second ? kNoExpert : second);
    EXPECT_FLOAT_EQ(routing.weight[t], first == second ? whole.weight[t] + whole.weight[t + 1] : whole.weight[t]);
  }
}

TEST_F(CompressedTest, MapsARecordedTrace) {
  // Experts 0, 1 and 7 become one, 2 and 3 another, 4 is pruned.
  const Experiment e = read(trace(), map("[[0, 0, 1, 1, -1, 2, 3, 0], [0, 1, 2, 3, -1, 0, 1, 2]]"));
  const Routing routing = routed(e), second = routed(e, 1);
  EXPECT_THAT(routing.expert, ElementsAre(0, kNoExpert, 1, kNoExpert, 2, kNoExpert, 0, kNoExpert));
  EXPECT_THAT(routing.weight, ElementsAre(1, 0, 1, 0, 1, 0, 1, 0));
  EXPECT_THAT(second.expert, ElementsAre(0, 1, 2, 3, 0, kNoExpert, 2, 1));
  EXPECT_EQ(e.model.num_experts, 4);
}

TEST_F(CompressedTest, SkipsByWeight) {
  const Experiment e = read(trace(), "{skip_second: {beta: 0.5}}");
  EXPECT_EQ(e.model.num_experts, 8);
  EXPECT_THAT(routed(e).expert, ElementsAre(0, 1, 2, kNoExpert, 5, kNoExpert, 7, 1));
}

// Half as many experts: half the weights on every rank, and the same rows where nothing is merged.
TEST_F(CompressedTest, FewerExpertsTakeLessMemory) {
  const auto play = [](const Experiment& e) {
    std::vector<LayerRun> runs;
    run(e, Timeline::Detail::rank, [&](LayerRun& layer) { return runs.push_back(std::move(layer)), true; });
    return runs;
  };
  const std::vector<LayerRun> whole = play(read(kDrawn, "none")), half = play(read(kDrawn, "{frequency_prune: {keep: 4}}"));
  for (std::size_t l = 0; l < 2; ++l) {
    EXPECT_EQ(whole[l].plan.placement.slots(), 8);
    EXPECT_EQ(half[l].plan.placement.slots(), 4);
    std::int64_t copies = 0;
    for (const std::int64_t n : half[l].plan.copies.cells) copies += n;
    EXPECT_EQ(copies, 800);  // 400 tokens, two each
  }
}

TEST_F(CompressedTest, DecidesFromTheBatchesOfFit) {
  const std::string drifting = "{rotating: {tokens_per_rank: 100, hot: 4, every: 1, step: 4, factor: 100}}";  // experts 0 to 3 are hot in even batches, the others in odd ones
  const Experiment even = read(drifting, "{frequency_prune: {keep: 4}}", "batches: 2\nfit: 0:1\n"), odd = read(drifting, "{frequency_prune: {keep: 4}}", "batches: 2\nfit: 1:2\neval: 0:1\n");
  EXPECT_THAT(even.compressed->layer(0).map.to, ElementsAre(0, 1, 2, 3, kNoExpert, kNoExpert, kNoExpert, kNoExpert));
  EXPECT_THAT(odd.compressed->layer(0).map.to, ElementsAre(kNoExpert, kNoExpert, kNoExpert, kNoExpert, 0, 1, 2, 3));
}

// I11
TEST_F(CompressedTest, SaysWhatIsWrong) {
  EXPECT_THAT(error(kDrawn, "{reap: {keep: 4}}"), HasSubstr("epsim compress"));
  EXPECT_THAT(error(kDrawn, "{frequency_prune: {keep: 9}}"), HasSubstr("the model has 8"));
  EXPECT_THAT(error(kDrawn, map("[[0, 1], [0, 1]]")), HasSubstr("is for 2 experts, the model has 8"));
  EXPECT_THAT(error(kDrawn, "{frequency_merge: {keep: 4}}", "capacity: {megatron: {factor: 1, overflow: next_best}}\n"), HasSubstr("next_best"));
  EXPECT_THAT(error(kDrawn, "{frequency_prune: {keep: 5}}", "router: {grouped_topk: {groups: 2, groups_kept: 1}}\n"), HasSubstr("5"));
  EXPECT_THAT(error(kDrawn, "{frequency_prune: {keep: 4}}", "placement: {eplb: {slots: 3}}\n"), HasSubstr("4"));
  const Experiment other_layers = read(kDrawn, "{given: {file: " + space_.write("one.json", R"({"layers": [0], "becomes": [[0, 0, 1, 1, 2, 2, 3, 3]]})") + "}}");
  EXPECT_THAT(input_error([&] { routed(other_layers, 1); }), HasSubstr("no map of layer 1"));
}

}  // namespace
}  // namespace epsim
