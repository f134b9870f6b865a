// Shared experts that other ranks compute, through whole experiments.
#include <gmock/gmock.h>

#include <numeric>

#include "sim/run.h"
#include "tests/support/part_from_yaml.h"

namespace epsim {
namespace {

using ::testing::HasSubstr;
using testing::input_error;

Experiment experiment(const std::string& more, const std::string& model = "deepseek-v2-lite") {
  const std::string yaml = "model: " + model + "\nlayers: [3]\ncluster: {rail_fat_tree: {nodes: 2, ranks_per_node: 2, device: h800}}\nsource: {zipf: {tokens_per_rank: 128, exponent: 1}}\nnetwork: ideal\n" + more;
  return read_experiment(std::make_shared<SourceText>(SourceText{"test.yaml", yaml}), {}, builtin_catalogs());
}

std::vector<LayerRun> play(const Experiment& e) {
  std::vector<LayerRun> runs;
  run(e, Timeline::Detail::rank, [&](LayerRun& layer) {
    runs.push_back(layer);
    return true;
  });
  return runs;
}

/// Rows of the shared expert that the schedule's kernels compute on each rank.
std::vector<std::int64_t> rows_of(const LayerRun& run) {
  std::vector<std::int64_t> rows(static_cast<std::size_t>(run.schedule.ranks));
  for (const Phase& phase : run.schedule.phases)
    for (const KernelCall& call : phase.kernels)
      if (!call.slot.valid()) rows[static_cast<std::size_t>(call.rank)] += call.rows;
  return rows;
}

TEST(SharedExpertRun, ComputesRowsWhereTheRuleSaysAndNothingElseChanges) {
  const LayerRun own = play(experiment("")).front(), filled = play(experiment("shared_expert: waterfill\n")).front();
  EXPECT_EQ(rows_of(own), (std::vector<std::int64_t>(4, 128)));
  EXPECT_EQ(rows_of(filled), filled.plan.shared_rows_of_rank());
  EXPECT_NE(rows_of(filled), rows_of(own));
  EXPECT_EQ(filled.plan.slot, own.plan.slot);
  EXPECT_LE(filled.lower_bound_s, filled.timeline.end.seconds());
  const LayerRun same = play(experiment("shared_expert: own\n")).front(), small = play(experiment("shared_expert: {waterfill: {min_tokens: 129}}\n")).front();
  EXPECT_EQ(same.timeline.end, own.timeline.end);
  EXPECT_EQ(small.timeline.end, own.timeline.end);
}

// What placements are searched by is what is played: with this rule.
TEST(SharedExpertRun, PlacementsThatSimulateKnowTheRule) {
  Experiment e = experiment("shared_expert: waterfill\n");
  double searched = 0;
  e.placement.sees = PlacementPolicy::Sees::tokens;
  e.placement.place = [&searched, place = e.placement.place](const Problem& problem) {
    std::vector<Placement> placed = place(problem);
    searched = problem.batch_seconds(0, *problem.tokens[0][0], placed[0]);
    return placed;
  };
  const double played = play(e).front().timeline.end.seconds();
  EXPECT_EQ(searched, played);
  EXPECT_NE(played, play(experiment("")).front().timeline.end.seconds());
}

TEST(SharedExpertRun, RanksThatAreDownComputeNone) {
  const std::vector<LayerRun> runs = play(experiment("shared_expert: waterfill\nbatches: 3\nevents: [{batch: 1, fail: [1]}, {batch: 2, join: [1]}]\n"));
  for (const LayerRun& r : runs) {
    const std::vector<std::int64_t> rows = rows_of(r);
    ASSERT_FALSE(r.plan.shared_rank.empty());
    EXPECT_EQ(rows, r.plan.shared_rows_of_rank());
    EXPECT_EQ(std::accumulate(rows.begin(), rows.end(), std::int64_t{0}), 4 * 128);
    EXPECT_EQ(rows[1] == 0, r.batch == 1);
  }
}

// I11
TEST(SharedExpertRun, AModelWithoutOneHasNothingToRule) {
  EXPECT_THAT(input_error([] { experiment("shared_expert: waterfill\n", "mixtral-8x7b"); }), HasSubstr("test.yaml:6:16: error: mixtral-8x7b has no shared expert"));
  EXPECT_EQ(input_error([] { experiment("shared_expert: own\n", "mixtral-8x7b"); }), "");
}

}  // namespace
}  // namespace epsim
