// What plans make of choices that are none, of drops where choices arrive, of empty rows and of capacity by replica.
#include <gmock/gmock.h>

#include "policies/plan.h"
#include "tests/support/part_from_yaml.h"

namespace epsim {
namespace {

using ::testing::ElementsAre;
using testing::part_from_yaml;

Shape shape_of(int ranks) {
  Shape s;
  s.experts = 2, s.top_k = 2, s.ranks = ranks, s.nodes = 1;
  return s;
}
Capacity capacity(const std::string& yaml, int ranks = 2) {
  const Shape shape = shape_of(ranks);
  return part_from_yaml(builtin_capacities(), yaml, &shape);
}
ReplicaRule round_robin() { return part_from_yaml(builtin_replica_rules(), "round_robin", static_cast<const Shape*>(nullptr)); }

/// Two ranks of three tokens and two experts; everybody chooses expert 0, and the first token of each rank expert 1, too.
Routing routing() {
  Routing r;
  r.experts = 2, r.top_k = 2, r.may_choose_fewer = true;
  r.first_token = {0, 3, 6};
  r.expert = {0, 1, 0, kNoExpert, 0, kNoExpert, 1, 0, 0, kNoExpert, 0, kNoExpert};
  r.weight = {.75F, .25F, .5F, 0, 1, 0, .5F, .5F, .25F, 0, .125F, 0};
  return r;
}
Placement one_each() { return Placement::from_experts({0, 1}, {0, 1, 2}, 2); }

// I1
TEST(PlanRows, AChoiceThatIsNotMadeIsNeitherKeptNorDropped) {
  const Plan p = make_plan(0, routing(), capacity("dropless"), one_each(), round_robin(), {});
  EXPECT_THAT(p.choices.cells, ElementsAre(3, 1, 3, 1));
  EXPECT_THAT(p.slot, ElementsAre(0, 1, 0, -1, 0, -1, 1, 0, 0, -1, 0, -1));
  EXPECT_EQ(p.drops.choices, 0);
  EXPECT_EQ(p.drops.total_tokens, 0);
  EXPECT_THAT(p.reach.tokens, ElementsAre(3, 3));
}

TEST(PlanRows, TokensThatMadeOneChoiceLoseAllWithIt) {
  const Plan p = make_plan(0, routing(), capacity("megatron: {factor: 2/3, order: position}"), one_each(), round_robin(), {});  // 2 of each rank
  EXPECT_THAT(p.slot, ElementsAre(0, 1, 0, -1, -1, -1, 1, 0, 0, -1, -1, -1));
  EXPECT_EQ(p.drops.choices, 2);
  EXPECT_EQ(p.drops.partial_tokens, 0);
  EXPECT_EQ(p.drops.total_tokens, 2);
  EXPECT_EQ(p.drops.weight, 1.125);
}

TEST(PlanRows, WhatIsDroppedOnArrivalTravelsButIsNotComputed) {
  // int(2/3 x 2 x 6 / 2) = 4 places of each expert for both ranks: expert 0 takes all three of rank 0 and the first of rank 1.
  const Plan p = make_plan(0, routing(), capacity("megablocks: {form: moe, factor: 2/3, arithmetic: exact}"), one_each(), round_robin(), {});
  EXPECT_THAT(p.slot, ElementsAre(0, 1, 0, -1, 0, -1, 1, 0, 0, -1, 0, -1));
  EXPECT_THAT(p.copies.cells, ElementsAre(3, 1, 3, 1)) << "all travel";
  EXPECT_THAT(p.dropped_on_arrival.cells, ElementsAre(0, 0, 2, 0));
  EXPECT_THAT(p.copies_of_rank(), ElementsAre(4, 2));
  EXPECT_THAT(p.padding, ElementsAre(0, 2));
  EXPECT_THAT(p.rows_of_slot(), ElementsAre(4, 4)) << "as many rows as the capacity";
  EXPECT_EQ(p.drops.choices, 2);
  EXPECT_EQ(p.drops.total_tokens, 2);
  EXPECT_EQ(p.drops.weight, .375);
  EXPECT_THAT(p.routing.weight, ElementsAre(.75F, .25F, .5F, 0, 1, 0, .5F, .5F, 0, 0, 0, 0));
}

TEST(PlanRows, BlocksAndCapacitiesAreFilledUp) {
  EXPECT_THAT(make_plan(0, routing(), capacity("megablocks: {block: 4}"), one_each(), round_robin(), {}).rows_of_slot(), ElementsAre(8, 4));
  EXPECT_THAT(make_plan(0, routing(), capacity("megatron: {factor: 2/3, overflow: pad}"), one_each(), round_robin(), {}).rows_of_slot(), ElementsAre(4, 4));
  EXPECT_THAT(make_plan(0, routing(), capacity("megatron: {factor: 2/3, overflow: none}"), one_each(), round_robin(), {}).rows_of_slot(), ElementsAre(6, 2));
}

TEST(PlanRows, DenseBuffersTravelWholeFullOrNot) {
  const Plan p = make_plan(0, routing(), capacity("megatron: {factor: 4/3, order: position, arithmetic: exact, overflow: dense}"), one_each(), round_robin(), {});  // 4 places of each expert for each rank
  EXPECT_THAT(p.copies.cells, ElementsAre(3, 1, 3, 1));
  EXPECT_THAT(p.empty_rows.cells, ElementsAre(1, 3, 1, 3)) << "with the copies, 4 rows from each rank to each expert";
  EXPECT_THAT(p.padding, ElementsAre(2, 6));
  const Plan padded = make_plan(0, routing(), capacity("megatron: {factor: 4/3, order: position, arithmetic: exact, overflow: pad}"), one_each(), round_robin(), {});
  EXPECT_EQ(padded.empty_rows.rows, 0);
  EXPECT_NE(p.digest(), padded.digest()) << "processes that disagree on what travels must not exchange a row";
}

TEST(PlanRows, WhatDoesNotFitOneReplicaGoesToTheNext) {
  const Placement two = Placement::from_experts({0, 1, 0}, {0, 2, 3}, 2);
  const Plan p = make_plan(0, routing(), capacity("megatron: {factor: 2/3, overflow: other_replica}"), two, round_robin(), {});
  EXPECT_EQ(p.drops.choices, 0);
  EXPECT_EQ(p.copies(0, 0) + p.copies(0, 2), 3);
  for (std::int64_t r = 0; r < 2; ++r)
    for (const std::int64_t s : {0, 2}) EXPECT_LE(p.copies(r, s), 2) << "of a rank, a replica takes its capacity";
  const Plan none = make_plan(0, routing(), capacity("megatron: {factor: 1/3, overflow: other_replica}"), two, round_robin(), {});
  EXPECT_EQ(none.drops.choices, 2) << "two replicas take one each";
}

TEST(PlanRows, KeptWeightsAreDividedByTheirSum) {
  Routing r = routing();
  r.weight[7] = .25F;
  const Plan p = make_plan(0, r, capacity("deepspeed: {factor: 1/3, min_capacity: 0, arithmetic: exact}"), one_each(), round_robin(), {});  // 1 place a rank
  EXPECT_THAT(p.slot, ElementsAre(0, 1, -1, -1, -1, -1, 1, -1, 0, -1, -1, -1)) << "first choices come before second ones";
  EXPECT_EQ(p.routing.weight[0], .75F);
  EXPECT_EQ(p.routing.weight[6], 1) << "a lone survivor weighs 1";
  EXPECT_EQ(p.routing.weight[8], 1);
}

}  // namespace
}  // namespace epsim
