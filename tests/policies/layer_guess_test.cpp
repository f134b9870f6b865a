// The guess that epsim_opt searches with: rows of each exchange, and changes that are brought up to date and taken back.
#include <gtest/gtest.h>

#include <numeric>

#include "base/rng.h"
#include "policies/placement/shared/layer_guess.h"
#include "tests/support/machines.h"

namespace epsim {
namespace {

using Rows = LayerGuess::Rows;

constexpr double kNear = 3e-9, kFar = 1e-8;  // seconds of a row, both exchanges
constexpr double kSpread = 0.02;

/// Nodes of two ranks.
Topology machine(int nodes, const Pricing& pricing, double latency_s) {
  testing::MachineBuilder b;
  const auto row = static_cast<double>(pricing.dispatch_row() + pricing.combine_row());
  b.device.scale_up_bandwidth = {row / kNear, "test"}, b.device.nic_bandwidth = {row / kFar, "test"};
  for (int r = 0; r < 2 * nodes; ++r) b.rank(r / 2);
  const int hub = b.a_switch();
  for (int r = 0; r < 2 * nodes; ++r) b.cable(r, hub, 1e9, time_from_seconds(latency_s));
  return b.build();
}

struct Layer {
  explicit Layer(int nodes, int experts, double latency_s = 0) : topology(machine(nodes, priced(), latency_s)) {
    problem.experts = experts, problem.ranks = 2 * nodes, problem.nodes = nodes, problem.layers = {0};
    problem.counts.emplace_back(problem.ranks, experts), problem.tokens.emplace_back();
    problem.topology = &topology, problem.pricing = priced();
  }
  static Pricing priced() {
    Pricing p;
    p.hidden = 64;
    return p;
  }
  /// A batch of these choices, `top_k` a token, with as many tokens at home on each rank.
  void add(int top_k, std::vector<std::uint16_t> choices, std::vector<std::int64_t> first_token) {
    const auto routing = std::make_shared<Routing>();
    routing->experts = problem.experts, routing->top_k = top_k, routing->expert = std::move(choices), routing->first_token = std::move(first_token);
    routing->weight.assign(routing->expert.size(), 1.0F);
    problem.tokens[0].push_back(routing);
  }
  LayerGuess guess(Rows rows, std::vector<std::int32_t> first, std::vector<int> experts, LayerGuess::Batches of = LayerGuess::Batches::shown) const {
    LayerGuess g(problem, 0, std::move(first), rows, of);
    g.set(std::move(experts));
    return g;
  }
  Topology topology;
  Problem problem;
};

TEST(LayerGuess, CountsTheRowsOfEachExchange) {
  Layer layer(2, 4);
  layer.problem.expert_seconds = [](std::int64_t) { return 0.0; };
  layer.add(2, {2, 3}, {0, 1, 1, 1, 1});  // one token, at home on rank 0
  const auto seconds = [&](Rows rows, std::vector<int> experts) { return layer.guess(rows, {0, 2, 4, 6, 8}, std::move(experts)).seconds(); };
  constexpr int kNone = LayerGuess::kEmpty;
  const std::vector<int> apart = {0, kNone, 1, kNone, 2, kNone, 3, kNone}, together = {0, kNone, 1, kNone, kNone, kNone, 2, 3};
  const auto of_ports = [](double home, std::vector<double> serve) {
    double most = home, sum = 0, squares = 0;
    for (const double p : serve) most = std::max(most, p), sum += p, squares += p * p;
    return most + kSpread * squares / sum;
  };
  EXPECT_DOUBLE_EQ(seconds(Rows::copy, apart), of_ports(2 * kFar, {kFar, kFar}));
  EXPECT_DOUBLE_EQ(seconds(Rows::copy, together), of_ports(2 * kFar, {2 * kFar}));
  EXPECT_DOUBLE_EQ(seconds(Rows::rank, apart), of_ports(2 * kFar, {kFar, kFar}));
  EXPECT_DOUBLE_EQ(seconds(Rows::rank, together), of_ports(kFar, {kFar}));
  // By way of rank 2, which has the sender's place in its node.
  EXPECT_DOUBLE_EQ(seconds(Rows::node, apart), of_ports(kFar, {kFar, kFar + kNear, kNear}));
  EXPECT_DOUBLE_EQ(seconds(Rows::node, together), of_ports(kFar, {kFar, kFar + kNear, kNear}));
}

// Whoever waits for rows computes after them: the rank that computes longest is not the one that takes longest, where another waits for a row from afar. A rank's own rows leave before others compute them.
TEST(LayerGuess, RanksTakeInComputeAndGiveInTurn) {
  Layer layer(2, 4, 20e-9);
  layer.problem.expert_seconds = [](std::int64_t rows) { return 1e-9 * static_cast<double>(rows); };
  layer.add(1, {0, 0, 0, 0, 0, 0, 0, 0, 2}, {0, 9, 9, 9, 9});  // all at home on rank 0, where eight of them stay
  const LayerGuess guess = layer.guess(Rows::copy, {0, 1, 2, 3, 4}, {0, 1, 2, 3});
  constexpr double kWait = 80e-9;  // two cables there, two back
  const double home = kFar + 9e-9 / 4, serves = kWait + kFar + 1e-9;
  EXPECT_DOUBLE_EQ(guess.seconds(), std::max(home, serves) + kSpread * (serves * serves + 8e-9 * 8e-9) / (serves + 8e-9));
  EXPECT_EQ(guess.slowest_rank(), 0);
  EXPECT_EQ(guess.busiest_rank(), 2);
}

TEST(LayerGuess, AnExpertMayBeInABatchToComeOrNot) {
  Layer layer(1, 2);
  layer.problem.expert_seconds = [](std::int64_t) { return 1e-9; };  // reading weights, for however many rows
  layer.add(1, {0, 0, 0, 0, 0, 1}, {0, 5, 6});
  layer.add(1, {0, 1}, {0, 1, 2});
  const auto seconds = [&](LayerGuess::Batches of) { return layer.guess(Rows::copy, {0, 1, 2}, {0, 1}, of).seconds(); };
  EXPECT_DOUBLE_EQ(seconds(LayerGuess::Batches::shown), 1e-9 + kSpread * 1e-9);
  // Three copies in the mean: none in one batch of four; one: none in every other.
  constexpr double kHot = 0.75e-9, kCold = 0.5e-9;
  EXPECT_NEAR(seconds(LayerGuess::Batches::to_come), 0.5e-9 + 0.5 * kHot + kSpread * (kHot * kHot + kCold * kCold) / (kHot + kCold), 1e-15);
}

// Of many tokens some are looked at. Where each batch is the same, these must tell as much as one batch does.
TEST(LayerGuess, LooksAtAllHomesOfManyBatches) {
  constexpr int kNodes = 8, kRanks = 2 * kNodes;
  std::vector<std::int64_t> one_each(kRanks + 1);
  std::iota(one_each.begin(), one_each.end(), 0);
  std::vector<std::int32_t> first(kRanks + 1, 1);
  first[0] = 0;
  const auto seconds = [&](int batches) {
    Layer layer(kNodes, 1);
    layer.problem.expert_seconds = [](std::int64_t rows) { return 1e-9 * static_cast<double>(rows); };
    for (int b = 0; b < batches; ++b) layer.add(1, std::vector<std::uint16_t>(kRanks, 0), one_each);
    return layer.guess(Rows::copy, first, {0}).seconds();
  };
  EXPECT_NEAR(seconds(1024), seconds(1), 1e-15);
}

TEST(LayerGuess, LooksAtAllExpertsOfManyBatches) {
  const auto seconds = [](int batches) {
    Layer layer(2, 4);
    layer.problem.expert_seconds = [](std::int64_t rows) { return 1e-9 * static_cast<double>(rows); };
    for (int b = 0; b < batches; ++b) layer.add(1, {0, 1, 2, 3, 0, 1, 2, 3}, {0, 2, 4, 6, 8});
    return layer.guess(Rows::copy, {0, 1, 2, 3, 4}, {0, 1, 2, 3}).seconds();
  };
  EXPECT_NEAR(seconds(1024), seconds(1), 1e-15);
}

TEST(LayerGuess, IsAfterChangesWhatItIsAnewAndBeforeThemWhenTakenBack) {
  constexpr int kExperts = 12, kRanks = 6, kPlaces = 18, kTokens = 30, kTopK = 3;
  Rng rng(7, Stream::placement, 0, 0);
  Layer layer(kRanks / 2, kExperts);
  layer.problem.expert_seconds = [](std::int64_t rows) { return 1e-9 * static_cast<double>(rows * rows); };
  for (int b = 0; b < 3; ++b) {
    std::vector<std::uint16_t> choices;
    for (int i = 0; i < kTokens * kTopK; ++i) choices.push_back(static_cast<std::uint16_t>(rng.below(kExperts)));
    layer.add(kTopK, choices, {0, 5, 10, 15, 20, 25, kTokens});
  }
  const std::vector<std::int32_t> first = {0, 3, 6, 9, 12, 15, kPlaces};
  for (const Rows rows : {Rows::copy, Rows::rank, Rows::node}) {
    std::vector<int> experts(kPlaces, LayerGuess::kEmpty);
    for (int e = 0; e < kExperts; ++e) experts[static_cast<std::size_t>(e)] = e;
    LayerGuess guess = layer.guess(rows, first, experts);
    for (int i = 0; i < 200; ++i) {
      const std::vector<int> before = guess.experts();
      const double was = guess.seconds();
      const int a = static_cast<int>(rng.below(kPlaces)), b = static_cast<int>(rng.below(kPlaces)), expert = static_cast<int>(rng.below(kExperts));
      const int held = before[static_cast<std::size_t>(a)];
      if (i % 2 == 0)
        guess.swap(a, b);
      else if (held == LayerGuess::kEmpty || guess.copies(held) > 1)
        guess.put(a, rng.below(3) == 0 ? LayerGuess::kEmpty : expert);
      else
        continue;
      ASSERT_EQ(guess.seconds(), layer.guess(rows, first, guess.experts()).seconds()) << i;
      if (rng.below(2) == 0) continue;
      guess.undo();
      ASSERT_EQ(guess.experts(), before);
      ASSERT_EQ(guess.seconds(), was) << i;
    }
  }
}

}  // namespace
}  // namespace epsim
