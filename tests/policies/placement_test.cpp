#include "policies/placement.h"

#include <gmock/gmock.h>

#include <algorithm>

#include "tests/support/part_from_yaml.h"
#include "tests/support/random_problem.h"

namespace epsim {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::input_error;
using testing::part_from_yaml;

Problem problem_of(int experts, int ranks, int layers = 1) {
  Problem p;
  p.experts = experts, p.ranks = ranks, p.nodes = 1, p.seed = 42;
  for (int l = 0; l < layers; ++l) {
    p.layers.push_back(l);
    p.counts.emplace_back(ranks, experts);
  }
  return p;
}

Shape shape_of(const Problem& p) { return {.experts = p.experts, .top_k = 2, .ranks = p.ranks, .nodes = p.nodes}; }

std::vector<Placement> place(const std::string& yaml, const Problem& problem) {
  const Shape shape = shape_of(problem);
  return part_from_yaml(builtin_placements(), yaml, &shape).place(problem);
}

TEST(Placement, FindsTheRankOfASlotWhereSomeRanksHaveNone) {
  const Placement p = Placement::from_experts({0, 1, 2, 1}, {0, 0, 2, 2, 3, 4, 4}, 3);
  p.check(3);
  EXPECT_EQ(p.ranks(), 6);
  EXPECT_EQ(p.rank_of(Slot(0)), Rank(1));
  EXPECT_EQ(p.rank_of(Slot(1)), Rank(1));
  EXPECT_EQ(p.rank_of(Slot(2)), Rank(3));
  EXPECT_EQ(p.rank_of(Slot(3)), Rank(4));
}

TEST(Placement, ListsReplicasInSlotOrder) {
  const Placement p = Placement::from_experts({2, 1, 2, 0}, {0, 2, 4}, 3);
  EXPECT_THAT(p.slots_of_expert, ElementsAre(ElementsAre(Slot(3)), ElementsAre(Slot(1)), ElementsAre(Slot(0), Slot(2))));
}

TEST(Placement, CheckRefusesTablesThatDisagree) {
  const Placement good = Placement::from_experts({0, 1, 1}, {0, 2, 3}, 2);
  EXPECT_NO_THROW(good.check(2));
  EXPECT_THROW(good.check(3), std::logic_error);
  EXPECT_THROW(Placement::from_experts({0, 0}, {0, 2}, 2).check(2), std::logic_error) << "an expert without a slot";
  Placement p = good;
  p.expert_of_slot[2] = 0;
  EXPECT_THROW(p.check(2), std::logic_error) << "a slot that holds another expert than listed";
  p = good;
  p.slots_of_expert[1].pop_back();
  EXPECT_THROW(p.check(2), std::logic_error) << "a slot that is not listed";
  p = good;
  p.slots_of_expert[1][1] = Slot(1);
  EXPECT_THROW(p.check(2), std::logic_error) << "a slot listed twice";
  p = good;
  p.first_slot = {0, 2, 4};
  EXPECT_THROW(p.check(2), std::logic_error) << "blocks past the last slot";
  p.first_slot = {0, 3, 2, 3};
  EXPECT_THROW(p.check(2), std::logic_error) << "blocks out of order";
}

TEST(Problem, LoadsAddUpSources) {
  Problem p = problem_of(3, 2);
  p.counts[0].cells = {1, 2, 3, 10, 20, 30};
  EXPECT_THAT(p.loads(0), ElementsAre(11, 22, 33));
}

TEST(Contiguous, GivesEachRankABlock) {
  const Placement p = place("contiguous", problem_of(8, 4))[0];
  EXPECT_THAT(p.expert_of_slot, ElementsAre(0, 1, 2, 3, 4, 5, 6, 7));
  EXPECT_THAT(p.first_slot, ElementsAre(0, 2, 4, 6, 8));
}

TEST(Contiguous, SpreadsExpertsThatDoNotDivide) {
  EXPECT_THAT(place("contiguous", problem_of(7, 3))[0].first_slot, ElementsAre(0, 3, 5, 7));
  EXPECT_THAT(place("contiguous", problem_of(2, 4))[0].first_slot, ElementsAre(0, 1, 2, 2, 2)) << "fewer experts than ranks: ranks without slots";
}

TEST(Contiguous, RepeatsTheFirstExpertsInRedundantSlots) {
  const Placement p = place("contiguous: {slots: 6}", problem_of(4, 2))[0];
  EXPECT_THAT(p.expert_of_slot, ElementsAre(0, 1, 2, 3, 0, 1));
  EXPECT_THAT(p.slots_of_expert[1], ElementsAre(Slot(1), Slot(5)));
}

TEST(Contiguous, MayPutTwoReplicasOfAnExpertOnARank) {
  const Placement p = place("contiguous: {slots: 5}", problem_of(2, 2))[0];
  EXPECT_THAT(p.expert_of_slot, ElementsAre(0, 1, 0, 1, 0));
  EXPECT_EQ(p.rank_of(p.slots_of_expert[0][0]), p.rank_of(p.slots_of_expert[0][1]));
}

TEST(RoundRobin, DealsExpertsToRanksInTurn) {
  const Placement p = place("round_robin", problem_of(7, 3))[0];
  EXPECT_THAT(p.first_slot, ElementsAre(0, 3, 5, 7));
  EXPECT_THAT(p.expert_of_slot, ElementsAre(0, 3, 6, 1, 4, 2, 5));
  for (int e = 0; e < 7; ++e) EXPECT_EQ(p.rank_of(p.slots_of_expert[static_cast<std::size_t>(e)][0]), Rank(e % 3));
}

TEST(RoundRobin, GoesOnOverRedundantSlots) { EXPECT_THAT(place("round_robin: {slots: 6}", problem_of(4, 3))[0].expert_of_slot, ElementsAre(0, 3, 1, 0, 2, 1)); }

// I5
TEST(Random, DependsOnSeedAndLayerAlone) {
  Problem all = problem_of(64, 8, 3);
  const std::vector<Placement> placements = place("random", all);
  EXPECT_NE(placements[0].expert_of_slot, placements[1].expert_of_slot);
  Problem last = problem_of(64, 8, 1);
  last.layers = {2};
  EXPECT_EQ(place("random", last)[0].expert_of_slot, placements[2].expert_of_slot) << "which other layers run does not matter";
  last.seed = 43;
  EXPECT_NE(place("random", last)[0].expert_of_slot, placements[2].expert_of_slot);
}

TEST(Random, GivesReplicasEvenly) {
  const Placement p = place("random: {slots: 21}", problem_of(8, 4))[0];
  p.check(8);
  int more = 0;
  for (const std::vector<Slot>& replicas : p.slots_of_expert) {
    EXPECT_THAT(replicas.size(), ::testing::AnyOf(2, 3));
    more += replicas.size() == 3;
  }
  EXPECT_EQ(more, 5);
}

// I11
TEST(StaticPlacements, RefuseBadSettings) {
  for (const std::string name : {"contiguous", "round_robin", "random"}) {
    const std::string few = input_error([&] { place(name + ": {slots: 7}", problem_of(8, 4)); });
    EXPECT_THAT(few, HasSubstr("test.yaml:1:" + std::to_string(name.size() + 11) + ": error: 7 slots are fewer than the 8 experts"));
    EXPECT_THAT(input_error([&] { place(name + ": {slots: 0}", problem_of(8, 4)); }), HasSubstr("`slots` must be an integer from 1"));
    EXPECT_THAT(input_error([&] { place(name + ": {slot: 9}", problem_of(8, 4)); }), HasSubstr("no setting `slot`, did you mean `slots`?"));
  }
  EXPECT_THAT(input_error([&] { place("contigous", problem_of(8, 4)); }), HasSubstr("there is no placement `contigous`, did you mean `contiguous`?"));
}

TEST(Placements, ThatPlanSharesNameTheRuleThatFollowsThem) {
  int plan = 0;
  for (const std::string& name : builtin_placements().names()) {
    if (name == "given" || name == "epsim_opt") continue;
    testing::RandomProblem problem(3);
    const Shape shape{.experts = problem.problem.experts, .top_k = problem.top_k, .ranks = problem.problem.ranks, .nodes = problem.problem.nodes, .expert_groups = problem.problem.expert_groups};
    PlacementPolicy policy;
    try {
      policy = part_from_yaml(builtin_placements(), name, &shape);
    } catch (const InputError&) {
      continue;  // needs settings, or another machine
    }
    if (policy.place(problem.problem).front().share.empty()) continue;
    ++plan;
    EXPECT_THAT(policy.summary, HasSubstr("`quota`")) << name;
  }
  EXPECT_GE(plan, 4);
}

TEST(Placements, AllSayWhatTheyAreWhenListed) {
  const PlacementCatalog catalog = builtin_placements();
  for (const PlacementCatalog::Entry& entry : catalog.entries()) {
    Params listing;
    EXPECT_FALSE(entry.make(listing, nullptr).summary.empty()) << entry.name;
  }
}

}  // namespace
}  // namespace epsim
