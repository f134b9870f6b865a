#include "analysis/bottleneck.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "sim/engine.h"
#include "tests/support/random_case.h"

namespace epsim {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;
using testing::part_from_yaml;

/// Four nodes of two ranks; rows and kernels are set by hand and played by the real engine.
struct Layer {
  Experiment experiment;
  LayerRun run;

  explicit Layer(const std::string& cluster = "{two_tier: {nodes: 4, ranks_per_node: 2, device: h100, uplink: 10GB/s}}") {
    experiment.topology = part_from_yaml(builtin_clusters(), cluster);
    experiment.network = part_from_yaml(builtin_networks(), "fair");
    experiment.compute = part_from_yaml(builtin_computes(), "roofline");
    run.schedule.ranks = experiment.topology.ranks();
  }
  Phase& phase(Phase::Kind kind, Stage stage) {
    Phase p;
    p.kind = kind, p.stage = stage, p.row_bytes = 1;
    p.name = "phase " + std::to_string(run.schedule.phases.size());
    if (!run.schedule.phases.empty()) p.after = {static_cast<int>(run.schedule.phases.size()) - 1};
    const int ranks = run.schedule.ranks;
    if (kind == Phase::Kind::transfer) p.rows = RowTable(ranks, {});
    if (kind == Phase::Kind::reduce) p.reduce_bytes.resize(static_cast<std::size_t>(ranks));
    run.schedule.phases.push_back(std::move(p));
    return run.schedule.phases.back();
  }
  std::string verdict() {
    const Topology& t = experiment.topology;
    run.timeline = simulate(run.schedule, t, experiment.network, experiment.compute, experiment.compute_precision);
    LayerMetrics m;
    const Timeline::Stages stages = run.timeline.stages(run.schedule);
    m.dispatch_s = stages.dispatch.seconds(), m.compute_s = stages.compute.seconds(), m.combine_s = stages.combine.seconds(), m.layer_s = run.timeline.end.seconds();
    const Traffic dispatch = traffic(run.schedule, Stage::dispatch, t), combine = traffic(run.schedule, Stage::combine, t);
    m.dispatch_busiest = busiest_link(dispatch.link_bytes, t), m.combine_busiest = busiest_link(combine.link_bytes, t);
    return bottleneck(experiment, run, m, dispatch, combine);
  }
};

TEST(Bottleneck, NamesTheHotUplink) {
  Layer layer;
  Phase& p = layer.phase(Phase::Kind::transfer, Stage::dispatch);
  // Node 3 sends three times what each other node sends; receivers are spread, so its uplink is the hottest link. Mean over 8 up- and downlinks.
  Matrix<std::int64_t> rows(8, 8);
  for (int s = 0; s < 8; ++s)
    for (int d = 0; d < 8; ++d)
      if (s / 2 != d / 2) rows(s, d) = s / 2 == 3 ? 30'000'000 : 10'000'000;
  p.rows = RowTable(rows);
  // Uplinks: 120, 120, 120, 360 MB; downlinks: 2 x 2 x (10 + 10 + 30) = 200 MB thrice, 120 MB for node 3: 1,440 in all, mean 180.
  EXPECT_EQ(layer.verdict(), "dispatch is bound by the uplink of node 3, 2.0x the mean");
}

TEST(Bottleneck, EvenTrafficIsNotCalledUneven) {
  Layer layer;
  Phase& p = layer.phase(Phase::Kind::transfer, Stage::combine);
  Matrix<std::int64_t> rows(8, 8);
  for (std::int64_t& n : rows.cells) n = 10'000'000;
  p.rows = RowTable(rows);
  EXPECT_EQ(layer.verdict(), "combine is bound by the uplink of node 0, as are its peers");
}

TEST(Bottleneck, SmallMessagesAreBoundByLatency) {
  Layer layer;
  layer.phase(Phase::Kind::transfer, Stage::dispatch).rows = RowTable(8, {{Rank(0), Rank(7), 1}});
  EXPECT_THAT(layer.verdict(), StartsWith("dispatch is bound by latency: "));
}

TEST(Bottleneck, NamesTheRankWithMostKernelTime) {
  Layer layer;
  Phase& p = layer.phase(Phase::Kind::kernel, Stage::compute);
  for (Rank r : ids<Rank>(8)) p.kernels.push_back({r, Slot(r), 1'000'000, r == 5 ? 3e13 : 1e13, 0, 0});
  EXPECT_EQ(layer.verdict(), "compute is bound by rank 5, 2.4x the mean");  // 3 against (7 + 3) / 8 = 1.25
}

TEST(Bottleneck, TellsLaunchesAndMemoryFromArithmetic) {
  Layer launches;
  Phase& p = launches.phase(Phase::Kind::kernel, Stage::compute);
  for (int i = 0; i < 9; ++i) p.kernels.push_back({Rank(2), Slot(i), 1, 1, 1, 1});
  EXPECT_THAT(launches.verdict(), StartsWith("compute is bound by kernel launches: 9 calls on rank 2"));
  Layer memory;
  memory.phase(Phase::Kind::kernel, Stage::compute).kernels.push_back({Rank(1), Slot(0), 64, 1e6, 1e10, 0});
  EXPECT_THAT(memory.verdict(), HasSubstr("its memory, not its arithmetic"));
}

TEST(Bottleneck, AddingUpCanBind) {
  Layer layer;
  layer.phase(Phase::Kind::transfer, Stage::combine).rows = RowTable(8, {{Rank(0), Rank(1), 1}});
  layer.phase(Phase::Kind::reduce, Stage::combine).reduce_bytes[6] = 1e11;
  EXPECT_THAT(layer.verdict(), StartsWith("combine is bound by adding up rows on rank 6"));
}

TEST(Bottleneck, AnEmptyLayerHasNothingToDo) {
  Layer layer;
  layer.phase(Phase::Kind::transfer, Stage::dispatch);
  EXPECT_EQ(layer.verdict(), "nothing to do");
}

}  // namespace
}  // namespace epsim
