#include <numeric>
#include <set>

#include <gtest/gtest.h>

#include "tests/analysis/measured_case.h"

namespace epsim {
namespace {

using testing::MeasuredCase;

std::int64_t sum(const std::vector<std::int64_t>& v) { return std::accumulate(v.begin(), v.end(), std::int64_t{0}); }

// Token-level brute force of an exchange that sends every copy by itself (I2: rows per pair follow the exchange's own law; combine is dispatch transposed).
TEST(Measure, RankBytesOfDirectExchangeAreCountedTokenByToken) {
  for (std::uint64_t seed = 0; seed < 30; ++seed) {
    const MeasuredCase c(seed, "{direct: {dedup: none}}");
    const Plan& plan = c.run.plan;
    const LayerMetrics m = c.metrics();
    const int ranks = plan.ranks();
    Matrix<std::int64_t> rows(ranks, ranks);
    for (Rank home : ids<Rank>(ranks))
      for (std::int64_t t = plan.routing.first_token[home]; t < plan.routing.first_token[home + 1]; ++t)
        for (int i = 0; i < plan.routing.top_k; ++i)
          if (const std::int32_t slot = plan.slot[static_cast<std::size_t>(t * plan.routing.top_k + i)]; slot >= 0)
            if (const Rank to = plan.placement.rank_of(Slot(slot)); to != home) ++rows(home, to);
    std::int64_t crossing = 0;
    for (Rank s : ids<Rank>(ranks))
      for (Rank d : ids<Rank>(ranks)) {
        ASSERT_EQ(m.dispatch_rank_bytes(s, d), rows(s, d) * c.experiment.pricing.dispatch_row()) << "seed " << seed;
        ASSERT_EQ(m.combine_rank_bytes(d, s), rows(s, d) * c.experiment.pricing.combine_row()) << "seed " << seed;
        if (c.experiment.topology.node_of(s) != c.experiment.topology.node_of(d)) crossing += m.dispatch_rank_bytes(s, d);
      }
    EXPECT_EQ(m.dispatch_bytes, sum(m.dispatch_rank_bytes.cells));
    EXPECT_EQ(m.dispatch_cross_node_bytes, crossing);
    EXPECT_EQ(sum(m.dispatch_node_bytes.cells), m.dispatch_bytes);
  }
}

// Link bytes are those of all hops of all pairs: what leaves a rank's own links is what it sends.
TEST(Measure, LinkBytesFollowThePaths) {
  for (std::uint64_t seed = 0; seed < 30; ++seed) {
    const MeasuredCase c(seed);
    const LayerMetrics m = c.metrics();
    const Topology& t = c.experiment.topology;
    std::vector<double> expected(t.links().size());
    for (Rank s : ids<Rank>(t.ranks()))
      for (Rank d : ids<Rank>(t.ranks())) t.for_each_link(s, d, [&](std::int32_t l) { expected[static_cast<std::size_t>(l)] += static_cast<double>(m.combine_rank_bytes(s, d)); });
    std::vector<double> leaving(static_cast<std::size_t>(t.ranks()));
    for (std::size_t l = 0; l < expected.size(); ++l) {
      EXPECT_EQ(m.links[l].combine_bytes, expected[l]) << "seed " << seed << ", " << t.links()[l].name;
      if (const Rank from = t.vertices()[static_cast<std::size_t>(t.links()[l].from)].rank; from.valid()) leaving[from] += m.links[l].dispatch_bytes;
    }
    for (Rank s : ids<Rank>(t.ranks())) EXPECT_EQ(leaving[s], static_cast<double>(sum({m.dispatch_rank_bytes.row(s).begin(), m.dispatch_rank_bytes.row(s).end()})));
  }
}

// I1: kept + dropped = choices made.
TEST(Measure, CountsAddUp) {
  for (std::uint64_t seed = 0; seed < 30; ++seed) {
    const MeasuredCase c(seed);
    const LayerMetrics m = c.metrics();
    const Plan& plan = c.run.plan;
    EXPECT_EQ(m.choices, m.tokens * plan.routing.top_k);
    EXPECT_EQ(m.copies + m.drops.choices, m.choices);
    EXPECT_EQ(sum(m.rank_copies), m.copies);
    EXPECT_EQ(sum(m.expert_choices), m.choices);
    std::int64_t tokens = 0, ranks = 0, nodes = 0;
    for (std::int64_t t = 0; t < m.tokens; ++t) {
      std::set<int> to_ranks, to_nodes;
      for (int i = 0; i < plan.routing.top_k; ++i)
        if (const std::int32_t slot = plan.slot[static_cast<std::size_t>(t * plan.routing.top_k + i)]; slot >= 0) {
          const Rank rank = plan.placement.rank_of(Slot(slot));
          to_ranks.insert(rank);
          to_nodes.insert(c.experiment.topology.node_of(rank));
        }
      tokens += !to_ranks.empty(), ranks += static_cast<std::int64_t>(to_ranks.size()), nodes += static_cast<std::int64_t>(to_nodes.size());
    }
    EXPECT_DOUBLE_EQ(m.distinct_ranks_per_token, tokens ? static_cast<double>(ranks) / static_cast<double>(tokens) : 0) << "seed " << seed;
    EXPECT_DOUBLE_EQ(m.distinct_nodes_per_token, tokens ? static_cast<double>(nodes) / static_cast<double>(tokens) : 0) << "seed " << seed;
  }
}

// Rows of the shared expert are counted apart from copies, where they are computed; a rank that a token visits for nothing else is a rank it goes to.
TEST(Measure, SharedRowsAreCountedWhereTheyAreComputed) {
  std::int64_t visits = 0;
  for (std::uint64_t seed = 0; seed < 30; ++seed) {
    const MeasuredCase own(seed), c(seed, "{direct: {dedup: rank}}", "fair", "waterfill: {min_tokens: 0}");
    const LayerMetrics m = c.metrics();
    const Plan& plan = c.run.plan;
    EXPECT_EQ(m.rank_copies, own.metrics().rank_copies);
    EXPECT_EQ(m.rank_load.max_over_mean, own.metrics().rank_load.max_over_mean);
    std::vector<std::int64_t> expected(m.rank_copies.size());
    std::int64_t away = 0, to = 0, rows = 0, tokens = 0;
    for (const Rank home : ids<Rank>(plan.ranks()))
      for (std::int64_t t = plan.routing.first_token[home]; t < plan.routing.first_token[home + 1]; ++t) {
        const Rank at = plan.shared_rank.empty() ? home : plan.shared_rank[static_cast<std::size_t>(t)];
        ++expected[static_cast<std::size_t>(at)], away += at != home;
        std::set<int> ranks;
        for (const Rank r : c.layer.destinations(home, t)) ranks.insert(r.value);
        tokens += !ranks.empty(), to += static_cast<std::int64_t>(ranks.size());
        rows += static_cast<std::int64_t>(ranks.size()) - ranks.contains(home.value);
      }
    EXPECT_EQ(m.rank_shared_rows, expected);
    EXPECT_EQ(m.shared_visits, away);
    EXPECT_DOUBLE_EQ(m.distinct_ranks_per_token, tokens ? static_cast<double>(to) / static_cast<double>(tokens) : 0);
    EXPECT_EQ(m.dispatch_bytes, rows * c.experiment.pricing.dispatch_row());
    EXPECT_EQ(m.combine_bytes, rows * c.experiment.pricing.combine_row());
    std::int64_t most = 0, all = 0;
    for (std::size_t r = 0; r < expected.size(); ++r) most = std::max(most, expected[r] + m.rank_copies[r]), all += expected[r] + m.rank_copies[r];
    EXPECT_DOUBLE_EQ(m.rank_rows_max_over_mean, all > 0 ? static_cast<double>(most * plan.ranks()) / static_cast<double>(all) : 1);
    EXPECT_LE(m.optimum.layer_s.value, m.layer_s);
    visits += away;
  }
  EXPECT_GT(visits, 50);
}

// Forwarded rows are bytes on every hop: on a ring as many as the distance (I2).
TEST(Measure, ForwardedBytesCountOnEveryHop) {
  for (std::uint64_t seed = 0; seed < 30; ++seed) {
    const MeasuredCase c(seed, "ring");
    const Plan& plan = c.run.plan;
    const int ranks = plan.ranks();
    std::int64_t there = 0, back = 0;
    for (const Rank home : ids<Rank>(ranks))
      for (const Slot s : ids<Slot>(plan.placement.slots())) {
        const int distance = (plan.placement.rank_of(s) - home + ranks) % ranks;
        there += plan.copies(home, s) * distance;
        back += plan.copies(home, s) * ((ranks - distance) % ranks);
      }
    const LayerMetrics m = c.metrics();
    EXPECT_EQ(m.dispatch_bytes, there * c.experiment.pricing.dispatch_row());
    EXPECT_EQ(m.combine_bytes, back * c.experiment.pricing.combine_row());
    for (const Rank s : ids<Rank>(ranks))
      for (const Rank d : ids<Rank>(ranks)) EXPECT_TRUE(d == (s + 1) % ranks || m.dispatch_rank_bytes(s, d) == 0) << "rows go to the next rank only";
    double carried = 0, paths = 0;  // over links, and over pairs times the links of their path
    for (const LinkLoad& l : m.links) carried += l.dispatch_bytes;
    for (const Rank s : ids<Rank>(ranks)) c.experiment.topology.for_each_link(s, Rank((s + 1) % ranks), [&](std::int32_t) { paths += static_cast<double>(m.dispatch_rank_bytes(s, (s + 1) % ranks)); });
    EXPECT_DOUBLE_EQ(carried, paths);
  }
}

// The stages add up to the layer; I6: nothing beats the bound.
TEST(Measure, StagesAddUpAndRespectTheBound) {
  for (std::uint64_t seed = 0; seed < 30; ++seed) {
    const LayerMetrics m = MeasuredCase(seed).metrics();
    EXPECT_NEAR(m.dispatch_s + m.compute_s + m.combine_s, m.layer_s, 1e-12 * (1 + m.layer_s));
    EXPECT_LE(m.lower_bound_s, m.layer_s * (1 + 1e-9));
    EXPECT_FALSE(m.bottleneck.empty());
  }
}

// With one row a copy, a rank is fullest either while its experts compute, with all that was dispatched to it, or at the end, with all results and sums.
TEST(Measure, BoundsCountTheSlotsThatAPolicyLeftEmpty) {
  const auto played = [](const std::string& placement) {
    const std::string yaml =
        "model: mixtral-8x7b\nlayers: [0]\ncluster: {single_switch: {ranks: 4, device: h800}}\nsource: {zipf: {tokens_per_rank: 8, exponent: 1}}\nnetwork: ideal\nexchange: direct\nplacement: " + placement + "\n";
    const Experiment e = read_experiment(std::make_shared<SourceText>(SourceText{"test.yaml", yaml}), {}, builtin_catalogs());
    std::pair<int, OptimumBounds> out;
    run(e, Timeline::Detail::rank, [&](LayerRun& layer) {
      out = {layer.plan.placement.slots(), measure(e, layer, cuts_of(e.topology, e.exchange)).optimum};
      return true;
    });
    return out;
  };
  const auto few = played("{epsim_opt: {slots: 8}}"), ours = played("{epsim_opt: {slots: 16}}"), full = played("{eplb: {slots: 16}}");
  EXPECT_LT(ours.first, 16) << "weights are read for each replica, and tokens are few";
  EXPECT_EQ(full.first, 16);
  EXPECT_EQ(ours.second.layer_s.value, full.second.layer_s.value);
  EXPECT_EQ(ours.second.load.value, full.second.load.value);
  EXPECT_LT(ours.second.load.value, few.second.load.value);
}

TEST(Measure, ChoicesThatFindNoExpertWithRoomAreDropped) {
  const auto measured = [](const std::string& router, const std::string& overflow) {
    const std::string yaml = "model: mixtral-8x7b\nlayers: [0]\ncluster: {single_switch: {ranks: 4, device: h800}}\nsource: {zipf: {tokens_per_rank: 32, exponent: 1}}\nnetwork: ideal\nexchange: direct\nrouter: " + router +
                             "\ncapacity: {megatron: {factor: 0.25, order: position, overflow: " + overflow + "}}\n";
    const Experiment e = read_experiment(std::make_shared<SourceText>(SourceText{"test.yaml", yaml}), {}, builtin_catalogs());
    LayerMetrics out;
    run(e, Timeline::Detail::rank, [&](LayerRun& layer) {
      out = measure(e, layer, cuts_of(e.topology, e.exchange));
      return true;
    });
    return out;
  };
  for (const char* overflow : {"next_best", "other_replica_or_next_best"}) {
    const LayerMetrics m = measured("topk", overflow);
    EXPECT_EQ(m.choices, 128 * 2) << overflow;
    EXPECT_EQ(m.copies, 4 * 8 * 2) << "all room is taken: 2 of each rank and expert";
    EXPECT_EQ(m.drops.choices, m.choices - m.copies);
  }
  const LayerMetrics few = measured("top_p", "next_best");
  EXPECT_EQ(few.drops.choices, 0) << "who knows how many it would have made";
  EXPECT_LT(few.choices, 128 * 2);
}

TEST(Measure, MemoryOfADirectExchangeIsItsRows) {
  for (std::uint64_t seed = 0; seed < 30; ++seed) {
    const MeasuredCase c(seed, "{direct: {dedup: none}}");
    const LayerMetrics m = c.metrics();
    const Plan& plan = c.run.plan;
    const Pricing& p = c.experiment.pricing;
    for (Rank r : ids<Rank>(plan.ranks())) {
      const int slots = plan.placement.first_slot[r + 1] - plan.placement.first_slot[r];
      EXPECT_DOUBLE_EQ(m.memory[r].weights_bytes, 2.0 * static_cast<double>(p.hidden) * 3 * static_cast<double>(slots * p.expert_ffn + p.shared_ffn));
      const auto rows = [&](std::int64_t n) { return static_cast<double>(n * 2 * p.hidden); };
      const std::int64_t tokens = plan.routing.first_token[r + 1] - plan.routing.first_token[r];
      double received = 0, returned = 0;
      for (Rank s : ids<Rank>(plan.ranks()))
        if (s != r) received += static_cast<double>(m.dispatch_rank_bytes(s, r)), returned += static_cast<double>(m.combine_rank_bytes(s, r));
      const double computed = rows(m.rank_copies[r] + (p.shared_ffn > 0 ? tokens : 0));
      EXPECT_DOUBLE_EQ(m.memory[r].activations_bytes, rows(tokens) + computed + std::max(received, returned + rows(tokens))) << "seed " << seed << " rank " << r;
    }
  }
}

TEST(Measure, ARunNamesItsSlowestLayerAndDropsMatrices) {
  RunMetrics run;
  LayerMetrics a, b, c;
  a.layer = 3, a.layer_s = 2, a.bottleneck = "a", a.dispatch_rank_bytes = {4, 4};
  b.layer = 4, b.layer_s = 5, b.bottleneck = "b";
  c.layer = 5, c.layer_s = 5, c.bottleneck = "c";
  run.add(a), run.add(b), run.add(c);
  EXPECT_EQ(run.total_s, 12);
  EXPECT_EQ(run.slowest_layer, 4);
  EXPECT_EQ(run.bottleneck, "b");
  EXPECT_TRUE(run.layers[0].dispatch_rank_bytes.cells.empty());
}

}  // namespace
}  // namespace epsim
