#include "policies/capacity.h"

#include <gmock/gmock.h>

#include "tests/support/part_from_yaml.h"

namespace epsim {
namespace {

using ::testing::HasSubstr;
using testing::input_error;
using testing::part_from_yaml;

Capacity capacity(const std::string& yaml, const Shape* shape = nullptr) { return part_from_yaml(builtin_capacities(), yaml, shape); }

/// The capacity of an expert for a rank with `tokens` tokens.
std::int64_t megatron(std::int64_t tokens, int experts, int top_k, const std::string& settings) {
  Routing routing;
  routing.experts = experts, routing.top_k = top_k;
  routing.first_token = {0, tokens};
  const Matrix<std::int64_t> limits = capacity("megatron: {" + settings + "}").limits(Matrix<std::int64_t>(1, experts), routing);
  EXPECT_EQ(limits.rows, 1);
  EXPECT_EQ(limits.columns, experts);
  for (const std::int64_t l : limits.cells) EXPECT_EQ(l, limits.cells.front());
  return limits.cells.front();
}

TEST(Megatron, RoundsAsThePublishedProgram) {
  EXPECT_EQ(megatron(1000, 64, 2, "factor: 1.25"), 40);
  EXPECT_EQ(megatron(100, 64, 2, "factor: 1.0"), 4);
  EXPECT_EQ(megatron(30, 64, 2, "factor: 1.0"), 1);
  EXPECT_EQ(megatron(4096, 256, 8, "factor: 1.25"), 160);
  EXPECT_EQ(megatron(1000, 8, 6, "factor: 1.1"), 826) << "750 x 1.1 is above 825 in double precision";
  EXPECT_EQ(megatron(100, 8, 4, "factor: 1.1"), 56);
}

TEST(Megatron, ComputesExactlyOnRequest) {
  EXPECT_EQ(megatron(1000, 8, 6, "factor: 1.1, arithmetic: exact"), 825);
  EXPECT_EQ(megatron(1000, 8, 6, "factor: 11/10, arithmetic: exact"), 825);
  EXPECT_EQ(megatron(100, 8, 4, "factor: 1.1, arithmetic: exact"), 55);
  EXPECT_EQ(megatron(1000, 64, 2, "factor: 1.25, arithmetic: exact"), 40);
  EXPECT_EQ(megatron(4, 3, 1, "factor: 3/4, arithmetic: exact"), 1);
  EXPECT_EQ(megatron(4, 3, 1, "factor: 5/4, arithmetic: exact"), 2);
}

TEST(Megatron, HasNoCapacityWithoutTokensButAtLeastTheMinimum) {
  EXPECT_EQ(megatron(0, 8, 2, "factor: 2"), 0);
  EXPECT_EQ(megatron(30, 64, 2, "factor: 1, min_capacity: 4"), 4);
  EXPECT_EQ(megatron(1000, 64, 2, "factor: 1.25, min_capacity: 4"), 40);
}

TEST(Megatron, SurvivesHugeFactors) {
  for (const std::string arithmetic : {"double", "exact"}) {
    EXPECT_GE(megatron(std::int64_t{1} << 31, 1, 64, "factor: 1000000000000, arithmetic: " + arithmetic), std::int64_t{1} << 37) << arithmetic;
    EXPECT_EQ(megatron(10, 8, 2, "factor: 0.000001, arithmetic: " + arithmetic), 1) << arithmetic;
  }
}

TEST(Megatron, CountsEachSourceRanksOwnTokens) {
  Routing routing;
  routing.experts = 4, routing.top_k = 2;
  routing.first_token = {0, 10, 10, 30};
  const Matrix<std::int64_t> limits = capacity("megatron: {factor: 1}").limits(Matrix<std::int64_t>(3, 4), routing);
  EXPECT_EQ(limits(0, 3), 5);
  EXPECT_EQ(limits(1, 0), 0);
  EXPECT_EQ(limits(2, 2), 10);
}

TEST(Megatron, OrdersByProbabilityByDefault) {
  EXPECT_EQ(capacity("megatron: {factor: 1}").order, Capacity::Order::probability);
  EXPECT_EQ(capacity("megatron: {factor: 1, order: position}").order, Capacity::Order::position);
}

TEST(KeptChoices, AreAllThatSomeReplicaMayTake) {
  Routing routing;
  routing.experts = 4, routing.top_k = 2, routing.first_token = {0, 10};
  Matrix<std::int64_t> choices(1, 4);
  choices.cells = {10, 6, 4, 0};  // 5 fit
  const auto kept = [&](const std::string& overflow) { return kept_choices(capacity("megatron: {factor: 1, overflow: " + overflow + "}"), routing, choices).cells; };
  EXPECT_EQ(kept("drop"), (std::vector<std::int64_t>{5, 5, 4, 0}));
  EXPECT_EQ(kept("pad"), (std::vector<std::int64_t>{5, 5, 4, 0}));
  EXPECT_EQ(kept("none"), choices.cells);
  EXPECT_EQ(kept("other_replica"), choices.cells);
}

// I11
TEST(Megatron, RefusesWhatItCannotUse) {
  Shape shape{.experts = 8, .top_k = 2, .ranks = 4, .nodes = 1, .source_has_choices = true, .source_has_weights = false};
  const auto error = [&](const std::string& yaml) { return input_error([&] { capacity(yaml, &shape); }); };
  EXPECT_THAT(error("megatron: {factor: 1, order: probability}"), HasSubstr("test.yaml:1:30: error: the source has no weights"));
  EXPECT_THAT(error("megatron: {factor: 1}"), HasSubstr("the source has no weights")) << "also where the default asks for it";
  EXPECT_EQ(error("megatron: {factor: 1, order: position}"), "");
  shape.source_has_weights = true;
  EXPECT_EQ(error("megatron: {factor: 1}"), "");
  shape.source_has_choices = false, shape.source_has_weights = false;
  EXPECT_EQ(error("megatron: {factor: 1}"), "") << "a router gives the weights";
  EXPECT_THAT(error("megatron"), HasSubstr("needs `factor`"));
  EXPECT_THAT(error("megatron: {factor: 0}"), HasSubstr("`factor` must be a fraction above 0"));
  EXPECT_THAT(error("megatron: {factor: 1, order: probabilty}"), HasSubstr("did you mean `probability`?"));
  EXPECT_THAT(error("megatron: {factor: 1, overflow: reroute}"), HasSubstr("`overflow` has no value `reroute`"));
  EXPECT_THAT(error("dropless: {factor: 1}"), HasSubstr("capacity `dropless` has no setting `factor`"));
}

TEST(Dropless, HasNoLimits) { EXPECT_FALSE(capacity("dropless").limits); }

TEST(Capacities, AllSayWhatTheyAreWhenListed) {
  const CapacityCatalog catalog = builtin_capacities();
  for (const CapacityCatalog::Entry& entry : catalog.entries()) {
    Params listing;
    EXPECT_FALSE(entry.make(listing, nullptr).summary.empty()) << entry.name;
  }
}

}  // namespace
}  // namespace epsim
