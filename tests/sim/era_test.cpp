// Ranks that fail, come back or slow down while batches pass.
#include "sim/era.h"

#include <gmock/gmock.h>

#include <numeric>

#include "sim/run.h"
#include "tests/support/part_from_yaml.h"
#include "topology/faults.h"

namespace epsim {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

const std::string kFive = "cluster: {single_switch: {ranks: 5, device: h800}}\n", kTwoNodes = "cluster: {rail_fat_tree: {nodes: 2, ranks_per_node: 4, device: h800}}\n";

Experiment experiment(const std::string& more) {
  const std::string yaml = "model: mixtral-8x7b\nsource: {zipf: {tokens_per_rank: 64, exponent: 1}}\nnetwork: ideal\n" + std::string(more.find("layers: [") == std::string::npos ? "layers: 0-1\n" : "") + more;
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

std::vector<std::string> problems_of(const std::string& more) {
  std::vector<std::string> said;
  try {
    experiment(more);
  } catch (const InputError& error) {
    for (const Diagnostic& d : error.problems()) said.push_back(d.message);
  }
  return said;
}

Survivors survivors(int ranks, std::vector<int> up) {
  Survivors s;
  s.ranks = ranks, s.nodes = 1;
  for (const int r : up) s.up.push_back(Rank(r));
  return s;
}

/// Slots of each rank.
std::vector<int> slots(const Placement& p) {
  std::vector<int> out;
  for (int r = 0; r < p.ranks(); ++r) out.push_back(p.first_slot[static_cast<std::size_t>(r) + 1] - p.first_slot[static_cast<std::size_t>(r)]);
  return out;
}

TEST(Eras, SayEverythingThatIsWrongAtOnce) {
  const std::vector<std::string> said = problems_of(kFive +
      "batches: 8\neval: '2:8'\nspeeds: [1, 1, 1, 1, 1, 1]\nevents:\n  - {batch: 1, fail: [0]}\n  - {batch: 2, fail: [7]}\n  - {batch: 3, fail: [1]}\n  - {batch: 4, fail: [1]}\n"
      "  - {batch: 5, join: [2]}\n  - {batch: 6, fail: [0, 2, 3, 4]}\n  - {batch: 8, slow: {rank: 9, speed: 0.5}}\n");
  EXPECT_THAT(said, ElementsAre(HasSubstr("6 speeds are given for 5 ranks"), HasSubstr("batch 1 is not played: batches 2 to 7 are"), HasSubstr("there is no rank 7"), HasSubstr("rank 1 fails in batch 4 and is down already"),
                                HasSubstr("rank 2 joins in batch 5 and is up already"), HasSubstr("no rank is left in batch 6"), HasSubstr("batch 8 is not played"), HasSubstr("there is no rank 9")));
}

TEST(Eras, RefuseWhatIsNoEventAndWhatHasNoEffect) {
  EXPECT_THAT(problems_of(kFive + "batches: 2\nevents: {batch: 1, fail: 0}\n"), ElementsAre(HasSubstr("`events` is a list")));
  EXPECT_THAT(problems_of(kFive + "batches: 2\nevents: [{batch: 1}]\n"), ElementsAre(HasSubstr("needs `fail`, `join` or `slow`")));
  EXPECT_THAT(problems_of(kFive + "batches: 2\nevents: [{batch: 1, fial: 0}]\n"), ElementsAre(HasSubstr("needs"), HasSubstr("did you mean `fail`")));
  EXPECT_THAT(problems_of(kFive + "batches: 2\nevents: [{batch: 1, slow: {rank: 0}}]\n"), ElementsAre(HasSubstr("needs `rank` and `speed`")));
  EXPECT_THAT(problems_of(kFive + "batches: 2\nevents: [{batch: 1, slow: {rank: 0, speed: 2}}]\n"), ElementsAre(HasSubstr("at most 1")));
  EXPECT_THAT(problems_of(kFive + "speeds: [1, 0]\n"), ElementsAre(HasSubstr("above 0")));
  EXPECT_THAT(problems_of(kFive + "speeds: 0.5\n"), ElementsAre(HasSubstr("list")));
  EXPECT_THAT(problems_of(kFive + "failure: {tokens: lost}\n"), ElementsAre(HasSubstr("no rank fails")));
  EXPECT_THAT(problems_of(kFive + "batches: 2\nfit: '0:1'\nrebalance: {moving: blocking}\n"), ElementsAre(HasSubstr("made from `fit`, once")));
  EXPECT_THAT(problems_of(kFive + "batches: 2\nfit: '0:1'\nevents: [{batch: 1, fail: 0}]\nrebalance: {moving: blocking}\n"), IsEmpty());
}

TEST(Eras, NameTheRanksThatARefusalIsAbout) {
  EXPECT_THAT(problems_of(kFive + "batches: 2\nplacement: {given: {file: nothing.json}}\nevents: [{batch: 1, fail: 0}]\n"), Each(::testing::Not(HasSubstr("ranks that are up"))));
  // Rank 4 is down by the setting, and there is no rank 4 of four.
  EXPECT_THAT(problems_of(kFive + "batches: 2\nplacement: {elasticity_aware: {down: 4}}\nevents: [{batch: 1, fail: 0}]\n"), ElementsAre(HasSubstr("(for the 4 ranks that are up from batch 1 on)")));
}

TEST(Rehomed, TokensGoToTheRanksThatAreUpInEqualPieces) {
  Routing whole;
  whole.experts = 64, whole.top_k = 2, whole.first_token = {0, 2, 5, 6, 8};
  whole.seed = 5, whole.number = 80;
  for (std::uint16_t t = 0; t < 8; ++t) {
    whole.priority.push_back(static_cast<float>(10 * t));
    for (const std::uint16_t c : {0, 1}) whole.expert.push_back(static_cast<std::uint16_t>(2 * t + c)), whole.weight.push_back(static_cast<float>(t) + 0.5F * c);
  }
  const Survivors s = survivors(4, {0, 3});
  const Routing spread = rehomed(whole, s, Changes::Tokens::spread);
  EXPECT_THAT(spread.first_token, ElementsAre(0, 3, 8));
  // Rank 0: its own 0 and 1, of 2-4 the first piece (3 / 2 tokens, rounded down: 2), of 5 none. Rank 3: its own 6 and 7, then 3, 4 and 5.
  EXPECT_THAT(spread.expert, ElementsAre(0, 1, 2, 3, 4, 5, 12, 13, 14, 15, 6, 7, 8, 9, 10, 11));
  EXPECT_THAT(spread.weight, ElementsAre(0, 0.5, 1, 1.5, 2, 2.5, 6, 6.5, 7, 7.5, 3, 3.5, 4, 4.5, 5, 5.5));
  EXPECT_THAT(spread.priority, ElementsAre(0, 10, 20, 60, 70, 30, 40, 50));
  EXPECT_EQ(spread.seed, 5U);
  EXPECT_EQ(spread.number, 80);
  const Routing left = rehomed(whole, s, Changes::Tokens::lost);
  EXPECT_THAT(left.first_token, ElementsAre(0, 2, 4));
  EXPECT_THAT(left.expert, ElementsAre(0, 1, 2, 3, 12, 13, 14, 15));

  Matrix<std::int64_t> counts(4, 1);
  counts.cells = {10, 5, 4, 20};
  EXPECT_THAT(rehomed(counts, s, Changes::Tokens::spread).cells, ElementsAre(10 + 3 + 2, 20 + 2 + 2));
  EXPECT_THAT(rehomed(counts, s, Changes::Tokens::lost).cells, ElementsAre(10, 20));
}

TEST(WithoutRanks, KeepsTheOthersAndTheirLinks) {
  const Topology whole = testing::part_from_yaml(builtin_clusters(), "rail_fat_tree: {nodes: 3, ranks_per_node: 2, device: h800}");
  const Topology t = without_ranks(whole, {Rank(0), Rank(2), Rank(3)});
  EXPECT_EQ(t.ranks(), 3);
  EXPECT_EQ(t.nodes(), 2);
  EXPECT_EQ(t.node_of(Rank(0)), 0);
  EXPECT_EQ(t.node_of(Rank(1)), 1);
  EXPECT_EQ(t.node_of(Rank(2)), 1);
  // What were ranks 1, 4 and 5.
  EXPECT_EQ(t.bandwidth(Rank(0), Rank(2)), whole.bandwidth(Rank(1), Rank(5)));
  EXPECT_EQ(t.latency(Rank(1), Rank(2)), whole.latency(Rank(4), Rank(5)));
  EXPECT_EQ(as_one_node(whole).nodes(), 1);
  EXPECT_EQ(as_one_node(whole).latency(Rank(1), Rank(5)), whole.latency(Rank(1), Rank(5)));
}

// The last rank of a switch fails and its tokens are lost: what is left is a switch of one rank less, to the picosecond.
TEST(Failure, LeavesTheMachineThatIsLeft) {
  for (const char* exchange : {"direct", "hierarchical", "pairwise", "ring", "bruck", "allgather_reducescatter", "low_latency"}) {
    const std::string rest = "placement: {eplb: {slots: 20}}\nexchange: " + std::string(exchange) + "\n";
    const std::vector<LayerRun> failed = play(experiment(kFive + rest + "events: [{batch: 0, fail: 4}]\nfailure: {tokens: lost}\n"));
    const std::vector<LayerRun> fewer = play(experiment("cluster: {single_switch: {ranks: 4, device: h800}}\nplacement: {eplb: {slots: 16}}\nexchange: " + std::string(exchange) + "\n"));
    for (const std::size_t l : {0U, 1U}) {
      EXPECT_EQ(failed[l].timeline.end, fewer[l].timeline.end) << exchange;
      EXPECT_EQ(failed[l].plan.placement.expert_of_slot, fewer[l].plan.placement.expert_of_slot) << exchange;
      EXPECT_EQ(failed[l].plan.slot, fewer[l].plan.slot) << exchange;
      EXPECT_DOUBLE_EQ(failed[l].lower_bound_s, fewer[l].lower_bound_s) << exchange;
      EXPECT_EQ(failed[l].lost_tokens, 64);
    }
  }
}

TEST(Failure, LeavesNothingOnTheRankAndLosesNoToken) {
  const std::vector<LayerRun> runs = play(experiment(kFive + "batches: 4\nplacement: {eplb: {slots: 20}}\nevents: [{batch: 1, fail: 2}, {batch: 3, join: 2}]\n"));
  EXPECT_THAT(slots(runs[0].plan.placement), ElementsAre(4, 4, 4, 4, 4));
  for (const std::size_t l : {2U, 3U, 4U, 5U}) {
    const LayerRun& r = runs[l];
    EXPECT_THAT(slots(r.plan.placement), ElementsAre(4, 4, 0, 4, 4));
    EXPECT_THAT(r.plan.routing.first_token, ElementsAre(0, 80, 160, 160, 240, 320));
    EXPECT_EQ(r.ranks_up, 4);
    EXPECT_EQ(r.rehomed_tokens, 64);
    EXPECT_EQ(r.plan.copies_of_rank()[2], 0);
    const std::vector<std::int64_t> copies = r.plan.copies_of_rank();
    EXPECT_EQ(std::accumulate(copies.begin(), copies.end(), std::int64_t{0}), 2 * 320);
    for (const Phase& phase : r.schedule.phases)
      for (const RowTable::Entry& e : phase.rows.all()) EXPECT_TRUE(e.source != 2 && e.destination != 2);
    EXPECT_EQ(std::accumulate(r.plan.reach.tokens.begin(), r.plan.reach.tokens.end(), std::int64_t{0}), 320);
    EXPECT_EQ(r.plan.reach.ranks(2, 0) + r.plan.reach.ranks(0, 2), 0);
  }
  EXPECT_THAT(slots(runs[6].plan.placement), ElementsAre(4, 4, 4, 4, 4));
  EXPECT_EQ(runs[6].rehomed_tokens, 0);
}

TEST(Failure, RestoresWhatNoRankHoldsAndWaitsForTheSlowerOfHostsAndNetwork) {
  // Contiguous: experts 0-1 on rank 0, and so on; rank 3 fails, and then 0-2, 3-5, 6-7 are on three ranks.
  const std::string four = "cluster: {single_switch: {ranks: 4, device: h800}}\nbatches: 4\nfit: '0:1'\nevents: [{batch: 2, fail: 3}, {batch: 3, join: 3}]\n";
  Experiment e = experiment(four + "rebalance: {moving: blocking}\nfailure: {restore: 10 GB/s}\n");
  std::vector<LayerRun> runs = play(e);
  const auto expert = static_cast<double>(e.pricing.expert_bytes);
  EXPECT_THAT(slots(runs[2].plan.placement), ElementsAre(3, 3, 2, 0));
  EXPECT_EQ(runs[2].relocation.restored_experts, 2);  // 6 and 7, by rank 2
  EXPECT_EQ(runs[2].relocation.restored_bytes, 2 * e.pricing.expert_bytes);
  EXPECT_EQ(runs[2].relocation.moved_experts, 3);  // 2 to rank 0; 4 and 5 to rank 1
  EXPECT_NEAR(runs[2].relocation.waited_s, 2 * expert / 10e9, 1e-12);
  EXPECT_FALSE(runs[2].relocation.paid);
  EXPECT_EQ(runs[4].relocation.restored_experts, 0);
  EXPECT_EQ(runs[4].relocation.moved_experts, 5);  // 2 to rank 1, 4 and 5 to rank 2, 6 and 7 to rank 3
  e = experiment(four + "rebalance: {moving: blocking}\nfailure: {restore: 10 TB/s}\n");
  runs = play(e);
  const double port = e.topology.bandwidth(Rank(0), Rank(1)), latency = e.topology.latency(Rank(0), Rank(1)).seconds();
  EXPECT_NEAR(runs[2].relocation.waited_s, 2 * expert / port + latency, 1e-9);  // two experts leave one rank, or reach one
  e = experiment(four);
  EXPECT_EQ(play(e)[2].relocation.waited_s, 0);
  EXPECT_EQ(play(e)[2].relocation.restored_experts, 2);
}

TEST(Failure, UsesWhatIsLeftWhileWeightsTravelWhereNoExpertIsMissing) {
  // Every expert on two ranks: one rank may fail.
  Experiment e = experiment("cluster: {single_switch: {ranks: 4, device: h800}}\nbatches: 4\nfit: '0:1'\nevents: [{batch: 2, fail: 1}]\nrebalance: {moving: overlapped}\nplacement: {eplb: {slots: 16}}\n");
  const std::vector<LayerRun> runs = play(e);
  EXPECT_EQ(runs[2].relocation.restored_experts, 0);
  std::vector<std::uint16_t> left = runs[0].plan.placement.expert_of_slot;
  left.erase(left.begin() + 4, left.begin() + 8);
  if (runs[2].relocation.moved_experts > 0) {
    EXPECT_EQ(runs[2].plan.placement.expert_of_slot, left);
    EXPECT_GT(runs[2].relocation.moving_s, 0);
    EXPECT_EQ(runs[2].relocation.waited_s, 0);
    EXPECT_TRUE(runs[4].relocation.paid);
  }
}

TEST(Failure, ShowsAPolicyTheRanksThatAreUpAndWhatTheirTokensAre) {
  Experiment e = experiment(kTwoNodes + "batches: 4\nrebalance: {statistics: window, window: 4, every: 9}\nevents: [{batch: 2, fail: '0-3'}, {batch: 3, slow: {rank: [5, 7], speed: 0.5}, join: 0}]\n");
  auto seen = std::make_shared<std::vector<Problem>>();
  const auto spy = [seen](const Problem& p) {
    seen->push_back(p);
    std::vector<std::uint16_t> experts(8);
    std::iota(experts.begin(), experts.end(), std::uint16_t{0});
    std::vector<std::int32_t> first(static_cast<std::size_t>(p.ranks) + 1, 8);
    first[0] = 0;
    return std::vector<Placement>(p.counts.size(), Placement::from_experts(experts, first, 8));
  };
  e.placement.place = spy;
  for (Era& era : e.eras)
    if (era.survivors) {
      auto s = std::make_shared<Survivors>(*era.survivors);
      s->placement.place = spy;
      era.survivors = s;
    }
  play(e);
  ASSERT_EQ(seen->size(), 3U);
  const Problem &first = (*seen)[0], &half = (*seen)[1], &five = (*seen)[2];
  EXPECT_EQ(first.ranks, 8);
  EXPECT_TRUE(first.speed.empty());
  EXPECT_EQ(half.ranks, 4);
  EXPECT_EQ(half.nodes, 1);
  EXPECT_EQ(half.topology->ranks(), 4);
  EXPECT_EQ(half.counts[0].rows, 4);
  EXPECT_EQ(std::accumulate(half.counts[0].cells.begin(), half.counts[0].cells.end(), std::int64_t{0}), 2 * 8 * 64 * 2);  // two batches, all tokens
  EXPECT_TRUE(half.previous.empty());
  EXPECT_EQ(five.ranks, 5);
  EXPECT_EQ(five.nodes, 2);
  EXPECT_THAT(five.speed, ElementsAre(1, 1, 0.5, 1, 0.5));  // of ranks 0, 4, 5, 6, 7
}

TEST(Failure, BeforeTheFirstBatchAsksForOnePlacement) {
  Experiment e = experiment(kFive + "batches: 4\nplacement: {eplb: {slots: 20}}\nrebalance: {statistics: window, every: 8, threshold: 2}\nevents: [{batch: 0, fail: [3]}]\n");
  const std::vector<LayerRun> runs = play(e);
  for (const LayerRun& r : runs) EXPECT_FALSE(r.relocation.decided) << "batch " << r.batch;
}

TEST(Failure, LeavesPrioritiesToTokens) {
  // Scores sum to 1 over 2 choices, so that by weights alone a token would stand elsewhere in the order.
  const std::string capacity = "router: {topk: {score: softmax_before, renormalise: true}}\ncapacity: {tutel: {factor: 0.5, order: priority}}\n", machine = "cluster: {single_switch: {ranks: 4, device: h800}}\n";
  const std::vector<LayerRun> failed = play(experiment(kFive + capacity + "events: [{batch: 0, fail: 4}]\nfailure: {tokens: lost}\n")), fewer = play(experiment(machine + capacity));
  for (const std::size_t l : {0U, 1U}) {
    EXPECT_EQ(failed[l].plan.routing.priority, fewer[l].plan.routing.priority);
    EXPECT_EQ(failed[l].plan.slot, fewer[l].plan.slot);
    EXPECT_GT(failed[l].plan.drops.choices, 0);
  }
}

TEST(Failure, IsSomethingThatEveryPlacementAndReplicaRuleCanDoWith) {
  const std::string events = "events: [{batch: 2, fail: [3]}, {batch: 3, fail: [0, 5]}, {batch: 4, join: [0, 3, 5]}]\n";
  int placed = 0;
  for (const std::string& name : builtin_placements().names()) {
    if (name == "given") continue;
    SCOPED_TRACE(name);
    const std::string placement = name == "epsim_opt" ? "{epsim_opt: {moves: 20, refined: 1}}" : name;
    for (const LayerRun& r : play(experiment(kTwoNodes + "batches: 5\nfit: '0:1'\nrebalance: {moving: blocking}\nlayers: [0]\nplacement: " + placement + "\n" + events))) {
      r.plan.placement.check(8);
      const std::vector<int> of_rank = slots(r.plan.placement);
      if (r.batch == 2 || r.batch == 3) EXPECT_EQ(of_rank[3], 0);
      if (r.batch == 3) EXPECT_EQ(of_rank[0] + of_rank[5], 0);
      EXPECT_EQ(r.plan.routing.tokens(), 8 * 64);
    }
    ++placed;
  }
  EXPECT_GE(placed, 20);
  for (const std::string& name : builtin_replica_rules().names())
    EXPECT_NO_THROW(play(experiment(kTwoNodes + "batches: 5\nfit: '0:1'\nplacement: {eplb: {slots: 16}}\nreplica: " + name + "\n" + events))) << name;
  for (const std::string& name : builtin_exchanges().names())
    if (name != "one_sided_nvlink")  // is for one node
      EXPECT_NO_THROW(play(experiment(kTwoNodes + "batches: 3\nplacement: {eplb: {slots: 16}}\nexchange: " + name + "\nevents: [{batch: 1, fail: '0-3'}]\n"))) << name;
}

TEST(Speeds, MakeKernelsLongerAndNothingElse) {
  const std::string one = "cluster: {single_switch: {ranks: 1, device: h800}}\nbatches: 3\n";
  const std::vector<LayerRun> runs = play(experiment(one + "speeds: [0.5]\nevents: [{batch: 1, slow: {rank: 0, speed: 1}}, {batch: 2, slow: {rank: 0, speed: 0.25}}]\n")), even = play(experiment(one));
  const auto computing = [](const LayerRun& r) {
    double s = 0;
    for (const Timeline::Slice& slice : r.timeline.slices)
      if (r.schedule.phases[static_cast<std::size_t>(slice.phase)].kind == Phase::Kind::kernel) s += (slice.end - slice.begin).seconds();
    return s;
  };
  EXPECT_NEAR(computing(runs[0]), 2 * computing(even[0]), 1e-10);
  EXPECT_EQ(runs[2].timeline.end, even[2].timeline.end);
  EXPECT_NEAR(computing(runs[4]), 4 * computing(even[4]), 1e-10);
  EXPECT_NEAR(runs[4].timeline.end.seconds() - computing(runs[4]), even[4].timeline.end.seconds() - computing(even[4]), 1e-10);
  EXPECT_LE(runs[4].lower_bound_s, runs[4].timeline.end.seconds());
  EXPECT_GT(runs[4].lower_bound_s, even[4].timeline.end.seconds());
}

TEST(Speeds, RepeatAndAreSeenByPlacementsThatUseThem) {
  Experiment e = experiment(kFive + "speeds: [1, 0.5]\nplacement: {vibe: {slots: 10}}\n");
  EXPECT_THAT(e.era(0).speeds, ElementsAre(1, 0.5, 1, 0.5, 1));
  const auto slow_copies = [](const Experiment& x) {
    const std::vector<std::int64_t> copies = play(x).front().plan.copies_of_rank();
    return copies[1] + copies[3];
  };
  EXPECT_LT(slow_copies(e), slow_copies(experiment(kFive + "placement: {vibe: {slots: 10}}\n")));
}

TEST(Speeds, AnEventOfSpeedAloneMovesNothing) {
  const std::vector<LayerRun> runs = play(experiment(kFive + "batches: 3\nfit: '0:1'\nevents: [{batch: 2, slow: {rank: 1, speed: 0.5}}]\n"));
  EXPECT_FALSE(runs[2].relocation.decided);
  EXPECT_EQ(runs[2].plan.placement.expert_of_slot, runs[0].plan.placement.expert_of_slot);
}

}  // namespace
}  // namespace epsim
