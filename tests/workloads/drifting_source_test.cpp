// Sources whose expert popularity changes from batch to batch.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <numeric>
#include <set>

#include "tests/support/part_from_yaml.h"
#include "workloads/source.h"

namespace epsim {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

SourceContext context(int experts = 16, int ranks = 4, std::uint64_t seed = 7) {
  SourceContext c;
  c.experts = experts, c.top_k = 2, c.ranks = ranks, c.hidden = 16, c.seed = seed, c.batches = 1000;
  c.moe_layers = c.layers = {1, 3};
  return c;
}

Source make(const std::string& yaml, const SourceContext& c = context()) { return testing::part_from_yaml(builtin_sources(), yaml, &c); }
std::string refusal(const std::string& yaml, const SourceContext& c = context()) {
  return testing::input_error([&] { make(yaml, c); });
}

/// Scores of some tokens, row by row.
std::vector<float> rows(const Source& s, int layer, std::int64_t first, std::int64_t count, int experts) {
  std::vector<float> blocks(score_count(count, experts)), out;
  s.scores(layer, first, count, blocks);
  for (std::int64_t i = 0; i < count * experts; ++i) out.push_back(blocks[score_index(i / experts, i % experts, experts)]);
  return out;
}

/// A source's popularity in a batch, up to nothing: a score is noise of (token, expert) over popularity, and `uniform` has the same noise over 1.
std::vector<double> popularity(const Source& s, int layer, int batch, const SourceContext& c = context()) {
  const Source even = make("uniform: {tokens: 4}", c);
  const std::int64_t token = batch * s.tokens();
  const std::vector<float> mine = rows(s, layer, token, 1, c.experts), noise = rows(even, layer, token, 1, c.experts);
  std::vector<double> out;
  for (std::size_t e = 0; e < mine.size(); ++e) out.push_back(static_cast<double>(noise[e]) / static_cast<double>(mine[e]));
  return out;
}

std::set<std::size_t> hot_experts(const std::vector<double>& popularity, double factor) {
  std::set<std::size_t> out;
  for (std::size_t e = 0; e < popularity.size(); ++e) {
    if (popularity[e] > 1.5) {
      EXPECT_NEAR(popularity[e], factor, 1e-5 * factor);
      out.insert(e);
    } else {
      EXPECT_NEAR(popularity[e], 1, 1e-5);
    }
  }
  return out;
}

TEST(Rotating, ComesBackAfterItsPeriodAndNotBefore) {
  // E / gcd(E, step) stretches: 16 / gcd(16, 6) = 8, of 3 batches each.
  const Source s = make("rotating: {tokens: 4, hot: 2, factor: 5, step: 6, every: 3}");
  for (int b = 0; b < 48; ++b) {
    const std::size_t first = static_cast<std::size_t>(b / 3 * 6 % 16);
    EXPECT_EQ(hot_experts(popularity(s, 1, b), 5), (std::set<std::size_t>{first, (first + 1) % 16})) << b;
    EXPECT_EQ(hot_experts(popularity(s, 3, b), 5), hot_experts(popularity(s, 1, b), 5)) << "the same in all layers";
  }
  EXPECT_EQ(hot_experts(popularity(s, 1, 24), 5), hot_experts(popularity(s, 1, 0), 5));
  for (int b = 3; b < 24; ++b) EXPECT_NE(hot_experts(popularity(s, 1, b), 5), hot_experts(popularity(s, 1, 0), 5));
}

TEST(Rotating, IsChosenInProportion) {
  const SourceContext c = context();
  const Source s = make("rotating: {tokens: 40000, hot: 4, factor: 3}");
  const std::vector<float> scores = rows(s, 1, 2 * 40'000, 40'000, c.experts);  // batch 2: experts 8 to 11
  std::vector<double> first(16);
  for (auto row = scores.begin(); row != scores.end(); row += 16) ++first[static_cast<std::size_t>(std::max_element(row, row + 16) - row)];
  for (std::size_t e = 0; e < 16; ++e) {
    const double p = (e >= 8 && e < 12 ? 3.0 : 1.0) / (12 + 4 * 3);
    EXPECT_NEAR(first[e], 40'000 * p, 4.5 * std::sqrt(40'000 * p * (1 - p))) << e;
  }
}

TEST(Drift, IsStationaryAndForgetsInAStraightLine) {
  const SourceContext c = context(512);
  const Source s = make("drift: {tokens: 4, sigma: 0.5, memory: 10}", c);
  std::vector<std::vector<double>> log(31);
  for (int b = 0; b <= 30; ++b)
    for (const int layer : {1, 3})
      for (const double p : popularity(s, layer, b, c)) log[static_cast<std::size_t>(b)].push_back(std::log(p) / 0.5);
  const auto product = [&](std::size_t a, std::size_t b) { return std::inner_product(log[a].begin(), log[a].end(), log[b].begin(), 0.0) / 1024; };
  // A mean of n products of standard normals has deviation below sqrt(2 / n) = 0.044.
  for (std::size_t b = 0; b <= 30; ++b) EXPECT_NEAR(product(b, b), 1, 4.5 * std::sqrt(2.0 / 1024)) << b;
  for (std::size_t lag = 0; lag <= 20; ++lag) EXPECT_NEAR(product(5, 5 + lag), std::max(0.0, 1 - static_cast<double>(lag) / 10), 4.5 * std::sqrt(2.0 / 1024)) << lag;
}

TEST(Burst, LastsItsLengthAndComesByChance) {
  const Source s = make("burst: {tokens: 4, hot: 3, factor: 4, length: 2, chance: 0.25}");
  int bursts = 0;
  std::set<std::set<std::size_t>> sets;
  for (int window = 0; window < 400; ++window) {
    const std::vector<double> now = popularity(s, 1, 2 * window);
    const std::set<std::size_t> hot = hot_experts(now, 4);
    EXPECT_TRUE(hot.empty() || hot.size() == 3);
    EXPECT_EQ(hot_experts(popularity(s, 1, 2 * window + 1), 4), hot);
    if (!hot.empty()) ++bursts, sets.insert(hot);
  }
  EXPECT_NEAR(bursts, 100, 4.5 * std::sqrt(400 * 0.25 * 0.75));
  EXPECT_GT(sets.size(), 60U) << "other experts each time: of 560 sets, 100 draws";
  const Source always = make("burst: {tokens: 4, chance: 1, sigma: 1}"), never = make("burst: {tokens: 4, chance: 0, sigma: 1}");
  const std::vector<double> base = popularity(never, 1, 0), more = popularity(always, 1, 0);
  EXPECT_EQ(popularity(never, 1, 77).size(), base.size());
  int raised = 0;
  for (std::size_t e = 0; e < 16; ++e) raised += more[e] > 2 * base[e] ? 1 : 0;
  EXPECT_EQ(raised, 1) << "a sixteenth of 16";
}

TEST(Topics, ChangeTogetherAndReturn) {
  const auto shape = [](const std::vector<double>& p) {  // rounded, for float noise differs from token to token
    std::vector<int> out;
    for (const double x : p) out.push_back(static_cast<int>(std::lround(1e3 * std::log(x))));
    return out;
  };
  const Source s = make("topics: {tokens: 4, topics: 3, every: 2}");
  for (int b = 0; b < 6; ++b) {
    EXPECT_EQ(shape(popularity(s, 1, b)), shape(popularity(s, 1, b + 6)));
    EXPECT_EQ(shape(popularity(s, 1, b)) == shape(popularity(s, 1, b + 1)), b % 2 == 0);
  }
  const Source random = make("topics: {tokens: 4, topics: 3, every: 1, order: random}");
  std::map<std::vector<int>, int> seen;
  for (int b = 0; b < 300; ++b) ++seen[shape(popularity(random, 1, b))];
  EXPECT_EQ(seen.size(), 3U);
  for (const auto& [topic, times] : seen) EXPECT_NEAR(times, 100, 4.5 * std::sqrt(300 * 2 / 9.0));
}

// I5
TEST(Drifting, ATokenWantsTheSameHoweverTokensAreAskedFor) {
  for (const std::string part : {"drift", "burst", "rotating", "topics", "imbalance"}) {
    const std::string settings = part == "imbalance" ? "preset: W6, " : part == "burst" ? "chance: 1, length: 1, " : part == "topics" ? "every: 1, " : "";
    const Source s = make(part + ": {" + settings + "tokens: 21}");
    const std::vector<float> whole = rows(s, 3, 0, 100, 16);  // batches end at 21, 42, 63, 84: inside blocks of 16
    for (std::int64_t t = 0; t < 100; ++t) {
      const std::vector<float> alone = rows(s, 3, t, 1, 16);
      for (std::size_t e = 0; e < 16; ++e) ASSERT_EQ(alone[e], whole[static_cast<std::size_t>(t) * 16 + e]) << part << " token " << t;
    }
    for (const auto& [first, count] : std::vector<std::pair<std::int64_t, std::int64_t>>{{5, 90}, {20, 2}, {37, 50}}) {
      const std::vector<float> piece = rows(s, 3, first, count, 16);
      for (std::size_t i = 0; i < piece.size(); ++i) ASSERT_EQ(piece[i], whole[static_cast<std::size_t>(first) * 16 + i]) << part;
    }
    EXPECT_NE(rows(make(part + ": {" + settings + "tokens: 21}", context(16, 4, 8)), 3, 0, 100, 16), whole) << "another seed";
  }
}

TEST(Imbalance, HasEightKinds) {
  const auto hot = [](const std::string& name, int batch) { return hot_experts(popularity(make("imbalance: {tokens: 4, preset: " + name + "}"), 1, batch), 8); };
  using Set = std::set<std::size_t>;
  EXPECT_EQ(hot("W0", 0), Set{});
  EXPECT_EQ(hot("W1", 0).size(), 1U) << "16 / 16";
  EXPECT_EQ(hot("W1", 0), hot("W1", 9));
  EXPECT_EQ(hot("W2", 3), (Set{0, 1, 2, 3})) << "the block of rank 0";
  EXPECT_EQ(hot("W3", 3), (Set{0, 4, 8, 12})) << "as many, one a rank";
  EXPECT_EQ(hot("W4", 0), Set{});
  EXPECT_EQ(hot("W6", 0), (Set{0, 1, 2, 3}));
  EXPECT_EQ(hot("W6", 5), (Set{4, 5, 6, 7}));
  int bursts = 0;
  for (int b = 0; b < 400; b += 4) bursts += hot("W7", b).empty() ? 0 : 1;
  EXPECT_NEAR(bursts, 25, 4.5 * std::sqrt(100 * 0.25 * 0.75));
  // Rank r has (2r + 1) of 16 parts.
  EXPECT_THAT(make("imbalance: {tokens: 1600, preset: W4}").first_token, ElementsAre(0, 100, 400, 900, 1600));
  const std::vector<float> scores = rows(make("imbalance: {tokens: 4000, preset: W5}"), 1, 0, 4000, 16);
  for (auto row = scores.begin(); row != scores.end(); row += 16) EXPECT_GE(std::max_element(row, row + 16) - row, 4) << "nobody chooses an expert of rank 0";
}

TEST(Imbalance, RefusesWhatHasNoEffect) {
  EXPECT_THAT(refusal("imbalance: {tokens: 4, preset: W0, factor: 3}"), HasSubstr("`factor` has no use in W0"));
  EXPECT_THAT(refusal("imbalance: {tokens: 4, preset: W8}"), HasSubstr("`preset` has no value `W8`"));
  EXPECT_THAT(refusal("imbalance: {tokens: 4, preset: W2}", context(2)), HasSubstr("W2 needs an expert on each rank: there are 2 experts and 4 ranks"));
  EXPECT_THAT(refusal("imbalance: {tokens: 4, preset: W5}", context(4, 1)), HasSubstr("W5 needs top_k = 2 experts outside the 4 of rank 0, there are 0"));
  EXPECT_THAT(refusal("rotating: {tokens: 4, hot: 17}"), HasSubstr("17 experts cannot be hot, the model has 16"));
}

}  // namespace
}  // namespace epsim
