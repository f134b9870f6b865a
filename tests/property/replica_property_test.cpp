#include <gtest/gtest.h>

#include "tests/support/part_from_yaml.h"
#include "tests/support/random_case.h"

namespace epsim {
namespace {

using testing::part_from_yaml;
using testing::RandomCase;

/// Every rule, with settings that change what it does.
std::vector<std::string> rules() {
  std::vector<std::string> all = builtin_replica_rules().names();
  for (const char* more : {"{nearest: {in_node: fair}}", "{quota: {locality: node}}", "{quota: {locality: none, split: batch}}", "{lp: {deal: random}}", "{block_round_robin: {block: 3, offset_by_rank: true}}", "{lplb: {steps: 20}}"})
    all.emplace_back(more);
  return all;
}

std::int64_t fullest(const Plan& plan) { return std::ranges::max(plan.copies_of_rank()); }

// I1, I4, I5
TEST(ReplicaProperty, EveryRuleDealsEveryKeptCopyToAReplicaOfItsExpert) {
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    RandomCase c(seed);
    Capacity capacity;
    capacity.limits = [&c](const Matrix<std::int64_t>&, const Routing&) { return c.plan.limits; };
    Rng rng(seed, Stream::test, 9);
    Placement placement = c.plan.placement;
    if (rng.below(2) == 0) {  // shares, some of them 0
      placement.share.resize(placement.expert_of_slot.size());
      for (const auto& slots : placement.slots_of_expert) {
        double sum = 0;
        for (const Slot s : slots) sum += placement.share[s] = s == slots.front() || rng.below(3) ? rng.uniform() : 0;
        for (const Slot s : slots) placement.share[s] /= sum;
      }
    }
    const Plan balanced = make_plan(3, c.plan.routing, capacity, placement, part_from_yaml(builtin_replica_rules(), "{quota: {split: batch}}", static_cast<const Shape*>(nullptr)), c.topology);
    for (const std::string& name : rules()) {
      SCOPED_TRACE(name + ", case " + std::to_string(seed));
      const ReplicaRule rule = part_from_yaml(builtin_replica_rules(), name, static_cast<const Shape*>(nullptr));
      const Plan plan = make_plan(3, c.plan.routing, capacity, placement, rule, c.topology);
      for (std::size_t i = 0; i < plan.slot.size(); ++i) {
        ASSERT_EQ(plan.slot[i] < 0, balanced.slot[i] < 0) << "a rule neither keeps nor drops";
        if (plan.slot[i] >= 0) {
          ASSERT_EQ(placement.expert_of_slot[static_cast<std::size_t>(plan.slot[i])], plan.routing.expert[i]);
        }
      }
      EXPECT_EQ(make_plan(3, c.plan.routing, capacity, placement, rule, c.topology).slot, plan.slot);
      const Plan bare = make_plan(3, c.plan.routing, capacity, placement, rule, {});  // without a machine
      EXPECT_EQ(bare.slot.size(), plan.slot.size());
      EXPECT_GE(fullest(plan), fullest(balanced)) << "no split beats the balanced one";
      if (name == "lp") {
        EXPECT_LE(fullest(plan), fullest(balanced) + static_cast<std::int64_t>(placement.expert_of_slot.size())) << "but for rounding the program's is as good";
      }
    }
  }
}

// Slots take what shares say, to the copy, wherever the copies come from.
TEST(ReplicaProperty, QuotasAreMetToTheCopy) {
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    const RandomCase c(seed);
    Placement placement = c.plan.placement;
    Rng rng(seed, Stream::test, 10);
    placement.share.resize(placement.expert_of_slot.size());
    for (const auto& slots : placement.slots_of_expert) {
      double sum = 0;
      for (const Slot s : slots) sum += placement.share[s] = rng.uniform();
      for (const Slot s : slots) placement.share[s] /= sum;
    }
    for (const char* name : {"quota", "{quota: {locality: node}}", "{quota: {locality: none}}", "hashed_share"}) {
      const Plan plan = make_plan(3, c.plan.routing, {}, placement, part_from_yaml(builtin_replica_rules(), name, static_cast<const Shape*>(nullptr)), c.topology);
      const std::vector<std::int64_t> taken = plan.copies_of_slot();
      for (const auto& slots : placement.slots_of_expert) {
        std::int64_t all = 0;
        for (const Slot s : slots) all += taken[static_cast<std::size_t>(s)];
        if (std::string(name) == "hashed_share" && all % 499 == 0) continue;
        for (const Slot s : slots) EXPECT_LT(std::abs(static_cast<double>(taken[static_cast<std::size_t>(s)]) - placement.share[s] * static_cast<double>(all)), 1) << name << ", case " << seed;
      }
    }
  }
}

}  // namespace
}  // namespace epsim
