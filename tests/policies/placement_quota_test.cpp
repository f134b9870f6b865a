// Policies that plan, with the placement, how much of an expert's load each replica takes: fastermoe_shadowing, harmoeny, llep, ultraep.
#include <gmock/gmock.h>

#include <algorithm>
#include <functional>
#include <numeric>

#include "base/rng.h"
#include "tests/support/placed.h"

namespace epsim {
namespace {

using ::testing::DoubleEq;
using ::testing::DoubleNear;
using ::testing::ElementsAre;
using testing::experts_of_ranks;
using ::testing::HasSubstr;
using testing::input_error;
using testing::loads_of_ranks;
using testing::placed;
using ::testing::Pointwise;
using testing::problem_of_loads;

using Loads = std::vector<std::int64_t>;
using Experts = std::vector<std::vector<int>>;

double largest(const std::vector<double>& loads) { return std::ranges::max(loads); }

Loads random_loads(std::uint64_t seed, std::size_t experts, std::uint64_t below) {
  Rng rng(seed, Stream::test);
  Loads loads;
  for (std::size_t e = 0; e < experts; ++e) loads.push_back(static_cast<std::int64_t>(rng.below(below)));
  return loads;
}

// With time 1 for a token's compute and nothing for its way: 2 matrices of 1 x 1 values take 4 FLOP a token, and 8 bytes.
const std::string kShadow = "fastermoe_shadowing: {d_model: 1, alpha: 1, flops: 4, bandwidth: ";

TEST(FasterMoeShadowing, ShadowsWhileTheModelledTimeFalls) {
  // Busiest costs 3 a token; bandwidth 0.08 B/s makes a token's way 4 / 0.08 = 50 s and a model 8 / 0.08 = 100 s: 203 a token, 100 a shadow.
  // 10 tokens: 2030; without expert 2: 1015 + 100; without 0: 203 + 200; without 1 as well: 203 + 300 is more.
  const Loads loads = {5, 1, 10, 1};
  const Placement p = placed(kShadow + "0.08B/s}", problem_of_loads({loads}, 2))[0];
  EXPECT_EQ(experts_of_ranks(p), (Experts{{0, 1, 2}, {2, 3, 0}}));
  EXPECT_THAT(p.slots_of_expert[2], ElementsAre(Slot(3), Slot(2))) << "the home is the first replica";
}

TEST(FasterMoeShadowing, StopsAtTheFirstShadowThatDoesNotPay) {
  // A token costs 3 + 4 x 4 / 16 = 4, a model 8 / 16 = 0.5: the first shadow saves 0, though two would save 4 x 10 for 1.
  const Placement p = placed(kShadow + "16B/s}", problem_of_loads({{10, 10, 0, 0}}, 2))[0];
  EXPECT_EQ(p.slots(), 4);
}

TEST(FasterMoeShadowing, LeavesTokensOfAShadowWhereTheyAre) {
  Problem problem = problem_of_loads({{0, 0}}, 2);
  problem.counts[0] = Matrix<std::int64_t>(2, 2);
  problem.counts[0].cells = {30, 0, 10, 1};
  const Placement p = placed(kShadow + "0.8B/s}", problem)[0];
  EXPECT_EQ(experts_of_ranks(p), (Experts{{0}, {1, 0}}));
  EXPECT_THAT(p.share, ElementsAre(0.75, 1, 0.25));
}

TEST(FasterMoeShadowing, TakesTheModelsSizes) {
  // The default 2048 x 4096 x 2 matrices x 4 bytes at 6.25 GB/s take 10.7 ms; 1,000 tokens take 3 x 2.92 ms + 4 x 1.31 ms = 14.0 ms.
  Problem problem = problem_of_loads({{1000, 0}}, 2);
  EXPECT_EQ(placed("fastermoe_shadowing", problem)[0].slots(), 3);
  problem.pricing.hidden = 2048, problem.pricing.expert_ffn = 8 * 2048, problem.pricing.expert_matrices = 2;
  problem.pricing.weights = problem.pricing.dispatch = Precision::fp32;
  // Eight times the width, or four times alpha: 42.9 ms of model, and 3 x 11.7 ms + 4 x 1.31 ms = 40.3 ms of tokens.
  EXPECT_EQ(placed("fastermoe_shadowing", problem)[0].slots(), 2);
  EXPECT_EQ(placed("fastermoe_shadowing: {alpha: 2}", problem)[0].slots(), 3) << "a setting goes before the model";
}

TEST(Llep, KeepsPlainExpertParallelismBelowTheRatio) {
  EXPECT_EQ(placed("llep: {min_tokens_per_gemm: 1}", problem_of_loads({{129, 100, 100, 71}}, 4))[0].slots(), 4);
  EXPECT_EQ(placed("llep: {min_tokens_per_gemm: 1}", problem_of_loads({{130, 100, 100, 70}}, 4))[0].slots(), 5) << "1.3 itself is above";
  EXPECT_EQ(placed("llep", problem_of_loads({{0, 0, 0}}, 2))[0].slots(), 3);
  EXPECT_EQ(placed("llep", problem_of_loads({{50, 1, 3}}, 1))[0].slots(), 3);
}

TEST(Llep, SpillsWhatIsAboveTheCapToTheLeastLoaded) {
  // Mean 100, cap 110. Expert 0 keeps 110 of 250; rank 3 (10) has room for 100, rank 2 (60) for the last 40.
  const Loads loads = {250, 80, 60, 10};
  const Placement p = placed("llep: {min_tokens_per_gemm: 1}", problem_of_loads({loads}, 4))[0];
  EXPECT_EQ(experts_of_ranks(p), (Experts{{0}, {1}, {2, 0}, {3, 0}}));
  EXPECT_THAT(loads_of_ranks(p, loads), Pointwise(DoubleEq(), {110.0, 80.0, 100.0, 110.0}));
}

TEST(Llep, GivesNoSmallChunksUnlessTheyFinishTheExpert) {
  // As above: 40 finish the expert, so a least chunk of 60 does not stop them. One of 110 stops all helpers, and rank 3, the least loaded, gets all 140; its
  // own 10 tokens then go to rank 2.
  const Loads loads = {250, 80, 60, 10};
  EXPECT_THAT(loads_of_ranks(placed("llep: {min_tokens_per_gemm: 60}", problem_of_loads({loads}, 4))[0], loads),
              Pointwise(DoubleEq(), {110.0, 80.0, 100.0, 110.0}));
  EXPECT_THAT(loads_of_ranks(placed("llep: {min_tokens_per_gemm: 110}", problem_of_loads({loads}, 4))[0], loads),
              Pointwise(DoubleEq(), {110.0, 80.0, 70.0, 140.0}));
}

TEST(Llep, CountsExpertsThatWaitForTheirTurnAgainstTheirOwner) {
  // Rank 0 owns 100 and 90, cap 100 (factor 1, mean 100): the heavier keeps what the lighter leaves, 10; the lighter then stays whole.
  const Loads loads = {100, 90, 5, 5};
  const Placement p = placed("llep: {min_tokens_per_gemm: 1, max_tokens_factor: 1}", problem_of_loads({loads}, 2))[0];
  EXPECT_THAT(p.share, ElementsAre(DoubleEq(0.1), 1, 1, 1, DoubleEq(0.9)));
  EXPECT_EQ(experts_of_ranks(p), (Experts{{0, 1}, {2, 3, 0}}));
}

TEST(Llep, TakesTheCapInWholeNumbers) {
  // floor(x 11/10) of a mean of 10 is 11 exactly; in binary 1.1 x 10 may be 11.000000000000002 or not. 1.1 x 30 = 33.00000000000000x.
  const Loads loads = {60, 0};
  EXPECT_THAT(loads_of_ranks(placed("llep: {min_tokens_per_gemm: 1}", problem_of_loads({loads}, 2))[0], loads), Pointwise(DoubleEq(), {33.0, 27.0}));
}

TEST(HarMoEny, MovesTheLargestExpertToTheLightestRankUntilBothAreAtTheMean) {
  // Ranks have 220, 90 and 10, floor(320 / 3) = 106 in the mean: rank 2 takes 96 of expert 0; rank 0 is left with 124 and rank 1 takes 16.
  const Loads loads = {200, 20, 60, 30, 5, 5};
  const Placement p = placed("harmoeny: {eq_tokens: 1}", problem_of_loads({loads}, 3))[0];
  EXPECT_THAT(loads_of_ranks(p, loads), Pointwise(DoubleEq(), {108.0, 106.0, 106.0}));
  EXPECT_EQ(experts_of_ranks(p), (Experts{{0, 1}, {2, 3, 0}, {4, 5, 0}}));
}

TEST(HarMoEny, StopsWhereAMoveIsNotWorthIt) {
  const Loads loads = {200, 20, 60, 30, 5, 5};
  // Rank 1 lacks 16 to the mean of 106.
  EXPECT_EQ(placed("harmoeny: {eq_tokens: 17}", problem_of_loads({loads}, 3))[0].slots(), 7);
  EXPECT_EQ(placed("harmoeny: {eq_tokens: 16}", problem_of_loads({loads}, 3))[0].slots(), 8);
  // 3 experts of 40 on rank 0: the largest has fewer than 41.
  EXPECT_EQ(placed("harmoeny: {eq_tokens: 41}", problem_of_loads({{40, 40, 40, 0, 0, 0}}, 2))[0].slots(), 6);
  EXPECT_EQ(placed("harmoeny: {eq_tokens: 40}", problem_of_loads({{40, 40, 40, 0, 0, 0}}, 2))[0].slots(), 7);
}

TEST(HarMoEny, MovesWholeSendersLargestFirst) {
  // Mean 60 of 240 on 4 ranks; rank 0 has 90 and rank 3 has 10. Source 1 sends 40 of expert 0 and goes over whole (room 50): rank 0 is at 50, below the mean,
  // and the move ends.
  Problem problem = problem_of_loads({{0, 0, 0, 0}}, 4);
  problem.counts[0] = Matrix<std::int64_t>(4, 4);
  problem.counts[0].cells = {30, 70, 70, 10, 40, 0, 0, 0, 20, 0, 0, 0, 0, 0, 0, 0};
  const Loads loads = problem.loads(0);
  EXPECT_THAT(loads_of_ranks(placed("harmoeny: {eq_tokens: 11}", problem)[0], loads), Pointwise(DoubleEq(), {50.0, 70.0, 70.0, 50.0}));
}

// tau: what the largest load is after planning.
std::int64_t tau(const Loads& loads, int ranks, const std::string& settings) {
  return std::llround(largest(loads_of_ranks(placed("ultraep: {" + settings + "}", problem_of_loads({loads}, ranks))[0], loads)));
}

TEST(UltraEp, MovesTheExcessToTheRankWithMostSlack) {
  // Mean 100: rank 0 has 220, ranks 1 to 3 have 20, 70, 90: slacks 80, 30, 10, which expert 0 fills with one slot on each.
  const Loads loads = {220, 20, 70, 90};
  const Placement p = placed("ultraep: {min_tokens_per_replica: 1}", problem_of_loads({loads}, 4))[0];
  EXPECT_EQ(experts_of_ranks(p), (Experts{{0}, {1, 0}, {2, 0}, {3, 0}}));
  EXPECT_THAT(loads_of_ranks(p, loads), Pointwise(DoubleEq(), {100.0, 100.0, 100.0, 100.0}));
}

TEST(UltraEp, FindsTheCapAboveWhichSmallReplicasAreNotNeeded) {
  // With at least 50 a replica, expert 0 cannot fill slacks of 30 and 10: rank 1 alone takes the excess, so that 220 - q <= tau and 20 + q <= tau; and a second
  // replica of 50 needs tau >= 120 on rank 2.
  const Loads loads = {220, 20, 70, 90};
  EXPECT_EQ(tau(loads, 4, "min_tokens_per_replica: 50"), 120);
  EXPECT_EQ(tau(loads, 4, "min_tokens_per_replica: 1000"), 220) << "no replica is worth it";
  EXPECT_EQ(tau(loads, 4, "redundant_slots: 0, min_tokens_per_replica: 1"), 220);
  EXPECT_EQ(tau(loads, 4, "threshold: 1.5, min_tokens_per_replica: 1"), 150);
}

TEST(UltraEp, KeepsATokenAtHomeUnlessTold) {
  // 100 of one copy each cannot leave; expert 0 of 3 on rank 0 can give 2.
  const Loads loads = {1, 1, 1, 0};
  EXPECT_EQ(tau(loads, 2, "min_tokens_per_replica: 1"), 2) << "experts of one token stay";
  EXPECT_EQ(tau({1, 1, 0, 0}, 2, "min_tokens_per_replica: 1"), 2);
  EXPECT_EQ(tau({1, 1, 0, 0}, 2, "min_tokens_per_replica: 1, may_leave_home: true"), 1);
}

TEST(UltraEp, KeepsReplicasInsideTheNode) {
  const Loads loads = {300, 100, 0, 0};
  const Problem two = problem_of_loads({loads}, 4, 2);
  EXPECT_THAT(loads_of_ranks(placed("ultraep: {min_tokens_per_replica: 1}", two)[0], loads), Pointwise(DoubleEq(), {200.0, 200.0, 0.0, 0.0}));
  EXPECT_THAT(loads_of_ranks(placed("ultraep: {min_tokens_per_replica: 1, domain: any}", two)[0], loads), Pointwise(DoubleEq(), {100.0, 100.0, 100.0, 100.0}));
}

/// The least cap for which any quotas exist, by trying all: what each rank gives of each of its experts to each other rank. At most `slots` replicas a rank,
/// `least` copies each, one copy stays at home.
std::int64_t least_cap(const Loads& loads, int ranks, int slots, std::int64_t least) {
  const std::size_t per_rank = loads.size() / static_cast<std::size_t>(ranks);
  std::vector<std::int64_t> load(static_cast<std::size_t>(ranks));
  for (std::size_t e = 0; e < loads.size(); ++e) load[e / per_rank] += loads[e];
  std::vector<int> used(load.size());
  std::int64_t best = std::ranges::max(load);
  const std::function<void(std::size_t, std::size_t, std::int64_t)> try_pair = [&](std::size_t e, std::size_t r, std::int64_t left) {
    if (e == loads.size()) {
      best = std::min(best, std::ranges::max(load));
      return;
    }
    if (r == load.size()) return try_pair(e + 1, 0, e + 1 < loads.size() ? loads[e + 1] - 1 : 0);
    try_pair(e, r + 1, left);
    if (r == e / per_rank || used[r] == slots) return;
    ++used[r];
    for (std::int64_t q = least; q <= left; ++q) {
      load[r] += q, load[e / per_rank] -= q;
      try_pair(e, r + 1, left - q);
      load[r] -= q, load[e / per_rank] += q;
    }
    --used[r];
  };
  try_pair(0, 0, loads[0] - 1);
  return best;
}

// The greedy is no optimum; it never beats one. Where no replica is too small and there is room for two a rank it is one here.
TEST(UltraEp, IsNearTheLeastCapOfAllQuotas) {
  std::int64_t sum = 0, optimal = 0;
  for (std::uint64_t seed = 0; seed < 30; ++seed) {
    const Loads loads = random_loads(seed, 6, 9);
    EXPECT_EQ(tau(loads, 3, "redundant_slots: 2, min_tokens_per_replica: 1"), least_cap(loads, 3, 2, 1)) << seed;
    EXPECT_GE(tau(loads, 3, "redundant_slots: 1, min_tokens_per_replica: 2"), least_cap(loads, 3, 1, 2)) << seed;
    sum += tau(loads, 3, "redundant_slots: 1, min_tokens_per_replica: 1");
    optimal += least_cap(loads, 3, 1, 1);
  }
  EXPECT_LE(static_cast<double>(sum), 1.05 * static_cast<double>(optimal));
}

TEST(UltraEp, FillsToTheMeanWhereRoomIsPlenty) {
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    const Loads loads = random_loads(seed, 32, 1000);
    const std::int64_t total = std::accumulate(loads.begin(), loads.end(), std::int64_t{0});
    EXPECT_EQ(tau(loads, 8, "redundant_slots: 8, min_tokens_per_replica: 1"), (total + 7) / 8) << seed;
  }
}

TEST(QuotaPlacements, KeepHomesOfThePlacementInForce) {
  for (const std::string yaml : {"llep: {min_tokens_per_gemm: 1}", "harmoeny: {eq_tokens: 1}", "ultraep: {min_tokens_per_replica: 1}", "fastermoe_shadowing"}) {
    const Loads loads = {2200, 20, 70, 90};
    Problem problem = problem_of_loads({loads}, 4);
    problem.previous = {Placement::from_experts({3, 2, 1, 0, 0}, {0, 1, 2, 3, 5}, 4)};
    const Placement first = placed(yaml, problem)[0];
    for (int e = 0; e < 4; ++e) EXPECT_EQ(first.rank_of(first.slots_of_expert[static_cast<std::size_t>(e)].front()), Rank(3 - e)) << yaml;
    problem.previous = {first};
    const Placement second = placed(yaml, problem)[0];
    EXPECT_EQ(second.expert_of_slot, first.expert_of_slot) << yaml << ": its own plan in force changes nothing";
    EXPECT_EQ(second.share, first.share);
  }
}

// I11
TEST(QuotaPlacements, RefuseBadSettings) {
  const Problem problem = problem_of_loads({{1, 2, 3, 4}}, 2);
  EXPECT_THAT(input_error([&] { placed("ultraep: {domain: nodes}", problem); }), HasSubstr("did you mean `node`?"));
  EXPECT_THAT(input_error([&] { placed("ultraep: {threshold: 0.9}", problem); }), HasSubstr("test.yaml:1:22: error: `threshold` must be"));
  EXPECT_THAT(input_error([&] { placed("llep: {max_tokens_factor: 0}", problem); }), HasSubstr("`max_tokens_factor` must be"));
  EXPECT_THAT(input_error([&] { placed("harmoeny: {eq_token: 1}", problem); }), HasSubstr("did you mean `eq_tokens`?"));
  EXPECT_THAT(input_error([&] { placed("fastermoe_shadowing: {flops: 0}", problem); }), HasSubstr("`flops` must be"));
}

}  // namespace
}  // namespace epsim
