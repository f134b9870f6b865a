#include "sim/run.h"

#include <gmock/gmock.h>

#include <numeric>

#include <fmt/format.h>

#include "policies/migration.h"
#include "tests/support/part_from_yaml.h"

namespace epsim {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

Experiment experiment(const std::string& more, const std::vector<std::string>& set = {}) {
  const std::string yaml =
      "model: mixtral-8x7b\ncluster: {single_switch: {ranks: 4, device: h800}}\nsource: {zipf: {tokens_per_rank: 64, exponent: 1}}\n"
      "network: ideal\nexchange: direct\n" +
      std::string(more.find("layers: [") == std::string::npos ? "layers: 0-1\n" : "") + more;
  return read_experiment(std::make_shared<SourceText>(SourceText{"test.yaml", yaml}), set, builtin_catalogs());
}

/// A policy that notes what it is shown, and deals experts to ranks in an order that turns by one with each call.
struct Spy {
  std::shared_ptr<std::vector<Problem>> seen = std::make_shared<std::vector<Problem>>();
  PlacementPolicy policy(PlacementPolicy::Sees sees = PlacementPolicy::Sees::counts) const {
    PlacementPolicy p;
    p.sees = sees;
    p.place = [seen = seen](const Problem& problem) {
      std::vector<std::uint16_t> experts(8);
      std::iota(experts.begin(), experts.end(), std::uint16_t{0});
      std::rotate(experts.begin(), experts.begin() + static_cast<std::ptrdiff_t>(seen->size() % 8), experts.end());
      seen->push_back(problem);
      return std::vector<Placement>(problem.counts.size(), Placement::from_experts(experts, {0, 2, 4, 6, 8}, 8));
    };
    return p;
  }
};

std::vector<std::int64_t> loads_of(const Experiment& e, int batch, int layer) {
  Routing routing = make_routing(e.source, e.model.num_experts, e.model.top_k);
  route_layer(e, batch, layer, 0, e.topology.ranks(), routing);
  const Matrix<std::int64_t> counts = count_choices(routing);
  std::vector<std::int64_t> sum(8);
  for (std::int64_t r = 0; r < counts.rows; ++r)
    for (std::int64_t x = 0; x < 8; ++x) sum[static_cast<std::size_t>(x)] += counts(r, x);
  return sum;
}

std::vector<LayerRun> play(const Experiment& e) {
  std::vector<LayerRun> runs;
  run(e, Timeline::Detail::rank, [&](LayerRun& layer) {
    runs.push_back(layer);
    return true;
  });
  return runs;
}

TEST(Run, BatchesHaveTokensOfTheirOwn) {
  const Experiment e = experiment("batches: 3\n");
  const std::vector<LayerRun> runs = play(e);
  ASSERT_EQ(runs.size(), 6U);
  EXPECT_EQ(runs[4].batch, 2);
  EXPECT_EQ(runs[5].plan.layer, 1);
  EXPECT_NE(runs[0].plan.routing.expert, runs[2].plan.routing.expert);
}

TEST(Run, FitPlacesOnceFromTheBatchesOfFitAndPlaysTheOthers) {
  Experiment e = experiment("batches: 4\nfit: 0:50%\n");
  const Spy spy;
  e.placement = spy.policy(PlacementPolicy::Sees::tokens);
  const std::vector<LayerRun> runs = play(e);
  ASSERT_EQ(spy.seen->size(), 1U);
  const Problem& problem = spy.seen->front();
  EXPECT_THAT(problem.layers, ElementsAre(0, 1));
  for (std::size_t l = 0; l < 2; ++l) {
    std::vector<std::int64_t> sum = loads_of(e, 0, static_cast<int>(l));
    const std::vector<std::int64_t> second = loads_of(e, 1, static_cast<int>(l));
    for (std::int64_t x = 0; x < 8; ++x) EXPECT_EQ(problem.batches[l](1, x), second[static_cast<std::size_t>(x)]);
    std::ranges::transform(sum, second, sum.begin(), std::plus<>());
    EXPECT_EQ(problem.loads(l), sum);
    EXPECT_EQ(problem.tokens[l].size(), 2U);
  }
  ASSERT_EQ(runs.size(), 4U);
  EXPECT_EQ(runs.front().batch, 2);
}

TEST(Run, TheSimulatorAnswersAPolicyForThePlacementItTries) {
  Experiment e = experiment("batches: 2\nfit: 0:1\n");
  double said = 0;
  e.placement.sees = PlacementPolicy::Sees::tokens;
  e.placement.place = [&said, place = Spy().policy().place](const Problem& problem) {
    std::vector<Placement> placed = place(problem);
    said = problem.layer_seconds(1, placed[1]);
    return placed;
  };
  play(e);
  Experiment same = experiment("batches: 1\nlayers: [1]\n");
  same.placement = Spy().policy();
  EXPECT_DOUBLE_EQ(said, play(same).front().timeline.end.seconds());
}

TEST(Run, WindowsAndLagsShowTheBatchesTheyName) {
  {
    Experiment e = experiment("batches: 5\nrebalance: {statistics: window, window: 2}\n");
    const Spy spy;
    e.placement = spy.policy();
    play(e);
    ASSERT_EQ(spy.seen->size(), 5U);  // the first as if all experts were alike
    EXPECT_THAT(spy.seen->front().loads(0), Each(4));
    for (std::int64_t x = 0; x < 8; ++x) EXPECT_EQ(spy.seen->back().batches[1](0, x), loads_of(e, 2, 1)[static_cast<std::size_t>(x)]);
    EXPECT_EQ(spy.seen->back().batches[1].rows, 2);
    EXPECT_EQ(spy.seen->back().previous.size(), 2U);
  }
  {
    Experiment e = experiment("batches: 5\nrebalance: {statistics: lagged, lag: 3}\n");
    const Spy spy;
    e.placement = spy.policy();
    play(e);
    ASSERT_EQ(spy.seen->size(), 3U);  // batches 3 and 4 know batches 0 and 1
    EXPECT_EQ(spy.seen->back().loads(1), loads_of(e, 1, 1));
  }
  {
    Experiment e = experiment("batches: 3\nrebalance: {statistics: ema, decay: 0.5}\n");
    const Spy spy;
    e.placement = spy.policy();
    play(e);
    const std::vector<std::int64_t> first = loads_of(e, 0, 0), second = loads_of(e, 1, 0), seen = spy.seen->back().loads(0);
    for (std::size_t x = 0; x < 8; ++x) EXPECT_NEAR(static_cast<double>(seen[x]), 0.5 * static_cast<double>(first[x]) + static_cast<double>(second[x]), 2.0);  // each source rounds by itself
  }
}

/// A source in which every token of every batch chooses experts 0 and 1, with the same weights.
Source all_alike(Source source) {
  source.yields = Source::Yields::choices;
  source.choices = [](int, std::int64_t, std::int64_t, std::span<std::uint16_t> experts, std::span<float> weights) {
    for (std::size_t i = 0; i < experts.size(); ++i) experts[i] = static_cast<std::uint16_t>(i % 2), weights[i] = 0.5F;
  };
  return source;
}

// What capacity drops by draw is the same that `epsim route` drops: numbers are keyed by seed, layer and the token's number among those of all batches.
TEST(Run, CapacitiesDrawAnewForEachBatchAndSeed) {
  std::vector<std::vector<std::int32_t>> dropped;
  for (const std::string seed : {"1", "2"}) {
    Experiment e = experiment("seed: " + seed + "\nbatches: 2\nlayers: [3]\ncapacity: {deepspeed: {factor: 1, order: random}}\n");
    e.source = all_alike(e.source);
    for (const LayerRun& run : play(e)) {
      const Plan& plan = run.plan;
      std::vector<std::int32_t> expected(plan.slot.size());
      for (const Rank r : ids<Rank>(4))
        mark_overflow(e.capacity, plan.routing, r, plan.choices.row(r.value), plan.limits.row(r.value), {e.seed, 3, run.batch * e.source.tokens()}, std::span(expected).subspan(static_cast<std::size_t>(r) * 128, 128));
      std::vector<std::int32_t>& marks = dropped.emplace_back();
      for (const std::int32_t s : plan.slot) marks.push_back(std::min(s, 0));
      EXPECT_EQ(marks, expected) << "seed " << seed << ", batch " << run.batch;
      EXPECT_EQ(std::ranges::count(marks, -1), 4 * 2 * (64 - 16));
    }
  }
  for (const std::size_t other : {1U, 2U, 3U}) EXPECT_NE(dropped[0], dropped[other]);
}

TEST(Run, PlacementsSeeTheChoicesThatReplicasTakeOver) {
  const Experiment dropless = experiment("layers: [0]\n");
  Experiment e = experiment("layers: [0]\ncapacity: {megatron: {factor: 1, overflow: other_replica}}\n");
  const Spy spy;
  e.placement = spy.policy();
  play(e);
  EXPECT_EQ(spy.seen->front().loads(0), loads_of(dropless, 0, 0));
}

TEST(Run, WhatFitsNoReplicaGoesToTheNextBestExpertWithRoom) {
  const std::string common = "layers: [0]\nplacement: {eplb: {slots: 16}}\n";
  const auto first = [&](const std::string& overflow) { return std::move(play(experiment(common + "capacity: {megatron: {factor: 0.6, overflow: " + overflow + "}}\n")).front().plan); };
  const Plan again = first("other_replica_or_next_best"), drops = first("other_replica"), one_each = first("next_best");
  ASSERT_EQ(again.placement.expert_of_slot, drops.placement.expert_of_slot);
  ASSERT_GT(drops.drops.choices, 0);
  EXPECT_EQ(again.drops.choices, 0);
  std::int64_t others = 0, of_one_each = 0;
  for (std::size_t i = 0; i < again.slot.size(); ++i) {
    if (drops.slot[i] >= 0) {
      EXPECT_EQ(again.routing.expert[i], drops.routing.expert[i]) << "choice " << i << " has room";
    }
    others += again.routing.expert[i] != kNoExpert && again.routing.expert[i] != drops.routing.expert[i];
    of_one_each += one_each.routing.expert[i] != drops.routing.expert[i];
  }
  EXPECT_GT(others, drops.drops.choices * 9 / 10) << "there is room for all";
  EXPECT_LT(others, of_one_each) << "replicas have taken some";
  const std::int64_t room = drops.limits(0, 0) / static_cast<std::int64_t>(drops.placement.slots_of_expert[0].size());
  for (const std::int64_t copies : again.copies.cells) EXPECT_LE(copies, room);
  EXPECT_EQ(*std::ranges::max_element(again.copies.cells), room);

  // An expert with room at the end had room all along: no choice was made anew of one that its token wants less.
  const Experiment e = experiment(common);
  std::vector<float> scores(score_count(256, 8)), logits(256 * 8);
  e.source.scores(again.layer, 0, 256, scores);
  logits_of_scores(e.source.form, 256, 8, scores, logits);
  std::int64_t wanted = 0;
  for (std::int64_t t = 0; t < 256; ++t)
    for (std::size_t i = static_cast<std::size_t>(t) * 2; i < static_cast<std::size_t>(t) * 2 + 2; ++i) {
      if (again.routing.expert[i] == drops.routing.expert[i] || again.routing.expert[i] == kNoExpert) continue;
      for (std::int64_t other = 0; other < 8; ++other) {
        const bool chosen = other == again.routing.expert[i / 2 * 2] || other == again.routing.expert[i / 2 * 2 + 1];
        const bool full = again.choices(t / 64, other) >= again.limits(t / 64, other);
        const auto logit = [&](std::int64_t expert) { return logits[static_cast<std::size_t>(t * 8 + expert)]; };
        EXPECT_TRUE(chosen || full || logit(other) <= logit(again.routing.expert[i])) << "token " << t << " wants expert " << other;
        wanted += !chosen && !full && again.placement.slots_of_expert[static_cast<std::size_t>(other)].size() > 1;
      }
    }
  EXPECT_GT(wanted, 0) << "replicated experts have room";
}

TEST(Run, ADecisionKeepsItsTimeItsThresholdAndItsLayers) {
  Experiment e = experiment("batches: 5\nrebalance: {statistics: lagged, every: 2, layers_per_batch: 1}\n");
  const Spy spy;
  e.placement = spy.policy();
  const std::vector<LayerRun> runs = play(e);
  ASSERT_EQ(spy.seen->size(), 3U);  // the first, batch 2 and batch 4
  EXPECT_THAT((*spy.seen)[1].layers, ElementsAre(0));
  EXPECT_THAT((*spy.seen)[2].layers, ElementsAre(1));
  for (const LayerRun& run : runs) EXPECT_EQ(run.relocation.decided, (run.batch == 2 && run.plan.layer == 0) || (run.batch == 4 && run.plan.layer == 1));

  Experiment calm = experiment("batches: 3\nrebalance: {statistics: lagged, threshold: 5}\n");
  calm.placement = spy.policy();
  play(calm);
  EXPECT_EQ(spy.seen->size(), 4U);  // max/mean over 4 ranks is at most 4
}

TEST(Run, BlockingMovesAreWaitedForAndOverlappedOnesComeABatchLater) {
  Experiment e = experiment("batches: 3\nrebalance: {statistics: lagged, every: 2, moving: blocking}\n");
  e.placement = Spy().policy();
  std::vector<LayerRun> runs = play(e);
  // Turned by one, every rank gets the expert of its next slot: its second slot's is on the next rank.
  const Bytes expert = e.pricing.expert_bytes;
  EXPECT_EQ(expert, 3 * 4096 * 14336 * 2);
  const Relocation& moved = runs[4].relocation;
  EXPECT_EQ(moved.moved_experts, 4);
  EXPECT_EQ(moved.changed_slots, 8);
  EXPECT_EQ(moved.peers, 4);
  EXPECT_EQ(moved.bytes, 4 * expert);
  const double alone = static_cast<double>(expert) / e.topology.bandwidth(Rank(0), Rank(1)) + e.topology.latency(Rank(0), Rank(1)).seconds();
  EXPECT_NEAR(moved.waited_s, alone, 1e-11);
  EXPECT_EQ(runs[2].relocation.bytes, 0);

  e = experiment("batches: 4\nrebalance: {statistics: lagged, every: 2, moving: overlapped}\n");
  e.placement = Spy().policy();
  runs = play(e);
  EXPECT_EQ(runs[4].plan.placement.expert_of_slot, runs[2].plan.placement.expert_of_slot);
  EXPECT_NE(runs[6].plan.placement.expert_of_slot, runs[4].plan.placement.expert_of_slot);
  EXPECT_GE(runs[4].relocation.moving_s, alone * (1 - 1e-9));
  EXPECT_GE(runs[4].relocation.slowed_s, 0);
  EXPECT_EQ(runs[4].relocation.waited_s, 0);
  EXPECT_EQ(runs[6].relocation.moving_s, 0);
}

TEST(Run, TellsWhatAMoveCostAndWhatItGainedInTheFirstBatchUnderTheNewPlacement) {
  const auto under = [](const Experiment& e, const LayerRun& run, const Placement& placement) {
    return run_plan(e, make_plan(run.plan.layer, run.plan.routing, e.capacity, placement, e.replica, e.topology), Timeline::Detail::rank).timeline.end.seconds();
  };
  Experiment e = experiment("batches: 3\nrebalance: {statistics: lagged, every: 2, moving: blocking}\n");
  e.placement = Spy().policy();
  std::vector<LayerRun> runs = play(e);
  EXPECT_TRUE(runs[4].relocation.paid);
  EXPECT_FALSE(runs[2].relocation.paid);
  EXPECT_EQ(runs[4].relocation.paid_s, runs[4].relocation.waited_s);
  EXPECT_DOUBLE_EQ(runs[4].relocation.gained_s, under(e, runs[4], runs[2].plan.placement) - runs[4].timeline.end.seconds());
  EXPECT_NE(runs[4].relocation.gained_s, 0);

  e = experiment("batches: 4\nrebalance: {statistics: lagged, every: 2, moving: overlapped}\n");
  e.placement = Spy().policy();
  runs = play(e);
  EXPECT_FALSE(runs[4].relocation.paid);  // its weights still travel
  EXPECT_TRUE(runs[6].relocation.paid);
  EXPECT_EQ(runs[6].relocation.paid_s, std::max(0.0, runs[4].relocation.slowed_s));
  EXPECT_DOUBLE_EQ(runs[6].relocation.gained_s, under(e, runs[6], runs[4].plan.placement) - runs[6].timeline.end.seconds());

  e = experiment("batches: 3\nrebalance: {statistics: lagged, every: 2}\n");
  e.placement = Spy().policy();
  for (const LayerRun& run : play(e)) EXPECT_FALSE(run.relocation.paid);
}

TEST(Run, MovesComeFromTheReceiversNodeWhereItHoldsTheExpert) {
  const Topology topology = testing::part_from_yaml(builtin_clusters(), "rail_fat_tree: {nodes: 2, ranks_per_node: 2, device: h800}");
  const Placement before = Placement::from_experts({0, 1, 0, 1}, {0, 1, 2, 3, 4}, 2), after = Placement::from_experts({0, 0, 0, 1}, {0, 1, 2, 3, 4}, 2);
  const Migration m = migration(before, after, topology);
  ASSERT_EQ(m.moves.size(), 1U);
  EXPECT_EQ(m.moves[0].from, 0);
  EXPECT_EQ(m.moves[0].to, 1);
  EXPECT_EQ(m.changed_slots, 1);
}

TEST(Run, WhatNoRankHeldIsRestored) {
  const Topology topology = testing::part_from_yaml(builtin_clusters(), "single_switch: {ranks: 2, device: h800}");
  const Migration m = migration(Placement::from_experts({0}, {0, 1, 1}, 2), Placement::from_experts({1, 0}, {0, 1, 2}, 2), topology);
  ASSERT_EQ(m.moves.size(), 1U);
  EXPECT_EQ(m.moves[0].to, 1);
  ASSERT_EQ(m.restores.size(), 1U);
  EXPECT_EQ(m.restores[0].to, 0);
  EXPECT_EQ(m.restores[0].expert, 1);
}

/// What is wrong with an experiment, a problem a line.
std::vector<std::string> problems_of(const std::string& more, const std::vector<std::string>& set = {}) {
  std::vector<std::string> said;
  try {
    experiment(more, set);
  } catch (const InputError& error) {
    for (const Diagnostic& d : error.problems()) said.push_back(fmt::format("{}:{}: {}", d.at.line, d.at.column, d.message));
  }
  return said;
}

TEST(Rebalance, RefusesWhatHasNoEffect) {
  EXPECT_THROW(experiment("rebalance: {statistics: window, decay: 0.5}\n"), InputError);
  EXPECT_THROW(experiment("batches: 2\nfit: 0:1\nrebalance: {every: 2}\n"), InputError);
  EXPECT_THROW(experiment("batches: 2\nrebalance: {statistics: exact, moving: overlapped}\n"), InputError);
  EXPECT_THROW(experiment("batches: 2\nfit: 0:2\n"), InputError);
  EXPECT_THROW(experiment("batches: 2\nfit: 1:1\n"), InputError);
  EXPECT_THROW(experiment("batches: 2\nfit: 0:3\n"), InputError);
  EXPECT_THROW(experiment("batches: 8\neval: half\n"), InputError);
  EXPECT_EQ(experiment("eval: '50%:'\n").eval.first, 4);
  EXPECT_EQ(experiment("fit: :25%\n").eval.first, 2);
  // Exact statistics place each layer of each batch from itself: nothing is compared with a threshold, and no layer waits for its turn.
  EXPECT_THAT(problems_of("batches: 2\nrebalance: {threshold: 1.2, moving: blocking}\n"), ElementsAre(AllOf(HasSubstr("8:"), HasSubstr("`threshold` has no effect with statistics: exact"))));
  EXPECT_THAT(problems_of("batches: 2\nrebalance: {statistics: exact, threshold: 1, layers_per_batch: 1}\n"), ElementsAre(HasSubstr("`threshold` has no effect"), HasSubstr("`layers_per_batch` has no effect")));
  EXPECT_THAT(problems_of("batches: 2\nrebalance: {statistics: window, threshold: 1.2, layers_per_batch: 1}\n"), IsEmpty());
}

TEST(Rebalance, SaysThatExactStatisticsLeaveFitUnused) {
  const auto notes = [](const std::string& more) { return experiment(more).notes; };
  EXPECT_THAT(notes("batches: 2\nfit: 0:1\nrebalance: {statistics: exact}\n"), Contains(HasSubstr("`fit` is not used")));
  for (const char* used : {"batches: 2\nfit: 0:1\n", "batches: 2\nfit: 0:1\nrebalance: {statistics: window}\n", "batches: 2\nfit: 0:1\nrebalance: {statistics: exact}\ncompression: {frequency_prune: {keep: 4}}\n"})
    EXPECT_THAT(notes(used), Not(Contains(HasSubstr("`fit` is not used")))) << used;
}

TEST(Batches, ARefusalSaysWhichWouldBePlayed) {
  EXPECT_THAT(problems_of("fit: 50%:100%\n"), ElementsAre(AllOf(HasSubstr("7:6: without `eval` the batches behind `fit` are played, and it ends with the last of 8"), HasSubstr("`eval: 0:4`"))));
  EXPECT_THAT(problems_of("rebalance: {statistics: window}\n"), ElementsAre(HasSubstr("`statistics: window` has nothing to go by")));
  EXPECT_THAT(problems_of("rebalance: {statistics: lagged, moving: blocking}\n"), ElementsAre(HasSubstr("`statistics: lagged` has nothing to go by"), HasSubstr("`moving` has no effect: one batch is played")));
  EXPECT_THAT(problems_of("batches: 2\nfit: 0:1\nrebalance: {statistics: window}\n"), IsEmpty());
  EXPECT_THAT(problems_of("batches: 4\nrebalance: {statistics: lagged, lag: 4}\n"), ElementsAre(HasSubstr("`lag: 4` would have no effect: 4 batches are shown and played, and the last of them may look back 3")));
  EXPECT_THAT(problems_of("batches: 4\nfit: 0:1\nrebalance: {statistics: lagged, lag: 3}\n"), ElementsAre());
  EXPECT_THAT(problems_of("batches: 2\nfit: 0:2\n"), ElementsAre(AllOf(HasSubstr("`fit` takes all 2 batches"), HasSubstr("give `eval` as well, or more `batches`"))));
  EXPECT_THAT(problems_of("batches: 2\nfit: 0:2\neval: 3:4\n"), ElementsAre(HasSubstr("`3:4` is no range of batches"))) << "and nothing of `fit`, which is right";
}

TEST(Layers, AreOneOrMore) { EXPECT_THAT(problems_of("", {"layers=[]"}), ElementsAre(HasSubstr("`layers` is empty"))); }

TEST(Sources, AreSaidToHaveNoWeightsOnlyWhereTheyAreWhole) {
  const std::vector<std::string> broken = problems_of("capacity: {megatron: {factor: 1.25}}\n", {"source={trace: {file: nope.npz}}"});
  ASSERT_EQ(broken.size(), 1U) << broken.back();
  EXPECT_THAT(broken.front(), HasSubstr("nope.npz"));
}

TEST(Placements, OfAllLayersAtOnceAreRefusedWhereTheyAreShownOne) {
  EXPECT_THAT(problems_of("placement: exflow\n"), ElementsAre(AllOf(HasSubstr("7:12: this placement is made for all layers at once"), HasSubstr("give `fit`"))));
  EXPECT_THAT(problems_of("batches: 2\nfit: 0:1\nplacement: exflow\nrebalance: {statistics: exact}\n"), ElementsAre(HasSubstr("all layers at once")));
  EXPECT_THAT(problems_of("batches: 4\nfit: 0:1\nplacement: exflow\nrebalance: {statistics: window, layers_per_batch: 1}\n"), ElementsAre(HasSubstr("all layers at once")));
  EXPECT_THAT(problems_of("batches: 4\nfit: 0:1\nplacement: exflow\nrebalance: {statistics: window}\n"), IsEmpty());
  EXPECT_THAT(problems_of("batches: 2\nfit: 0:1\nplacement: exflow\n"), IsEmpty());
}

// What forgets keeps counts: were the last batch's tokens shown beside them, a policy that simulates would go by that batch alone.
TEST(Placements, SeeNoTokensOfStatisticsThatForget) {
  Experiment e = experiment("batches: 3\nplacement: {epsim_opt: {moves: 20, refined: 1}}\nrebalance: {statistics: ema}\n");
  const Spy spy;
  e.placement = spy.policy(e.placement.sees);
  play(e);
  ASSERT_EQ(spy.seen->size(), 3U);
  for (const Problem& problem : *spy.seen) EXPECT_THAT(problem.tokens, IsEmpty());
}

}  // namespace
}  // namespace epsim
