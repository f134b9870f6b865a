#include "policies/compression.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <set>

#include "policies/compression_file.h"
#include "tests/support/part_from_yaml.h"
#include "tests/support/random_routing.h"

namespace epsim {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::input_error;
using testing::part_from_yaml;

constexpr std::uint16_t kNone = kNoExpert;

Shape shape_of(int experts, int top_k = 2) {
  Shape shape;
  shape.experts = experts, shape.top_k = top_k, shape.ranks = shape.nodes = 1;
  return shape;
}

ExpertMap decided(const std::string& yaml, const ExpertsSeen& seen, int top_k = 1) {
  const Shape shape = shape_of(seen.experts, top_k);
  return part_from_yaml(builtin_compressions(), yaml, &shape).decide(seen);
}

ExpertsSeen chosen(std::vector<std::int64_t> choices) {
  ExpertsSeen seen(0, static_cast<int>(choices.size()));
  seen.choices = std::move(choices);
  return seen;
}

/// A token's choices after a map.
struct Token {
  std::vector<std::uint16_t> experts;
  std::vector<float> weights;
};
Token compressed(const ExpertMap& map, Token token) {
  compress(map, token.experts, token.weights);
  return token;
}

// Experts 1 and 3 become one, expert 2 is pruned.
const ExpertMap kFive{3, {0, 1, kNone, 1, 2}, 0};

TEST(Compress, AddsUpChoicesThatBecomeOneExpert) {
  const Token both = compressed(kFive, {{3, 4, 1}, {0.5F, 0.25F, 0.25F}});
  EXPECT_THAT(both.experts, ElementsAre(1, 2, kNone));
  EXPECT_THAT(both.weights, ElementsAre(0.75F, 0.25F, 0));
}

TEST(Compress, GivesTheWeightOfPrunedExpertsToTheOthersInProportion) {
  const Token one = compressed(kFive, {{4, 2, 0}, {0.375F, 0.5F, 0.125F}});
  EXPECT_THAT(one.experts, ElementsAre(2, 0, kNone));
  EXPECT_THAT(one.weights, ElementsAre(0.75F, 0.25F, 0));  // 3 : 1, together 1
  const Token none = compressed(kFive, {{2}, {1}});
  EXPECT_THAT(none.experts, ElementsAre(kNone));
  EXPECT_THAT(none.weights, ElementsAre(0));
}

TEST(Compress, SkipsChoicesThatWeighLittleBesideTheFirst) {
  ExpertMap half = unchanged(4);
  half.skip_below = 0.5;
  const Token below = compressed(half, {{2, 0}, {0.75F, 0.25F}}), at = compressed(half, {{2, 0}, {0.5F, 0.25F}});
  EXPECT_THAT(below.experts, ElementsAre(2, kNone));
  EXPECT_THAT(below.weights, ElementsAre(1, 0));
  EXPECT_THAT(at.experts, ElementsAre(2, 0));
  EXPECT_THAT(at.weights, ElementsAre(0.5F, 0.25F));
}

// Experts 5 and 6 stand behind the five of the map and compute nothing: they become 3 and 4, behind the three that are left, and have their part of what others lose.
TEST(Compress, KeepsExpertsThatComputeNothing) {
  const Token both = compressed(kFive, {{6, 3, 1, 5}, {0.25F, 0.25F, 0.25F, 0.25F}});
  EXPECT_THAT(both.experts, ElementsAre(4, 1, 3, kNone));
  EXPECT_THAT(both.weights, ElementsAre(0.25F, 0.5F, 0.25F, 0));
  const Token pruned = compressed(kFive, {{5, 2, 0}, {0.25F, 0.5F, 0.25F}});
  EXPECT_THAT(pruned.experts, ElementsAre(3, 0, kNone));
  EXPECT_THAT(pruned.weights, ElementsAre(0.5F, 0.5F, 0));
  ExpertMap half = unchanged(4);
  half.skip_below = 0.5;
  const Token skipped = compressed(half, {{4, 2, 5, 0}, {0.5F, 0.25F, 0.125F, 0.125F}});  // they are neither skipped nor what others are weighed against
  EXPECT_THAT(skipped.experts, ElementsAre(4, 2, 5, 0));
  Routing routing;
  routing.experts = 4, routing.top_k = 2, routing.may_choose_fewer = true, routing.first_token = {0, 2}, routing.expert = {4, 2, 1, 3}, routing.weight = {0.75F, 0.25F, 0.5F, 0.25F};
  ExpertsSeen seen(0, 4);
  seen.add(routing);
  EXPECT_THAT(seen.choices, ElementsAre(0, 1, 1, 1));
  EXPECT_THAT(seen.second_shares, ElementsAre(0.5F));
}

TEST(Compress, KeepsWeightsTogetherAndExpertsDifferent) {
  const Routing whole = testing::random_routing({200, 100}, 8, 4, 5);
  const ExpertMap map{4, {0, 0, 1, kNone, 2, 2, kNone, 3}, 0};
  for (std::size_t t = 0; t < whole.expert.size(); t += 4) {
    const Token before{{whole.expert.begin() + static_cast<std::ptrdiff_t>(t), whole.expert.begin() + static_cast<std::ptrdiff_t>(t) + 4},
                       {whole.weight.begin() + static_cast<std::ptrdiff_t>(t), whole.weight.begin() + static_cast<std::ptrdiff_t>(t) + 4}};
    const Token after = compressed(map, before);
    std::set<std::uint16_t> wanted, made;
    for (const std::uint16_t e : before.experts)
      if (map.to[e] != kNone) wanted.insert(map.to[e]);
    bool open = false;
    for (const std::uint16_t e : after.experts) {
      if (e == kNone) open = true;
      else EXPECT_TRUE(made.insert(e).second && !open);  // none twice, and none behind a choice that is not made
    }
    EXPECT_EQ(made, wanted);
    const auto sum = [](const std::vector<float>& w) { return std::accumulate(w.begin(), w.end(), 0.0F); };
    if (!made.empty()) EXPECT_NEAR(sum(after.weights), sum(before.weights), 1e-5);
  }
}

TEST(Compress, PruningAnExpertThatNobodyChoseOnlyNumbersTheOthersAnew) {
  Routing routing = testing::random_routing({100}, 6, 3, 1);
  for (std::uint16_t& e : routing.expert) e = e < 2 ? e : static_cast<std::uint16_t>(e + 1);  // expert 2 of 7 is chosen by nobody
  routing.experts = 7;
  ExpertsSeen seen(0, 7);
  seen.add(routing);
  const ExpertMap map = decided("frequency_prune: {keep: 6}", seen, 3);
  EXPECT_THAT(map.to, ElementsAre(0, 1, kNone, 2, 3, 4, 5));
  for (std::size_t t = 0; t < routing.expert.size(); t += 3) {
    const Token before{{routing.expert.begin() + static_cast<std::ptrdiff_t>(t), routing.expert.begin() + static_cast<std::ptrdiff_t>(t) + 3},
                       {routing.weight.begin() + static_cast<std::ptrdiff_t>(t), routing.weight.begin() + static_cast<std::ptrdiff_t>(t) + 3}};
    const Token after = compressed(map, before);
    EXPECT_EQ(after.weights, before.weights);  // bit for bit
    for (std::size_t c = 0; c < 3; ++c) EXPECT_EQ(after.experts[c], before.experts[c] < 2 ? before.experts[c] : before.experts[c] - 1);
  }
}

TEST(Compressions, PruneTheLeastChosenAndKeepTheFirstOfEquals) {
  EXPECT_THAT(decided("frequency_prune: {keep: 2}", chosen({5, 9, 9, 1})).to, ElementsAre(kNone, 0, 1, kNone));
  EXPECT_THAT(decided("frequency_prune: {keep: 2}", chosen({3, 7, 3, 3})).to, ElementsAre(0, 1, kNone, kNone));
}

TEST(Compressions, ReapPrunesTheLeastSalient) {
  ExpertsSeen seen = chosen({1, 100, 1, 100});
  seen.saliency = {0.3, 0.1, 0.2, 0.1};
  EXPECT_THAT(decided("reap: {keep: 3}", seen).to, ElementsAre(0, 1, 2, kNone));
}

TEST(Compressions, MergeIntoTheDominantExpertOfTheMostSimilarLogits) {
  ExpertsSeen seen = chosen({10, 1, 8, 2});
  // Two tokens; by experts the columns are (1, 0), (2, 1), (0, 1), (0, 3): expert 1 has the cosines 2/sqrt 5 and 1/sqrt 5 with experts 0 and 2, expert 3 has 0 and 1.
  seen.add_products(std::vector<float>{1, 2, 0, 0, 0, 1, 1, 3});
  EXPECT_DOUBLE_EQ(seen.likeness(0, 1), 2 / std::sqrt(5.0));
  const ExpertMap map = decided("frequency_merge: {keep: 2}", seen);
  EXPECT_EQ(map.experts, 2);
  EXPECT_THAT(map.to, ElementsAre(0, 0, 1, 1));
}

TEST(Compressions, WithChoicesAloneWeightsStandForLogits) {
  Routing routing;
  routing.experts = 4, routing.top_k = 2, routing.first_token = {0, 4};
  routing.expert = {0, 1, 2, 3, 0, 3, 0, 2}, routing.weight = {0.5F, 0.5F, 0.5F, 0.5F, 0.75F, 0.25F, 0.5F, 0.5F};
  ExpertsSeen seen(0, 4);
  seen.add(routing), seen.add_products(routing);
  EXPECT_THAT(seen.choices, ElementsAre(3, 1, 2, 2));
  EXPECT_DOUBLE_EQ(seen.likeness(3, 2), 0.25 / std::sqrt(0.3125 * 0.5));
  EXPECT_DOUBLE_EQ(seen.likeness(3, 0), 0.1875 / std::sqrt(0.3125 * 1.0625));
  EXPECT_THAT(decided("frequency_merge: {keep: 2}", seen).to, ElementsAre(0, 0, 1, 1));  // 0 and the first of 2 and 3 are dominant
}

Matrix<double> on_a_line(const std::vector<double>& points) {
  Matrix<double> m(static_cast<std::int64_t>(points.size()), 1);
  m.cells = points;
  return m;
}

TEST(Compressions, ClusterByAverageLinkage) {
  ExpertsSeen seen = chosen({1, 1, 1, 1});
  // {0, 2} first. To 4.5 it is then 2.5 by its nearest member, but 3.5 in the mean, more than the 2.7 between 4.5 and 7.2: single linkage would answer otherwise.
  seen.mean_output = on_a_line({4.5, 0, 7.2, 2});
  EXPECT_THAT(decided("output_clusters: {keep: 2}", seen).to, ElementsAre(0, 1, 0, 1));
  // {0, 2} to 4.6: 3.6 in the mean, less than the 3.8 to 8.4, though 4.6 by its farthest: complete linkage would answer otherwise.
  seen.mean_output = on_a_line({0, 2, 4.6, 8.4});
  EXPECT_THAT(decided("output_clusters: {keep: 2}", seen).to, ElementsAre(0, 0, 0, 1));
}

TEST(Compressions, SkipBelowTheMedianShare) {
  ExpertsSeen seen = chosen({2, 2});
  seen.second_shares = {0.75F, 0.25F, 1, 0.125F};
  const ExpertMap map = decided("skip_second", seen, 2);
  EXPECT_DOUBLE_EQ(map.skip_below, 0.5);
  EXPECT_THAT(map.to, ElementsAre(0, 1));
  EXPECT_DOUBLE_EQ(decided("skip_second: {beta: 0.3}", seen, 2).skip_below, 0.3);
}

// I11
TEST(Compressions, SayWhatIsWrong) {
  const auto says = [](const std::string& yaml, const std::string& what, Shape shape = shape_of(8)) {
    EXPECT_THAT(input_error([&] { part_from_yaml(builtin_compressions(), yaml, &shape); }), HasSubstr(what));
  };
  says("frequency_prune", "keep");
  says("frequency_prune: {keep: 9}", "9 experts cannot be left, the model has 8");
  says("reap: {keep: 1}", "a token chooses 2");
  says("frequency_prune: {keep: 4, align: true}", "align");
  says("reapp: {keep: 4}", "did you mean `reap`");
  says("skip_second", "top_k is 3", shape_of(8, 3));
  says("given: {file: no/such/file}", "no/such/file");
  Shape one = shape_of(8, 1);
  one.source_has_choices = true;
  says("frequency_merge: {keep: 4}", "nothing says which experts are alike", one);
  Shape bare = shape_of(8);
  bare.source_has_choices = true, bare.source_has_weights = false;
  says("skip_second", "no weights", bare);
}

CompressionFile read(const std::string& text) { return read_compression(std::make_shared<SourceText>(SourceText{"maps.json", text})); }

TEST(CompressionFile, ReadsWhatItWrites) {
  CompressionFile file{{3, 1}, {kFive, kFive}};
  file.maps[0].skip_below = 0.1;
  const CompressionFile again = read(to_json(file));
  EXPECT_EQ(again.layers, file.layers);
  EXPECT_EQ(again.maps[0].skip_below, 0.1);
  EXPECT_EQ(again.maps[1].skip_below, 0);
  for (const ExpertMap& map : again.maps) {
    EXPECT_EQ(map.to, kFive.to);
    EXPECT_EQ(map.experts, 3);
    EXPECT_EQ(map.pruned(), 1);
  }
}

TEST(CompressionFile, SaysWhatIsWrong) {
  const auto says = [](const std::string& text, const std::string& what) { EXPECT_THAT(input_error([&] { read(text); }), HasSubstr(what)) << text; };
  says("[1]", "expected an object");
  says(R"({"becomes": [[0]]})", "no key `layers`");
  says(R"({"layers": [0], "becomes": []})", "names 1 layers");
  says(R"({"layers": [], "becomes": []})", "names 0 layers");
  says(R"({"layers": [0, 0], "becomes": [[0], [0]]})", "layer 0 twice");
  says(R"({"layers": [0], "becomes": [[0, 2]]})", "becomes 2, a layer has 2");
  says(R"({"layers": [0], "becomes": [[0, 2, 2]]})", "no expert becomes 1");
  says(R"({"layers": [0], "becomes": [[-1, -1]]})", "must be left with an expert");
  says(R"({"layers": [0], "becomes": [[-2]]})", "from -1 to");
  says(R"({"layers": [0], "becomes": [["0"]]})", "becomes");
  says(R"({"layers": [0, 1], "becomes": [[0, 1], [0, 0]]})", "layers must agree");
  says(R"({"layers": [0, 1], "becomes": [[0, 0], [0, -1]]})", "layers must agree");
  says(R"({"layers": [0], "becomes": [[0]], "skip_below": [2]})", "from 0 to 1");
  says(R"({"layers": [0], "becomes": [[0]], "skip_below": []})", "a number for each");
  says(R"({"layers": [0], "becomes": [[0]], "skip_below": 1})", "must be a list");
  says(R"({"layers": [0], "becomes": [[0]])", "maps.json:1");
}

}  // namespace
}  // namespace epsim
