#include "policies/bound.h"

#include <gtest/gtest.h>

#include "sim/engine.h"
#include "tests/support/machines.h"
#include "tests/support/network_rig.h"
#include "tests/support/schedules.h"

namespace epsim::testing {
namespace {

constexpr double kRate = 1e9;
constexpr double kNs = 1e-9;
constexpr Time ns(std::int64_t n) { return {n * 1000}; }

double bound(const Schedule& s, const Topology& t) {
  return lower_bound(s, t, [](const KernelCall& k) { return k.flops * 1e-9; });
}
void expect_bound(const Schedule& s, const Topology& t, double nanoseconds_) { EXPECT_NEAR(bound(s, t), nanoseconds_ * kNs, nanoseconds_ * kNs * 1e-11); }

Phase uniform(int ranks, std::vector<int> after, std::int64_t bytes, Stage stage = Stage::dispatch) {
  std::vector<std::tuple<int, int, std::int64_t>> messages;
  for (int s = 0; s < ranks; ++s)
    for (int d = 0; d < ranks; ++d) messages.emplace_back(s, d, bytes);
  return transfer(ranks, std::move(after), messages, stage);
}

TEST(LowerBound, OneMessage) { expect_bound({2, {transfer(2, {}, {{0, 1, 1000}})}}, star(2, kRate, ns(10)), 1020); }

TEST(LowerBound, PortsOfARank) {
  expect_bound({8, {uniform(8, {}, 1000)}}, star(8, kRate, ns(10)), 7000 + 20);
  expect_bound({4, {transfer(4, {}, {{0, 3, 1000}, {1, 3, 1000}, {2, 3, 500}})}}, star(4, kRate, ns(10)), 2500 + 20);
}

TEST(LowerBound, TheBusiestLink) {
  // Four ranks a node send 4000 each to the other node over an uplink of their port's rate.
  expect_bound({8, {uniform(8, {}, 1000)}}, tree(2, 4, kRate, kRate, ns(10)), 16000 + 40);
}

TEST(LowerBound, FollowsDispatchComputeAndCombine) {
  const Schedule s{8, {uniform(8, {}, 1000), kernels({0}, {{0, 100}, {1, 100}, {2, 100}, {3, 100}, {4, 100}, {5, 100}, {6, 100}, {7, 100}}), uniform(8, {1}, 2000, Stage::combine)}};
  expect_bound(s, star(8, kRate, ns(10)), 7020 + 100 + 14020);
  // Across uplinks the bytes of a link bind in one phase and what is sure to follow is counted after it: the combine of the last rank, from its own port.
  EXPECT_GE(bound(s, tree(2, 4, kRate, kRate, ns(10))), (16040 + 100 + 2000 + 40) * kNs * (1 - 1e-11));
}

TEST(LowerBound, WhatBeginsLaterPassesLater) {
  // Rank 1 can send only after 10000; its 3000 bytes follow then, whatever rank 0 has sent before.
  expect_bound({3, {kernels({}, {{1, 10000}}), transfer(3, {0}, {{0, 2, 4000}, {1, 2, 3000}})}}, star(3, kRate), 13000);
  // 100 later both fit one after the other: the earlier begins at 0.
  expect_bound({3, {kernels({}, {{1, 100}}), transfer(3, {0}, {{0, 2, 4000}, {1, 2, 3000}})}}, star(3, kRate), 7000);
}

TEST(LowerBound, ARankComputesOneKernelAtATime) {
  expect_bound({2, {kernels({}, {{0, 100}}), kernels({}, {{0, 50}}), transfer(2, {0, 1}, {{0, 1, 10}})}}, star(2, kRate), 160);
}

TEST(LowerBound, NothingTakesNothing) { EXPECT_EQ(bound({2, {transfer(2, {}, {}), kernels({0}, {})}}, star(2, kRate, ns(10))), 0); }

TEST(LowerBound, IsMetByAUniformLayer) {
  const Topology t = star(8, kRate, ns(10));
  const Schedule s{8, {uniform(8, {}, 1000), uniform(8, {0}, 2000, Stage::combine)}};
  for (const char* network : {"fair", "ideal"}) EXPECT_NEAR(simulate(s, t, network_named(network), nanoseconds(), Precision::bf16).end.seconds(), bound(s, t), 1e-11 * bound(s, t));
}

// I6: no run beats the bound.
TEST(LowerBound, IsNeverBeaten) {
  double tightest = 0;
  for (std::uint64_t run = 0; run < 3000; ++run) {
    Rng rng(9, Stream::test, run);
    const Topology t = random_machine(rng);
    const Schedule s = random_schedule(rng, t.ranks());
    const double least = bound(s, t);
    for (const char* network : {"fair", "ideal"}) {
      const Time end = simulate(s, t, network_named(network), nanoseconds(), Precision::bf16).end;
      ASSERT_GE(end.seconds(), least) << network << ", run " << run;
      if (end.ps > 0) tightest = std::max(tightest, least / end.seconds());
    }
  }
  EXPECT_GT(tightest, 0.999999) << "some run should meet it";
}

}  // namespace
}  // namespace epsim::testing
