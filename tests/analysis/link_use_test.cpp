#include "analysis/link_use.h"

#include <numeric>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "analysis/export/link_text.h"
#include "analysis/export/writers.h"
#include "analysis/traffic.h"
#include "sim/engine.h"
#include "tests/analysis/measured_case.h"
#include "tests/support/machines.h"

namespace epsim {
namespace {

using ::testing::DoubleNear;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::Pointwise;
using testing::MachineBuilder;
using testing::MeasuredCase;

constexpr std::int64_t kMicrosecond = 1'000'000;  // ps

/// A schedule of empty transfers of these stages, and a timeline of messages given by hand.
struct Played {
  Schedule schedule;
  Timeline timeline;

  explicit Played(const std::vector<Stage>& stages) {
    for (const Stage stage : stages) {
      Phase p;
      p.stage = stage;
      schedule.phases.push_back(p);
    }
  }
  void message(std::int32_t phase, int source, int destination, Bytes bytes, double begin_us, double end_us) {
    const auto at = [](double us) { return Time{static_cast<std::int64_t>(us * kMicrosecond)}; };
    timeline.flows.push_back({phase, Rank(source), Rank(destination), bytes, at(begin_us), at(end_us), at(end_us).seconds()});
  }
};

std::vector<double> over_time(const LinkUse& use, std::size_t link) {
  const std::span<const double> row = use.bytes_over_time.row(static_cast<std::int64_t>(link));
  return {row.begin(), row.end()};
}

auto are(std::vector<double> expected) { return Pointwise(DoubleNear(1e-9), expected); }

// Ports of 1 GB/s carry 1000 bytes a microsecond. Links 2 r and 2 r + 1 go from rank r and to it.
TEST(LinkUse, OneMessageAfterAnotherOnOneLink) {
  const Topology t = testing::star(3, 1e9);
  Played p({Stage::dispatch, Stage::dispatch});
  p.message(0, 0, 1, 1000, 0, 1);
  p.message(1, 0, 2, 500, 2, 3);
  const LinkUse use = link_use(p.timeline, p.schedule, Stage::dispatch, t, 3);
  EXPECT_DOUBLE_EQ(use.time_s(), 3e-6);
  EXPECT_EQ(use.bytes, (std::vector<double>{1500, 0, 0, 1000, 0, 500}));
  EXPECT_THAT(use.utilisation_over_time(0), are({1, 0, 0.5}));
  EXPECT_THAT(use.utilisation_over_time(3), are({1, 0, 0}));
  EXPECT_THAT(use.utilisation_over_time(5), are({0, 0, 0.5}));
  EXPECT_THAT(use.utilisation_over_time(1), are({0, 0, 0}));
  EXPECT_DOUBLE_EQ(use.utilisation(0), 0.5);
  // Bins of 0.6 us cut the messages: 0.6 and 0.4 of the first, 0.4 (from 2.0 to 2.4) and 0.6 of the second.
  EXPECT_THAT(over_time(link_use(p.timeline, p.schedule, Stage::dispatch, t, 5), 0), are({600, 400, 0, 200, 300}));
  EXPECT_THAT(over_time(link_use(p.timeline, p.schedule, Stage::dispatch, t, 1), 0), are({1500}));
}

// A message crosses in its time less the latency of its path: 2 us of the 4.
TEST(LinkUse, LatencyIsNoUse) {
  const Topology t = testing::star(2, 1e9, Time{kMicrosecond});
  Played p({Stage::dispatch});
  p.message(0, 0, 1, 2000, 0, 4);
  EXPECT_THAT(link_use(p.timeline, p.schedule, Stage::dispatch, t, 4).utilisation_over_time(0), are({1, 1, 0, 0}));
}

TEST(LinkUse, StagesHaveTheirOwnTime) {
  const Topology t = testing::star(2, 1e9);
  Played p({Stage::dispatch, Stage::combine});
  p.message(0, 0, 1, 1000, 0, 2);
  p.message(1, 1, 0, 1000, 5, 6);
  const LinkUse dispatch = link_use(p.timeline, p.schedule, Stage::dispatch, t, 2), combine = link_use(p.timeline, p.schedule, Stage::combine, t, 2);
  EXPECT_THAT(dispatch.utilisation_over_time(0), are({0.5, 0.5}));
  EXPECT_DOUBLE_EQ(dispatch.bytes[2], 0) << "rank 1 sends in combine only";
  EXPECT_DOUBLE_EQ(combine.begin_s, 5e-6);
  EXPECT_THAT(combine.utilisation_over_time(2), are({1, 1}));
  const LinkUse none = link_use(p.timeline, p.schedule, Stage::compute, t, 2);
  EXPECT_DOUBLE_EQ(none.time_s(), 0);
  EXPECT_THAT(none.utilisation_over_time(0), are({0, 0}));
}

TEST(LinkUse, BytesThatTakeNoTimeAreNotLost) {
  const Topology t = testing::star(2, 1e9);
  Played p({Stage::dispatch});
  p.message(0, 0, 1, 1000, 0, 2);
  p.message(0, 1, 0, 7, 2, 2);
  EXPECT_THAT(over_time(link_use(p.timeline, p.schedule, Stage::dispatch, t, 4), 2), are({0, 0, 0, 7}));
  Played instant({Stage::dispatch});
  instant.message(0, 0, 1, 5, 3, 3);
  EXPECT_THAT(over_time(link_use(instant.timeline, instant.schedule, Stage::dispatch, t, 2), 0), are({5, 0}));
}

// Two switches side by side between two ranks: half of the bytes each.
TEST(LinkUse, SpreadBytesCountInParts) {
  MachineBuilder b;
  const int from = b.rank(0), to = b.rank(1);
  for (int i = 0; i < 2; ++i) {
    const int hub = b.a_switch();
    b.cable(from, hub, 1e9), b.cable(hub, to, 1e9);
  }
  const Topology t = b.build({PathRule::Kind::spread, 0});
  Played p({Stage::dispatch});
  p.message(0, 0, 1, 1000, 0, 1);
  const LinkUse use = link_use(p.timeline, p.schedule, Stage::dispatch, t, 2);
  EXPECT_EQ(use.bytes, (std::vector<double>{500, 0, 500, 0, 500, 0, 500, 0}));
  EXPECT_THAT(use.utilisation_over_time(4), are({0.5, 0.5}));
}

// Every port of a star is busy all the time of a uniform all-to-all.
TEST(LinkUse, AUniformAllToAllOnAStarLeavesNoLinkIdle) {
  const Topology t = testing::star(6, 1e9);
  Matrix<std::int64_t> rows(6, 6);
  for (int s = 0; s < 6; ++s)
    for (int d = 0; d < 6; ++d) rows(s, d) = s == d ? 0 : 100'000;
  Schedule schedule{6, {}};
  schedule.phases.emplace_back();
  schedule.phases[0].rows = RowTable(rows), schedule.phases[0].row_bytes = 1;
  const Timeline timeline = simulate(schedule, t, testing::part_from_yaml(builtin_networks(), "fair"), testing::part_from_yaml(builtin_computes(), "roofline"), Precision::bf16, Timeline::Detail::flow);
  const LinkUse use = link_use(timeline, schedule, Stage::dispatch, t, 20);
  EXPECT_NEAR(use.time_s(), 500e-6, 1e-12);
  for (std::size_t l = 0; l < use.bytes.size(); ++l) EXPECT_THAT(use.utilisation_over_time(l), Each(DoubleNear(1, 1e-9)));
  EXPECT_EQ(bottleneck_links(use.bytes, t).size(), 12U);
  EXPECT_NEAR(busiest_link(use.bytes, t).efficiency(use.time_s()), 1, 1e-9);
  for (const TierUse& tier : tier_use(use, t)) EXPECT_NEAR(tier.mean_in_all, 1, 1e-9);
}

// I2: the bytes over time add up to those that the schedule has for the link, however messages travel; and fair sharing beats no link.
TEST(LinkUse, AddsUpToTheScheduleAndTheLayerSaysTheSame) {
  for (std::uint64_t seed = 0; seed < 30; ++seed)
    for (const char* exchange : {"{hierarchical: {reduce_in_node: true}}", "bruck"}) {
      const MeasuredCase c(seed, exchange);
      const LayerRun run = run_plan(c.experiment, c.layer.plan, Timeline::Detail::flow);
      const LayerMetrics m = c.metrics();
      const Topology& t = c.experiment.topology;
      for (const Stage stage : {Stage::dispatch, Stage::combine}) {
        const LinkUse use = link_use(run.timeline, run.schedule, stage, t, 7);
        const std::vector<double> bytes = traffic(run.schedule, stage, t).link_bytes;
        for (std::size_t l = 0; l < bytes.size(); ++l) {
          const std::vector<double> row = over_time(use, l);
          EXPECT_DOUBLE_EQ(use.bytes[l], bytes[l]) << "seed " << seed;
          EXPECT_NEAR(std::accumulate(row.begin(), row.end(), 0.0), bytes[l], 1e-9 * bytes[l]) << "seed " << seed;
        }
        const BusiestLink& busiest = stage == Stage::dispatch ? m.dispatch_busiest : m.combine_busiest;
        const double transfer_s = stage == Stage::dispatch ? m.dispatch_transfer_s : m.combine_transfer_s;
        EXPECT_NEAR(use.time_s(), transfer_s, 2e-12) << "seed " << seed;
        EXPECT_EQ(static_cast<std::size_t>(busiest.peers), bottleneck_links(bytes, t).size());
        EXPECT_LE(busiest.efficiency(transfer_s), 1 + 1e-9) << "seed " << seed;
      }
    }
}

// A link is a bottleneck by its time, not its bytes, and to within 1 %.
TEST(BottleneckLinks, AreWithinOnePercentOfTheBusiest) {
  MachineBuilder b;
  const int one = b.rank(0), two = b.rank(1);
  for (const double rate : {1e9, 2e9, 1e9, 1e9}) b.link(one, two, rate);
  b.link(two, one, 1e9);
  const Topology t = b.build();
  EXPECT_THAT(bottleneck_links({1000, 1990, 985, 991, 0}, t), ElementsAre(0, 1, 3));
  EXPECT_EQ(busiest_link({1000, 1990, 985, 991, 0}, t).peers, 3);
  EXPECT_THAT(bottleneck_links({0, 0, 0, 0, 0}, t), ElementsAre());
  EXPECT_DOUBLE_EQ(busiest_link({1000, 1990, 985, 991, 0}, t).efficiency(4e-6), 0.25);
  EXPECT_DOUBLE_EQ(busiest_link({0, 0, 0, 0, 0}, t).efficiency(4e-6), 1) << "nothing moves";
}

// A tier's links count by their bandwidth; the most is of a link by itself.
TEST(TierUse, IsTheMeanOverItsBandwidth) {
  MachineBuilder b;
  const int one = b.rank(0), two = b.rank(1);
  b.link(one, two, 3e9);
  b.link(two, one, 1e9);
  const Topology t = b.build();
  Played p({Stage::dispatch});
  p.message(0, 0, 1, 3000, 0, 1);
  p.message(0, 1, 0, 500, 1, 2);
  const std::vector<TierUse> tiers = tier_use(link_use(p.timeline, p.schedule, Stage::dispatch, t, 2), t);
  ASSERT_EQ(tiers.size(), 1U);
  EXPECT_THAT(tiers[0].mean, are({0.75, 0.125}));
  EXPECT_THAT(tiers[0].most, are({1, 0.5}));
  EXPECT_DOUBLE_EQ(tiers[0].mean_in_all, 3500.0 / 4e9 / 2e-6);
}

TEST(LinkText, NamesSomeAndCountsTheRestByTier) {
  const Topology t = testing::part_from_yaml(builtin_clusters(), "{two_tier: {nodes: 2, ranks_per_node: 2, device: h100}}");
  std::vector<std::int32_t> all(t.links().size());
  std::iota(all.begin(), all.end(), 0);
  // Eight links between the ranks and their node switches, four between those and the core.
  EXPECT_THAT(name_links(all, t, 1), t.links()[0].name + " and 7 more of tier nvlink, 4 more of tier uplink");
  EXPECT_EQ(name_links({0, 1}, t, 3), t.links()[0].name + ", " + t.links()[1].name);
  EXPECT_EQ(name_links({}, t, 3), "");
}

TEST(LinkText, SparklinesHaveEightHeights) {
  EXPECT_EQ(sparkline(std::vector<double>{0, 0.05, 0.125, 0.5, 1, 1.5}), "  ▁▄██");
  EXPECT_EQ(sparkline({}), "");
}

TEST(Matrices, HoldBytesOverTime) {
  const MeasuredCase c(6);
  const LayerRun run = run_plan(c.experiment, c.layer.plan, Timeline::Detail::flow);
  const LinkUse dispatch = link_use(run.timeline, run.schedule, Stage::dispatch, c.experiment.topology, 5), combine = link_use(run.timeline, run.schedule, Stage::combine, c.experiment.topology, 5);
  MatrixCollector matrices(c.experiment);
  matrices.add(c.metrics(), c.run.plan.placement);
  matrices.add_over_time(dispatch, combine);
  auto arrays = read_npz(std::make_shared<SourceText>(SourceText{"matrices.npz", matrices.bytes()}));
  EXPECT_EQ(arrays["dispatch_link_bytes_over_time"].shape, (std::vector<std::int64_t>{1, static_cast<std::int64_t>(dispatch.bytes.size()), 5}));
  EXPECT_EQ(arrays["dispatch_link_bytes_over_time"].floats, dispatch.bytes_over_time.cells);
  EXPECT_EQ(arrays["combine_link_bytes_over_time"].floats, combine.bytes_over_time.cells);
  EXPECT_EQ(arrays["combine_begin_end_s"].floats, (std::vector<double>{combine.begin_s, combine.end_s}));
  EXPECT_EQ(arrays["dispatch_begin_end_s"].floats, (std::vector<double>{dispatch.begin_s, dispatch.end_s}));
}

}  // namespace
}  // namespace epsim
