#include "sim/network/shared/separate_shares.h"

#include <gtest/gtest.h>

#include "tests/support/machines.h"
#include "tests/support/network_rig.h"
#include "tests/support/progressive_filling.h"

namespace epsim::testing {
namespace {

constexpr double kRate = 1e9;  // bytes/s

template <class Size>
FlowBatch all_to_all(int ranks, Size size) {
  FlowBatch batch;
  for (int s = 0; s < ranks; ++s)
    for (int d = 0; d < ranks; ++d)
      if (s != d) batch.add(static_cast<std::int64_t>(batch.size()), {s, d}, size(s, d));
  return batch;
}

TEST(SeparateShares, EqualSizesEndTogether) {
  const Topology t = fat_tree(4, 4, 4, kRate);
  SeparateShares shares(t);
  FlowBatch batch = all_to_all(16, [](int, int) { return 1000; });
  ASSERT_TRUE(shares.begin(batch, 2));
  EXPECT_TRUE(batch.empty());
  EXPECT_DOUBLE_EQ(shares.next_end(), 2 + 1000 * 15 / kRate);
  std::vector<FlowEnd> ended;
  while (!shares.idle()) shares.end_next([&](const FlowEnd& e) { ended.push_back(e); });
  ASSERT_EQ(ended.size(), 240U);
  for (std::size_t f = 0; f < ended.size(); ++f) EXPECT_EQ(ended[f].id, static_cast<std::int64_t>(f));
}

TEST(SeparateShares, SizesOfADestinationEndTogether) {
  const Topology t = fat_tree(4, 4, 4, kRate);
  SeparateShares shares(t);
  FlowBatch batch = all_to_all(16, [](int, int d) { return 1000 * (16 - d); });
  ASSERT_TRUE(shares.begin(batch, 0));
  for (int d = 15; d >= 0; --d) {
    EXPECT_DOUBLE_EQ(shares.next_end(), 1000 * (16 - d) * 15 / kRate);
    shares.end_next([&](const FlowEnd& e) { EXPECT_EQ(e.pair.destination, d); });
  }
  EXPECT_TRUE(shares.idle());
}

TEST(SeparateShares, WhatIsLeftIsWhatHasNotLeft) {
  FlowBatch batch = all_to_all(3, [](int, int d) { return d == 0 ? 500 : 2000; });
  const Topology t = star(3, kRate);
  SeparateShares of(t);
  ASSERT_TRUE(of.begin(batch, 0));
  of.end_next([](const FlowEnd&) {});
  FlowBatch left;
  of.leave(3e-6, left);  // at half a port each
  ASSERT_EQ(left.size(), 4U);
  for (const double bytes : left.bytes) EXPECT_NEAR(bytes, 500, 1e-9);
  EXPECT_TRUE(of.idle());
}

TEST(SeparateShares, RefusesFlowsThatChangeEachOthersRates) {
  const Topology t = star(4, kRate);
  const auto refused = [&](FlowBatch batch) {
    SeparateShares shares(t);
    const FlowBatch before = batch;
    const bool begun = shares.begin(batch, 0);
    return !begun && shares.idle() && batch.ids == before.ids && batch.pairs == before.pairs && batch.bytes == before.bytes;
  };
  EXPECT_TRUE(refused(all_to_all(4, [](int s, int d) { return 1000 + s * d; }))) << "one port ends at several times";
  FlowBatch mixed;  // rank 0's port has two flows, one of which rank 1's port, with three, holds back
  mixed.add(0, {0, 1}, 1000);
  mixed.add(1, {2, 1}, 1000);
  mixed.add(2, {3, 1}, 1000);
  mixed.add(3, {0, 2}, 1000);
  EXPECT_TRUE(refused(mixed));
  FlowBatch weighted;
  weighted.add(0, {0, 1}, 1000, 2);
  EXPECT_TRUE(refused(weighted));
}

// Sizes that are equal, or depend on the destination or the source, with later messages that break in: as progressive filling has it, whichever solver has them.
TEST(SeparateShares, AgreesWithProgressiveFillingWhereOthersBreakIn) {
  for (std::uint64_t run = 0; run < 1000; ++run) {
    Rng rng(10, Stream::test, run);
    const Topology t = run % 3 ? random_machine(rng) : fat_tree(2, 3, 3, kRate);
    std::vector<double> size;
    for (int r = 0; r < t.ranks(); ++r) size.push_back(static_cast<double>(1 + rng.below(3)) * 1e6);
    std::vector<TimedFlow> flows;
    for (int s = 0; s < t.ranks(); ++s)
      for (int d = 0; d < t.ranks(); ++d) {
        if (s == d) continue;
        flows.push_back({s, d, run % 5 == 0 ? 1e6 : size[run % 5 == 1 ? s : d], 0});
        if (rng.below(8) == 0) flows.push_back({s, d, 1e6, static_cast<double>(1 + rng.below(2)) * 3e-3});
      }
    NetworkRig rig("fair", t);
    for (const TimedFlow& f : flows) rig.send(f.begin, f.source, f.destination, f.bytes);
    const std::vector<double> expected = progressive_filling(t, flows);
    for (std::size_t f = 0; f < flows.size(); ++f) ASSERT_NEAR(rig.arrivals()[f], expected[f], expected[f] * 1e-9) << "run " << run << ", message " << f;
  }
}

}  // namespace
}  // namespace epsim::testing
