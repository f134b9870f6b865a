// What exchanges of equal bytes take on one switch, where every algorithm has a formula: b bytes a pair, ports of rate B, a path of latency L.
#include <gtest/gtest.h>

#include <fmt/format.h>

#include "policies/bound.h"
#include "sim/engine.h"
#include "tests/support/machines.h"
#include "tests/support/network_rig.h"
#include "tests/support/part_from_yaml.h"
#include "tests/support/random_case.h"
#include "tests/support/schedules.h"

namespace epsim::testing {
namespace {

constexpr double kRate = 1e9, kBytes = 1000, kByteTime = kBytes / kRate, kLatency = 20e-9;

Timeline play(const std::string& exchange, const Topology& t, const Matrix<std::int64_t>& bytes, const std::string& network = "fair") {
  const Journey j = part_from_yaml(builtin_exchanges(), exchange, static_cast<const Shape*>(nullptr)).journey(t);
  return simulate(carry(j, bytes), t, network_named(network), nanoseconds(), Precision::bf16, Timeline::Detail::flow);
}

void expect_time(const std::string& exchange, int ranks, double seconds) {
  const Topology t = star(ranks, kRate, Time{10'000});
  Matrix<std::int64_t> bytes(ranks, ranks);
  for (std::int64_t& b : bytes.cells) b = static_cast<std::int64_t>(kBytes);
  for (const char* network : {"fair", "ideal"}) EXPECT_NEAR(play(exchange, t, bytes, network).end.seconds(), seconds, 1e-9 * seconds) << exchange << " of " << ranks << " on " << network;
}

TEST(ExchangeTime, OfEqualBytesOnOneSwitch) {
  for (const int ranks : {2, 3, 4, 7, 8}) {
    const int others = ranks - 1;
    expect_time("direct", ranks, others * kByteTime + kLatency);
    expect_time("low_latency", ranks, others * kByteTime + kLatency);
    expect_time("pairwise", ranks, others * (kByteTime + kLatency));
    expect_time("{spread_out: {window: 1}}", ranks, others * (kByteTime + kLatency));
    expect_time("{spread_out: {window: 100}}", ranks, others * kByteTime + kLatency);
    // Step i carries the blocks that go at least i further.
    double ring = 0;
    for (int i = 1; i < ranks; ++i) ring += (ranks - i) * kByteTime + kLatency;
    expect_time("ring", ranks, ring);
    // Round k carries the blocks whose distance has bit k.
    double bruck = 0;
    for (int k = 0; 1 << k < ranks; ++k) {
      int blocks = 0;
      for (int distance = 1; distance < ranks; ++distance) blocks += distance >> k & 1;
      bruck += blocks * kByteTime + kLatency;
    }
    expect_time("bruck", ranks, bruck);
  }
}

// Many ranks and small messages: Bruck's few rounds win; large ones: its detours lose.
TEST(ExchangeTime, BruckWinsOnlyWhereLatencyCounts) {
  const Topology t = star(16, kRate, Time{10'000'000});
  Matrix<std::int64_t> small(16, 16), large(16, 16);
  for (std::int64_t& b : small.cells) b = 10;
  for (std::int64_t& b : large.cells) b = 10'000'000;
  EXPECT_LT(play("bruck", t, small).end, play("pairwise", t, small).end);
  EXPECT_GT(play("bruck", t, large).end, play("pairwise", t, large).end);
}

TEST(ExchangeTime, AWindowLimitsMessagesUnderWay) {
  Rng rng(4, Stream::test);
  const Topology t = star(9, kRate, Time{10'000});
  Matrix<std::int64_t> bytes(9, 9);
  for (std::int64_t& b : bytes.cells) b = static_cast<std::int64_t>(rng.below(5000));
  for (const int window : {1, 2, 3, 8}) {
    const Timeline line = play(fmt::format("{{spread_out: {{window: {}}}}}", window), t, bytes);
    int most = 0;
    for (const auto& f : line.flows) {
      int together = 0;
      for (const auto& other : line.flows) together += other.source == f.source && other.begin <= f.begin && f.begin < other.end;
      most = std::max(most, together);
    }
    EXPECT_EQ(most, window);
  }
}

// Pairwise: a rank begins a round only when both messages of the one before have arrived, and then at once.
TEST(ExchangeTime, PairwiseRoundsWaitForBothDirections) {
  Rng rng(5, Stream::test);
  for (const int ranks : {6, 8}) {
    const Topology t = star(ranks, kRate, Time{10'000});
    Matrix<std::int64_t> bytes(ranks, ranks);
    for (std::int64_t& b : bytes.cells) b = 1 + static_cast<std::int64_t>(rng.below(5000));
    const Timeline line = play("pairwise", t, bytes);
    std::vector<std::vector<Time>> over(static_cast<std::size_t>(ranks), std::vector<Time>(static_cast<std::size_t>(ranks)));  // [round][rank]
    for (const auto& f : line.flows)
      for (const Rank r : {f.source, f.destination}) over[static_cast<std::size_t>(f.phase)][static_cast<std::size_t>(r)] = std::max(over[static_cast<std::size_t>(f.phase)][static_cast<std::size_t>(r)], f.end);
    for (const auto& f : line.flows)
      if (f.phase > 0) {
        EXPECT_EQ(f.begin, over[static_cast<std::size_t>(f.phase - 1)][static_cast<std::size_t>(f.source)]);
      }
  }
}

// Tokens in chunks: the gateway forwards a chunk while the next one crosses.
TEST(ExchangeTime, ChunksOverlapTheHops) {
  int overlapping = 0, cases = 0;
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    const RandomCase c(seed);
    const auto run = [&](const std::string& exchange) {
      const Schedule s = c.exchange(exchange).schedule(c.plan, c.topology, c.pricing());
      return std::pair(simulate(s, c.topology, network_named("fair"), nanoseconds(), Precision::bf16, Timeline::Detail::flow), s);
    };
    const Schedule one = run("hierarchical").second;
    const auto [cut, four] = run("{hierarchical: {chunks: 4}}");
    Time crossed;  // the end of the last chunk's crossing
    for (const auto& f : cut.flows)
      if (four.phases[static_cast<std::size_t>(f.phase)].name == "dispatch chunk 4") crossed = std::max(crossed, f.end);
    bool forwards = false, early = false;
    for (const auto& f : cut.flows)
      if (four.phases[static_cast<std::size_t>(f.phase)].name == "forward chunk 1") forwards = true, early = early || f.begin < crossed;
    cases += forwards, overlapping += early;
    std::int64_t rows = 0, cut_rows = 0;
    for (const Phase& p : one.phases)
      for (const auto& e : p.rows.all()) rows += e.rows;
    for (const Phase& p : four.phases)
      for (const auto& e : p.rows.all()) cut_rows += e.rows;
    EXPECT_EQ(rows, cut_rows);
  }
  EXPECT_GT(cases, 20);
  EXPECT_GT(overlapping, cases / 2);
}

// Two ranks send each other all their tokens, in chunks whose experts take longer than all messages together: only the first chunk's way there and the last one's way back are not hidden.
TEST(ExchangeTime, ExpertsComputeAChunkWhileOthersTravel) {
  const Topology t = star(2, kRate, Time{10'000});
  Pricing pricing;
  pricing.hidden = 8, pricing.expert_ffn = 16;
  const int tokens = 12;
  Routing routing;
  routing.experts = 2, routing.top_k = 1, routing.first_token = {0, tokens, 2 * tokens};
  for (int i = 0; i < 2 * tokens; ++i) routing.expert.push_back(i < tokens ? 1 : 0), routing.weight.push_back(1);
  const Plan plan = make_plan(0, routing, part_from_yaml(builtin_capacities(), "dropless", static_cast<const Shape*>(nullptr)), Placement::from_experts({0, 1}, {0, 1, 2}, 2),
                              part_from_yaml(builtin_replica_rules(), "round_robin", static_cast<const Shape*>(nullptr)), t);
  const double kernel = expert_call(pricing, Rank(0), Slot(0), tokens, 16).flops * 1e-9;
  const double out = tokens * static_cast<double>(pricing.dispatch_row()) / kRate, back = tokens * static_cast<double>(pricing.combine_row()) / kRate;
  for (const int chunks : {1, 2, 3, 4})
    for (const char* exchange : {"direct: {{chunks: {}}}", "pairwise: {{dedup: rank, chunks: {}}}", "low_latency: {{chunks: {}}}", "hierarchical: {{chunks: {}, chunk_experts: {}}}", "ring: {{chunks: {}, chunk_experts: {}}}",
                                 "allgather_reducescatter: {{algorithm: direct, chunks: {}}}", "allgather_reducescatter: {{algorithm: ring, chunks: {}, chunk_experts: {}}}"}) {
      std::string yaml = fmt::format(fmt::runtime(exchange), chunks, true);
      if (chunks == 1)
        if (const auto flag = yaml.find(", chunk_experts: true"); flag != std::string::npos) yaml.erase(flag, std::string(", chunk_experts: true").size());
      const Schedule s = part_from_yaml(builtin_exchanges(), yaml, static_cast<const Shape*>(nullptr)).schedule(plan, t, pricing);
      ComputeModel free_sums = nanoseconds();
      free_sums.reduce_seconds = [](const Device&, double) { return 0.0; };
      const Timeline line = simulate(s, t, network_named("ideal"), free_sums, Precision::bf16);
      ASSERT_GE(kernel / chunks, out + back + 2 * chunks * kLatency) << "the case is one where experts take longest";
      EXPECT_NEAR(line.end.seconds(), out / chunks + kLatency + kernel + back / chunks + kLatency, 1e-9) << yaml;
    }
}

// I6, for every exchange: no run beats the bound.
TEST(ExchangeTime, NeverBeatsTheBound) {
  for (std::uint64_t seed = 0; seed < 40; ++seed)
    for (std::size_t v = seed % 2; v < exchange_variants().size(); v += 2) {
      const std::string& text = exchange_variants()[v];
      const RandomCase c(seed);
      const Schedule s = c.exchange(text).schedule(c.plan, c.topology, c.pricing());
      const double least = lower_bound(s, c.topology, [](const KernelCall& k) { return k.flops * 1e-9; });
      for (const char* network : {"fair", "ideal"}) ASSERT_GE(simulate(s, c.topology, network_named(network), nanoseconds(), Precision::bf16).end.seconds(), least) << text << " on " << network << ", seed " << seed;
    }
}

}  // namespace
}  // namespace epsim::testing
