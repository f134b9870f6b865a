// What events cost, and when moves have paid for themselves.
#include "analysis/recovery.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/support/part_from_yaml.h"

namespace epsim {
namespace {

/// Two layers a batch, of half the batch's time each.
RunMetrics batches_of(int first, const std::vector<double>& seconds) {
  RunMetrics run;
  for (std::size_t b = 0; b < seconds.size(); ++b)
    for (int l = 0; l < 2; ++l) {
      LayerMetrics m;
      m.batch = first + static_cast<int>(b), m.layer = l, m.layer_s = seconds[b] / 2;
      run.add(std::move(m));
    }
  return run;
}

TEST(Recovery, CountsTheBatchesUntilTimeIsSteady) {
  Experiment e;
  e.topology = testing::part_from_yaml(builtin_clusters(), "single_switch: {ranks: 4, device: h800}");
  e.eras = {{2, {}, nullptr, false, ""}, {4, {}, nullptr, true, "rank 1 fails"}, {9, {}, nullptr, true, "rank 1 joins"}, {20, {}, nullptr, true, "never played"}};
  RunMetrics run = batches_of(2, {1, 1, 5, 3, 2.05, 2, 2, 1, 1});
  run.layers[4].relocation.waited_s = 1, run.layers[4].relocation.bytes = 70, run.layers[5].relocation.restored_bytes = 30;
  const std::vector<Recovery> out = recoveries(e, run);
  ASSERT_EQ(out.size(), 2U);
  EXPECT_EQ(out[0].batch, 4);
  EXPECT_EQ(out[0].what, "rank 1 fails");
  EXPECT_EQ(out[0].ranks_up, 4);
  EXPECT_EQ(out[0].moved_bytes, 70);
  EXPECT_EQ(out[0].restored_bytes, 30);
  EXPECT_EQ(out[0].waited_s, 1);
  EXPECT_EQ(out[0].before_s, 1);
  EXPECT_EQ(out[0].settled_s, 2.05);  // the median of 6, 3, 2.05, 2, 2
  EXPECT_EQ(out[0].recovery_batches, 2);
  EXPECT_DOUBLE_EQ(out[0].recovery_s, (6 - 2.05) + (3 - 2.05));
  EXPECT_EQ(out[1].before_s, 2);
  EXPECT_EQ(out[1].settled_s, 1);
  EXPECT_EQ(out[1].recovery_batches, 0);
  EXPECT_EQ(out[1].recovery_s, 0);
  EXPECT_TRUE(recoveries(e, {}).empty());
}

TEST(BreakEven, IsCostOverGain) {
  BreakEven b;
  EXPECT_FALSE(b.batches());
  Relocation free;
  free.waited_s = 9;
  b.add(free);
  EXPECT_FALSE(b.batches()) << "nobody waited to gain by it: a rank failed";
  Relocation paid;
  paid.paid = true, paid.paid_s = 6, paid.gained_s = 1;
  b.add(paid);
  paid.gained_s = 2;
  b.add(paid);
  EXPECT_EQ(b.batches(), 4);
  paid.paid_s = 0, paid.gained_s = -3;
  b.add(paid);
  EXPECT_TRUE(std::isinf(*b.batches()));
}

}  // namespace
}  // namespace epsim
