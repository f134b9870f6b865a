#include "policies/replica.h"

#include <gmock/gmock.h>

#include <numeric>

#include "policies/solve/min_max_split.h"
#include "tests/support/machines.h"
#include "tests/support/part_from_yaml.h"
#include "tests/support/placements.h"

namespace epsim {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::input_error;
using testing::part_from_yaml;
using testing::placement_of;

ReplicaRule rule_of(const std::string& yaml) { return part_from_yaml(builtin_replica_rules(), yaml, static_cast<const Shape*>(nullptr)); }

/// One layer under a rule. Every copy of (source, expert) is its own token's, in token order.
struct Dealt {
  Placement placement;
  Matrix<std::int64_t> kept;
  Topology topology;

  /// [kept] replica numbers of the copies of an expert from a source.
  std::vector<std::uint16_t> deal(const std::string& yaml, int source, int expert, int top_k = 1, std::uint64_t seed = 0, std::int64_t first_token = 0) const {
    const ReplicaRule rule = rule_of(yaml);
    std::vector<std::uint32_t> choice(static_cast<std::size_t>(kept(source, expert)));
    for (std::size_t i = 0; i < choice.size(); ++i) choice[i] = static_cast<std::uint32_t>(i) * static_cast<std::uint32_t>(top_k);
    std::vector<std::uint16_t> out(choice.size(), 0xffff);
    const std::span<const std::uint32_t> seen = rule.by_choice ? std::span<const std::uint32_t>(choice) : std::span<const std::uint32_t>();
    rule.decide({0, top_k, kept, placement, topology, seed, first_token})({Rank(source), Expert(expert), placement.slots_of_expert[static_cast<std::size_t>(expert)], seen}, out);
    return out;
  }
  /// [c] how many copies of an expert go from a source to each replica; from all sources where source is -1.
  std::vector<std::int64_t> parts(const std::string& yaml, int source, int expert) const {
    std::vector<std::int64_t> out(placement.slots_of_expert[static_cast<std::size_t>(expert)].size());
    for (int s = 0; s < kept.rows; ++s)
      if (source < 0 || s == source)
        for (const std::uint16_t j : deal(yaml, s, expert)) ++out.at(j);
    return out;
  }
};

Matrix<std::int64_t> matrix(std::int64_t columns, std::vector<std::int64_t> cells) {
  Matrix<std::int64_t> m(static_cast<std::int64_t>(cells.size()) / columns, columns);
  m.cells = std::move(cells);
  return m;
}

/// One expert with a replica on each of `replicas` ranks, `copies` from each of `sources`.
Dealt one_expert(int sources, int replicas, std::int64_t copies) {
  std::vector<std::vector<int>> on(static_cast<std::size_t>(std::max(sources, replicas)));
  for (int r = 0; r < replicas; ++r) on[static_cast<std::size_t>(r)] = {0};
  return {placement_of(on, 1), matrix(1, std::vector<std::int64_t>(on.size(), copies)), {}};
}

TEST(ReplicaRoundRobin, DealsCopiesInTurnFromTheSourcesOwnStart) {
  EXPECT_THAT(one_expert(2, 3, 7).deal("round_robin", 0, 0), ElementsAre(0, 1, 2, 0, 1, 2, 0));
  EXPECT_THAT(one_expert(2, 3, 4).deal("round_robin", 1, 0), ElementsAre(1, 2, 0, 1));
  EXPECT_THAT(one_expert(9, 3, 2).deal("round_robin", 8, 0), ElementsAre(2, 0));
}

TEST(ReplicaKnuthHash, GivesTheKnownVector) {
  EXPECT_THAT(one_expert(1, 3, 12).deal("knuth_hash", 0, 0), ElementsAre(0, 0, 2, 2, 1, 0, 0, 2, 2, 1, 0, 0));
  EXPECT_THAT(one_expert(1, 3, 12).deal("knuth_hash", 0, 0, 8), ElementsAre(0, 0, 2, 2, 1, 0, 0, 2, 2, 1, 0, 0)) << "by token, not by choice";
  EXPECT_THAT(one_expert(1, 4, 6).deal("knuth_hash", 0, 0), ElementsAre(0, 1, 2, 3, 0, 1)) << "token mod c where c is 2 or 4";
}

TEST(ReplicaBlockRoundRobin, BeginsAnewInEveryBlock) {
  const Dealt d = one_expert(3, 3, 8);
  EXPECT_THAT(d.deal("block_round_robin", 2, 0), ElementsAre(0, 1, 2, 0, 1, 2, 0, 1));
  EXPECT_THAT(d.deal("block_round_robin: {block: 4}", 2, 0), ElementsAre(0, 1, 2, 0, 1, 2, 0, 1)) << "block 1 begins at 1";
  EXPECT_THAT(d.deal("block_round_robin: {block: 2}", 2, 0), ElementsAre(0, 1, 1, 2, 2, 0, 0, 1));
  EXPECT_THAT(d.deal("block_round_robin: {block: 2, offset_by_rank: true}", 2, 0), ElementsAre(2, 0, 0, 1, 1, 2, 2, 0));
  EXPECT_THAT(d.deal("block_round_robin: {block: 8}", 2, 0, 4), ElementsAre(0, 1, 1, 2, 2, 0, 0, 1)) << "a block holds choices, two tokens of four here";
}

// Two nodes of two ranks; expert 0 on ranks 0 and 1, 1 on 0 and 2, 2 on 2 and 3.
Dealt two_nodes(std::int64_t copies) {
  return {placement_of({{0, 1}, {0}, {1, 2}, {2}}, 3), matrix(3, std::vector<std::int64_t>(12, copies)), testing::tree(2, 2, 1e9, 1e9)};
}

TEST(ReplicaNodeEven, StaysInTheNodeWhereItCan) {
  const Dealt d = two_nodes(6);
  EXPECT_THAT(d.parts("node_even", 0, 1), ElementsAre(6, 0));
  EXPECT_THAT(d.parts("node_even", 1, 1), ElementsAre(6, 0));
  EXPECT_THAT(d.parts("node_even", 3, 1), ElementsAre(0, 6));
  EXPECT_THAT(d.parts("node_even", 0, 0), ElementsAre(3, 3)) << "its own rank is no nearer than the node";
  EXPECT_THAT(d.parts("node_even", 2, 0), ElementsAre(3, 3)) << "none in the node";
}

TEST(ReplicaNearest, OwnRankThenNodeThenAllFairly) {
  const Dealt d = two_nodes(6);
  EXPECT_THAT(d.parts("nearest", 0, 1), ElementsAre(6, 0));
  EXPECT_THAT(d.parts("nearest", 1, 1), ElementsAre(6, 0)) << "the node's";
  EXPECT_THAT(d.parts("nearest", 3, 1), ElementsAre(0, 6));
  EXPECT_THAT(d.parts("nearest", 1, 0), ElementsAre(0, 6)) << "its own";
  const std::vector<std::int64_t> two = d.parts("nearest", 2, 0), three = d.parts("nearest", 3, 0);
  EXPECT_THAT(two, ::testing::UnorderedElementsAre(0, 6));
  EXPECT_EQ(two[0], three[1]) << "two ranks, two replicas: fair is one each";
}

TEST(ReplicaNearest, TheFirstOfANodeDrawsAllUnlessAskedToBeFair) {
  // A node of eight ranks, replicas on two of them, a third one elsewhere.
  Dealt d{placement_of({{0}, {0}, {}, {}, {}, {}, {}, {}, {0}, {}, {}, {}, {}, {}, {}, {}}, 1), matrix(1, std::vector<std::int64_t>(16, 1)), testing::tree(2, 8, 1e9, 1e9)};
  const auto from_first_node = [&](const std::string& yaml) {
    std::vector<std::int64_t> sum(3);
    for (int s = 0; s < 8; ++s) ++sum.at(d.deal(yaml, s, 0).at(0));
    return sum;
  };
  EXPECT_THAT(from_first_node("nearest"), ElementsAre(7, 1, 0));
  EXPECT_THAT(from_first_node("nearest: {in_node: fair}"), ElementsAre(4, 4, 0));
}

TEST(ReplicaNearest, AllInOneNodeIsNoNearerAndSoFair) {
  const Dealt d = one_expert(14, 3, 1);
  EXPECT_THAT(d.parts("nearest", -1, 0), ::testing::UnorderedElementsAre(4, 5, 5)) << "three keep their own, eleven are dealt 4, 4, 3";
  EXPECT_NE(d.deal("nearest: {seed: 1}", 5, 0).at(0) + 3 * d.deal("nearest: {seed: 1}", 6, 0).at(0) + 9 * d.deal("nearest: {seed: 1}", 7, 0).at(0) + 27 * d.deal("nearest: {seed: 1}", 8, 0).at(0),
            d.deal("nearest", 5, 0).at(0) + 3 * d.deal("nearest", 6, 0).at(0) + 9 * d.deal("nearest", 7, 0).at(0) + 27 * d.deal("nearest", 8, 0).at(0))
      << "the seed decides (these two differ)";
}

TEST(ReplicaRandom, IsUniformAndOfItsSeed) {
  const Dealt d = one_expert(1, 5, 100'000);
  for (const std::int64_t n : d.parts("random", 0, 0)) EXPECT_NEAR(n, 20'000, 5 * 127) << "five standard deviations of a binomial";
  EXPECT_EQ(d.deal("random", 0, 0), d.deal("random: {seed: 0}", 0, 0));
  EXPECT_NE(d.deal("random", 0, 0), d.deal("random: {seed: 1}", 0, 0));
}

TEST(ReplicaRules, DrawAnewForEachBatchAndSeedOfTheExperiment) {
  const Dealt d = one_expert(2, 2, 1'000);
  for (const char* rule : {"random", "lp: {deal: random}"}) {
    const auto drawn = d.deal(rule, 0, 0);
    EXPECT_EQ(drawn, d.deal(rule, 0, 0)) << rule;
    EXPECT_NE(drawn, d.deal(rule, 0, 0, 1, 1)) << rule;
    EXPECT_NE(drawn, d.deal(rule, 0, 0, 1, 0, 2'000)) << rule;
  }
  EXPECT_EQ(d.deal("nearest", 0, 0), d.deal("nearest", 0, 0, 1, 1, 2'000)) << "drawn once, for all batches";
}

TEST(ReplicaQuota, LowersTheFullestRankAsFarAsCanBe) {
  // Expert 0 (12 copies) on ranks 0 and 1, expert 1 (4 copies) on rank 0: 8 each.
  const Dealt d{placement_of({{0, 1}, {0}}, 2), matrix(2, {12, 0, 0, 4}), {}};
  EXPECT_THAT(d.parts("quota", -1, 0), ElementsAre(4, 8));
  for (const char* rule : {"quota: {locality: none}", "hashed_share", "lp", "quota: {split: batch}"}) EXPECT_THAT(d.parts(rule, -1, 0), ElementsAre(4, 8)) << rule;
}

TEST(ReplicaQuota, FollowsThePlacementsSharesByLargestRemainder) {
  Dealt d{placement_of({{0, 1}, {0}, {0}}, 2), matrix(2, {11, 0, 0, 4, 0, 0}), {}};
  d.placement.share = {0.25, 1, 0.35, 0.4};  // 2.75, 3.85, 4.4 of 11
  EXPECT_THAT(d.parts("quota", -1, 0), ElementsAre(3, 4, 4));
  EXPECT_THAT(d.parts("hashed_share", -1, 0), ElementsAre(3, 4, 4));
  EXPECT_THAT(d.parts("quota: {split: batch}", -1, 0), ElementsAre(1, 5, 5)) << "rank 0 has 4 of expert 1, so 5, 5 and 5";
}

TEST(ReplicaQuota, ServesItsOwnCopiesFirstAndSpreadsTheRest) {
  Dealt d{placement_of({{0}, {0}, {}, {}}, 1), matrix(1, {8, 2, 6, 4}), testing::tree(2, 2, 1e9, 1e9)};
  d.placement.share = {0.5, 0.5};
  // Quotas 10 and 10; own 8 and 2; 2 and 8 are left for the 6 and 4: source 2 has 1.2 and 4.8 of them.
  EXPECT_THAT(d.parts("quota", 0, 0), ElementsAre(8, 0));
  EXPECT_THAT(d.parts("quota", 1, 0), ElementsAre(0, 2));
  EXPECT_THAT(d.parts("quota", 2, 0), ElementsAre(1, 5));
  EXPECT_THAT(d.parts("quota", 3, 0), ElementsAre(1, 3));
  // Without locality source 0 has 4 and 4, 1 one and one, and so on.
  EXPECT_THAT(d.parts("quota: {locality: none}", 0, 0), ElementsAre(4, 4));
  EXPECT_THAT(d.parts("quota: {locality: none}", 1, 0), ElementsAre(1, 1));
  EXPECT_THAT(d.deal("quota: {locality: none}", 0, 0), ElementsAre(0, 0, 0, 0, 1, 1, 1, 1)) << "replicas by prefix";
}

TEST(ReplicaQuota, CanPreferTheNode) {
  // Nodes {0, 1} and {2, 3}; replicas on 0 and 2.
  Dealt d{placement_of({{0}, {}, {0}, {}}, 1), matrix(1, {2, 4, 2, 4}), testing::tree(2, 2, 1e9, 1e9)};
  d.placement.share = {0.5, 0.5};
  EXPECT_THAT(d.parts("quota: {locality: node}", 1, 0), ElementsAre(4, 0));
  EXPECT_THAT(d.parts("quota: {locality: node}", 3, 0), ElementsAre(0, 4));
  EXPECT_THAT(d.parts("quota", 1, 0), ElementsAre(2, 2));
}

TEST(ReplicaHashedShare, IsLplbsHashOverAllCopiesOfTheExpert) {
  Dealt d{placement_of({{0}, {0}}, 1), matrix(1, {6, 4}), {}};
  d.placement.share = {0.7, 0.3};
  // n = 0 .. 9: (499 n + 41) mod 10 = 1 0 9 8 7 6 5 4 3 2; the first replica keeps those below 7.
  EXPECT_THAT(d.deal("hashed_share", 0, 0), ElementsAre(0, 0, 1, 1, 1, 0));
  EXPECT_THAT(d.deal("hashed_share", 1, 0), ElementsAre(0, 0, 0, 0));
}

TEST(ReplicaLp, DealsExactlyOrAtRandom) {
  const Dealt d{placement_of({{0, 1}, {0}}, 2), matrix(2, {90'000, 0, 0, 30'000}), {}};
  EXPECT_THAT(d.parts("lp", -1, 0), ElementsAre(30'000, 60'000));
  const std::vector<std::int64_t> drawn = d.parts("lp: {deal: random}", -1, 0);
  EXPECT_NEAR(drawn[0], 30'000, 5 * 142) << "five standard deviations";
  EXPECT_NE(d.deal("lp: {deal: random}", 0, 0), d.deal("lp: {deal: random, seed: 5}", 0, 0));
  EXPECT_THAT(input_error([] { rule_of("lp: {seed: 5}"); }), HasSubstr("`seed` has no use in `deal: exact`"));
}

TEST(ReplicaLplb, ComesNearTheOptimumOfTheProgram) {
  // LPLB's cube: eight ranks, each with two originals and duplicates of rank r2o[0][r]'s first and r2o[1][r]'s second.
  const int r2o[2][8] = {{3, 0, 1, 2, 7, 4, 5, 6}, {6, 7, 4, 5, 0, 1, 2, 3}};
  std::vector<std::vector<int>> on(8);
  for (int r = 0; r < 8; ++r) on[static_cast<std::size_t>(r)] = {2 * r, 2 * r + 1, 2 * r2o[0][r], 2 * r2o[1][r] + 1};
  const auto most = [&](std::uint64_t seed, const std::string& rule, double* best = nullptr, double* even = nullptr) {
    Rng rng(seed, Stream::test, 5);
    Dealt d{placement_of(on, 16), Matrix<std::int64_t>(8, 16), {}};
    std::vector<std::int64_t> load(16);
    for (std::int64_t r = 0; r < 8; ++r)
      for (std::int64_t e = 0; e < 16; ++e) load[static_cast<std::size_t>(e)] += d.kept(r, e) = static_cast<std::int64_t>(rng.below(1 + 1000 / static_cast<std::uint64_t>(e + 1)));
    std::vector<std::vector<int>> places(16);
    std::vector<double> mine(8), evenly(8);
    for (std::size_t e = 0; e < 16; ++e) {
      const std::vector<std::int64_t> parts = d.parts(rule, -1, static_cast<int>(e));
      for (std::size_t j = 0; j < parts.size(); ++j) {
        const auto r = static_cast<std::size_t>(d.placement.rank_of(d.placement.slots_of_expert[e][j]));
        places[e].push_back(static_cast<int>(r));
        mine[r] += static_cast<double>(parts[j]);
        evenly[r] += static_cast<double>(load[e]) / static_cast<double>(parts.size());
      }
    }
    if (best) *best = static_cast<double>(min_max_split(load, places, 8).fullest), *even = *std::ranges::max_element(evenly);
    return *std::ranges::max_element(mine);
  };
  int near = 0, nearer = 0;
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    double best = 0, even = 0;
    const double mine = most(seed, "lplb", &best, &even);
    EXPECT_LE(mine, even + 16) << "never worse than even but for rounding";
    EXPECT_GE(mine, best);
    near += mine < best * 1.1;
    nearer += most(seed, "lplb: {steps: 12}") < best * 1.01;
  }
  EXPECT_GE(near, 45) << "five steps come within a tenth nearly always";
  EXPECT_EQ(nearer, 50) << "and seven more to it";
}

TEST(ReplicaLplb, FallsBackToEvenWhereItsStepsDoNotSuffice) {
  const Dealt d{placement_of({{0, 1}, {0}}, 2), matrix(2, {90, 0, 0, 30}), {}};
  EXPECT_THAT(d.parts("lplb: {steps: 1}", -1, 0), ElementsAre(45, 45));
  EXPECT_THAT(d.parts("lplb: {steps: 40}", -1, 0), ElementsAre(30, 60));
  const Dealt none{placement_of({{0, 1}, {0}}, 2), matrix(2, {0, 0, 0, 0}), {}};
  EXPECT_THAT(none.parts("lplb", -1, 0), Each(0));
}

TEST(ReplicaRules, AllSayWhatTheyAreWhenListed) {
  const ReplicaCatalog catalog = builtin_replica_rules();
  for (const ReplicaCatalog::Entry& entry : catalog.entries()) {
    Params listing;
    EXPECT_FALSE(entry.make(listing, nullptr).summary.empty()) << entry.name;
  }
}

}  // namespace
}  // namespace epsim
