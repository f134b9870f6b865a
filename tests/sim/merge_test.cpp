#include "sim/moe/merge.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/rng.h"

namespace epsim {
namespace {

using ::testing::ElementsAre;

const FfnShape kSmall{2, 2, Activation::swiglu, Precision::fp32};

/// Experts of all arrays with numbers of their own.
ExpertWeights random_experts(const FfnShape& s, std::int64_t count, std::uint64_t seed) {
  ExpertWeights w;
  std::uint64_t array = 0;
  for (auto [values, size] : {std::pair{&w.w1, s.hidden * s.ffn}, {&w.w3, s.hidden * s.ffn}, {&w.w2, s.ffn * s.hidden}, {&w.b1, s.ffn}, {&w.b3, s.ffn}, {&w.b2, s.hidden}}) {
    Rng rng(seed, Stream::test, array++);
    for (std::int64_t i = 0; i < count * size; ++i) values->push_back(static_cast<float>(rng.normal()));
  }
  return w;
}

/// Appends a copy of an expert whose u-th unit is unit order[u] of it.
void append_shuffled(const FfnShape& s, ExpertWeights& w, std::int64_t expert, const std::vector<int>& order) {
  const ExpertWeights from = w;
  const FfnView v = view_of(from, s, expert);
  for (std::int64_t i = 0; i < s.hidden; ++i)
    for (const int u : order) w.w1.push_back(v.w1[i * s.ffn + u]), w.w3.push_back(v.w3[i * s.ffn + u]);
  for (const int u : order) {
    for (std::int64_t i = 0; i < s.hidden; ++i) w.w2.push_back(v.w2[u * s.hidden + i]);
    w.b1.push_back(v.b1[u]), w.b3.push_back(v.b3[u]);
  }
  for (std::int64_t i = 0; i < s.hidden; ++i) w.b2.push_back(v.b2[i]);
}

void expect_equal(const ExpertWeights& a, const ExpertWeights& b) {
  for (auto array : {&ExpertWeights::w1, &ExpertWeights::w3, &ExpertWeights::w2, &ExpertWeights::b1, &ExpertWeights::b3, &ExpertWeights::b2}) EXPECT_EQ(a.*array, b.*array);
}

ExpertWeights first_of(const FfnShape& s, const ExpertWeights& w) {
  const auto cut = [](const std::vector<float>& values, std::int64_t size) { return std::vector<float>(values.begin(), values.begin() + size); };
  return {cut(w.w1, s.hidden * s.ffn), cut(w.w3, s.hidden * s.ffn), cut(w.w2, s.hidden * s.ffn), cut(w.b1, s.ffn), cut(w.b3, s.ffn), cut(w.b2, s.hidden)};
}

TEST(Merge, AveragesByHowOftenExpertsAreChosen) {
  ExpertWeights w;
  w.w1 = {1, 2, 3, 4, 5, 6, 7, 8}, w.w3 = {0, 0, 0, 0, 4, 4, 4, 4}, w.w2 = {8, 8, 8, 8, 0, 4, 8, 12};
  const ExpertMap one{1, {0, 0}, 0};
  const std::vector<std::int64_t> three_to_one = {3, 1}, never = {0, 0};
  const ExpertWeights by_use = merged_experts(kSmall, w, one, three_to_one, false), alike = merged_experts(kSmall, w, one, never, false);
  EXPECT_THAT(by_use.w1, ElementsAre(2, 3, 4, 5));
  EXPECT_THAT(by_use.w3, ElementsAre(1, 1, 1, 1));
  EXPECT_THAT(by_use.w2, ElementsAre(6, 7, 8, 9));
  EXPECT_TRUE(by_use.b1.empty());
  EXPECT_THAT(alike.w1, ElementsAre(3, 4, 5, 6));
}

TEST(Merge, KeepsExpertsThatStayAloneAndLeavesPrunedOnesOut) {
  const ExpertWeights w = random_experts(kSmall, 3, 1);
  const std::vector<std::int64_t> choices = {3, 7, 11};
  const ExpertWeights left = merged_experts(kSmall, w, ExpertMap{2, {1, kNoExpert, 0}, 0}, choices, true);
  for (const auto& [place, expert] : {std::pair{0, 2}, {1, 0}})
    for (std::size_t i = 0; i < 4; ++i) EXPECT_EQ(left.w2[static_cast<std::size_t>(place) * 4 + i], w.w2[static_cast<std::size_t>(expert) * 4 + i]);
  EXPECT_EQ(left.w1.size(), 8U);
}

// Weight matching finds the order that a copy's units were brought into, so that merging the two gives the expert itself, exactly.
TEST(Merge, RecoversAShuffledCopy) {
  const FfnShape s{5, 7, Activation::swiglu, Precision::fp32};
  const std::vector<int> order = {4, 2, 6, 0, 3, 1, 5};
  ExpertWeights w = random_experts(s, 1, 2);
  append_shuffled(s, w, 0, order);
  std::vector<int> inverse(7);
  for (int u = 0; u < 7; ++u) inverse[static_cast<std::size_t>(order[static_cast<std::size_t>(u)])] = u;
  EXPECT_EQ(matching_units(s, view_of(w, s, 0), view_of(w, s, 1)), inverse);
  const std::vector<std::int64_t> choices = {9, 4};
  expect_equal(merged_experts(s, w, ExpertMap{1, {0, 0}, 0}, choices, true), first_of(s, w));
  EXPECT_NE(merged_experts(s, w, ExpertMap{1, {0, 0}, 0}, choices, false).w1, first_of(s, w).w1);  // without matching it is another expert
}

TEST(Merge, OfEqualExpertsChangesNothing) {
  const FfnShape s{3, 4, Activation::swiglu, Precision::fp32};
  ExpertWeights w = random_experts(s, 1, 3);
  append_shuffled(s, w, 0, {0, 1, 2, 3}), append_shuffled(s, w, 0, {0, 1, 2, 3});
  const std::vector<std::int64_t> choices = {7, 1, 123457};
  for (const bool align : {false, true}) expect_equal(merged_experts(s, w, ExpertMap{1, {0, 0, 0}, 0}, choices, align), first_of(s, w));
}

}  // namespace
}  // namespace epsim
