#include <gmock/gmock.h>

#include <algorithm>

#include "policies/placement.h"
#include "tests/support/part_from_yaml.h"

namespace epsim {
namespace {

using ::testing::ElementsAre;
using ::testing::ElementsAreArray;
using ::testing::HasSubstr;
using testing::input_error;
using testing::part_from_yaml;

using Loads = std::vector<std::vector<std::int64_t>>;

/// The example in the README of github.com/deepseek-ai/EPLB.
const Loads kReadmeLoads = {{90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86}, {20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27}};

std::vector<Placement> eplb(const std::string& settings, const Loads& loads, int ranks, int nodes, int model_groups = 1) {
  Problem p;
  p.experts = static_cast<int>(loads[0].size()), p.ranks = ranks, p.nodes = nodes, p.expert_groups = model_groups;
  for (std::size_t l = 0; l < loads.size(); ++l) {
    p.layers.push_back(static_cast<int>(l));
    p.counts.emplace_back(1, p.experts).cells = loads[l];
  }
  const Shape shape{.experts = p.experts, .top_k = 2, .ranks = ranks, .nodes = nodes, .expert_groups = model_groups};
  std::vector<Placement> placements = part_from_yaml(builtin_placements(), "eplb: {" + settings + "}", &shape).place(p);
  for (const Placement& placement : placements) placement.check(p.experts);
  return placements;
}

double largest_rank_load(const Placement& p, const std::vector<std::int64_t>& loads) {
  std::vector<double> rank(static_cast<std::size_t>(p.ranks()));
  for (const Slot s : ids<Slot>(p.slots())) {
    const std::size_t e = p.expert_of_slot[static_cast<std::size_t>(s)];
    rank[static_cast<std::size_t>(p.rank_of(s))] += static_cast<double>(loads[e]) / static_cast<double>(p.slots_of_expert[e].size());
  }
  return *std::ranges::max_element(rank);
}

TEST(Eplb, GivesTheReadmesPlacement) {
  const std::vector<Placement> p = eplb("slots: 16, groups: 4", kReadmeLoads, 8, 2);
  EXPECT_THAT(p[0].expert_of_slot, ElementsAre(5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1));
  EXPECT_THAT(p[1].expert_of_slot, ElementsAre(7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1));
  EXPECT_DOUBLE_EQ(largest_rank_load(p[0], kReadmeLoads[0]), 156.0);
  EXPECT_DOUBLE_EQ(largest_rank_load(p[1], kReadmeLoads[1]), 179.5);
}

TEST(Eplb, GlobalIgnoresNodes) {
  const std::vector<Placement> p = eplb("slots: 16, mode: global", kReadmeLoads, 8, 2);
  EXPECT_DOUBLE_EQ(largest_rank_load(p[0], kReadmeLoads[0]), 138.5);
  EXPECT_DOUBLE_EQ(largest_rank_load(p[1], kReadmeLoads[1]), 172.0);
}

TEST(Eplb, FallsBackToGlobalWhereGroupsDoNotDivideByNodes) {
  const std::vector<Placement> global = eplb("slots: 16, mode: global", kReadmeLoads, 8, 2);
  const std::vector<Placement> fallback = eplb("slots: 16, groups: 3", kReadmeLoads, 8, 2);
  EXPECT_EQ(fallback[0].expert_of_slot, global[0].expert_of_slot);
  EXPECT_EQ(eplb("slots: 16", kReadmeLoads, 8, 3, 4)[1].expert_of_slot, global[1].expert_of_slot) << "ranks need not divide by nodes then";
}

TEST(Eplb, TakesTheModelsGroupsByDefault) {
  EXPECT_EQ(eplb("slots: 16", kReadmeLoads, 8, 2, 4)[0].expert_of_slot, eplb("slots: 16, groups: 4", kReadmeLoads, 8, 2, 1)[0].expert_of_slot);
}

TEST(Eplb, BalancesASkewedExampleAsPublished) {
  const Loads loads = {{600, 560, 120, 120, 20, 10, 10, 10}};
  EXPECT_DOUBLE_EQ(largest_rank_load(eplb("slots: 16", loads, 8, 1)[0], loads[0]), 232.0);  // the number quoted in vLLM pull request 37656
}

TEST(Eplb, OrdersReplicasAsTheyWereMadeNotBySlot) {
  // Expert 2 is copied first, when its load is 90; its first copy weighs as much as the second, and both are packed after expert 1.
  const Placement p = eplb("slots: 4, mode: global", {{10, 60, 90}}, 2, 1)[0];
  EXPECT_THAT(p.expert_of_slot, ElementsAre(1, 0, 2, 2));
  EXPECT_THAT(p.slots_of_expert[2], ElementsAre(Slot(2), Slot(3)));
  // With one slot a rank nothing is sorted: copies lie in the order they were made.
  const Placement flat = eplb("slots: 6, mode: global", {{10, 60, 90}}, 6, 1)[0];
  EXPECT_THAT(flat.expert_of_slot, ElementsAre(0, 1, 2, 2, 1, 2));
}

TEST(Eplb, BreaksTiesByTheLowestIndex) {
  const Placement p = eplb("slots: 6, mode: global", {{5, 5, 5, 5}}, 3, 1)[0];
  EXPECT_THAT(p.expert_of_slot, ElementsAre(2, 0, 3, 1, 0, 1))
      << "0 and 1 are copied; then whole experts 2 and 3 are packed first, and the halves in the order they were made";
}

TEST(Eplb, MayPutTwoReplicasOnOneRank) {
  const Placement p = eplb("slots: 6, mode: global", {{100, 1, 1}}, 2, 1)[0];
  EXPECT_EQ(p.slots_of_expert[0].size(), 4U);
}

TEST(Eplb, GivesOneRedundantSlotARankByDefault) {
  EXPECT_EQ(eplb("mode: global", kReadmeLoads, 8, 2)[0].slots(), 24) << "12 experts rounded up to 16, and 8 more";
  EXPECT_EQ(eplb("mode: global", kReadmeLoads, 6, 2)[0].slots(), 18);
}

TEST(Eplb, ComputesInFloat32AsTheOriginal) {
  // 2^24 and 2^24 + 1 are one float: a tie, which the lowest index wins; in double the second would be copied.
  const Placement p = eplb("slots: 3, mode: global", {{16'777'216, 16'777'217}}, 3, 1)[0];
  EXPECT_THAT(p.expert_of_slot, ElementsAre(0, 1, 0));
}

// I11
TEST(Eplb, SaysWhyItCannotUseASetting) {
  const auto error = [](const std::string& settings, int ranks, int nodes, int model_groups = 1) {
    return input_error([&] { eplb(settings, kReadmeLoads, ranks, nodes, model_groups); });
  };
  EXPECT_THAT(error("slots: 8", 8, 2), HasSubstr("test.yaml:1:15: error: 8 slots are fewer than the 12 experts"));
  EXPECT_THAT(error("slots: 17", 8, 2), HasSubstr("test.yaml:1:15: error: 17 slots do not divide by 8 ranks"));
  EXPECT_THAT(error("slots: 17", 8, 2), HasSubstr("24 would do"));
  EXPECT_THAT(error("slots: 16, groups: 5", 8, 2), HasSubstr("test.yaml:1:27: error: 12 experts do not divide into 5 groups"));
  EXPECT_THAT(error("slots: 18, groups: 3", 9, 3), "") << "the control";
  EXPECT_THAT(error("slots: 16, groups: 4", 8, 4), "");
  EXPECT_THAT(error("slots: 18, groups: 4", 9, 2), HasSubstr("9 ranks do not divide over 2 nodes"));
  EXPECT_THAT(error("slots: 16, groups: 3, mode: hierarchical", 8, 2), HasSubstr("test.yaml:1:36: error: 3 expert groups do not divide over 2 nodes"));
  EXPECT_THAT(error("slots: 16, groups: 4, mode: global", 8, 2), HasSubstr("`groups` has no use in `mode: global`"));
  EXPECT_THAT(error("slots: 16, mode: globl", 8, 2), HasSubstr("did you mean `global`?"));
  const std::string both = error("slots: 17, groups: 5", 8, 2);
  EXPECT_THAT(both, HasSubstr("17 slots"));
  EXPECT_THAT(both, HasSubstr("5 groups")) << "all problems in one pass";
}

}  // namespace
}  // namespace epsim
