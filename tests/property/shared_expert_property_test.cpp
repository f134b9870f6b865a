// Where shared experts are computed, over random cases: conservation, candidates, and how full a rank may become.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include "tests/support/random_case.h"
#include "tests/support/random_routing.h"

namespace epsim {
namespace {

using testing::exchange_variants;
using testing::part_from_yaml;
using testing::RandomCase;

std::int64_t sum(const std::vector<std::int64_t>& v) { return std::accumulate(v.begin(), v.end(), std::int64_t{0}); }

/// The ranks that a token's kept copies are on.
std::set<std::int32_t> visited(const Plan& plan, std::int64_t t) {
  std::set<std::int32_t> ranks;
  for (std::int64_t c = t * plan.routing.top_k; c < (t + 1) * plan.routing.top_k; ++c)
    if (const std::int32_t slot = plan.slot[static_cast<std::size_t>(c)]; slot >= 0) ranks.insert(plan.placement.rank_of(Slot(slot)));
  return ranks;
}

// I12: the calls of the shared expert of all ranks have one row a token between them, those on a rank the rows that the plan gives it, and a rank's own phase holds just its own tokens that stay.
TEST(SharedExpertProperty, EveryTokenIsComputedExactlyOnceByEveryExchange) {
  std::int64_t away = 0, stayed = 0;
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    RandomCase c(seed);
    c.share("waterfill: {min_tokens: 0}");
    const std::string& text = exchange_variants()[seed % exchange_variants().size()];
    SCOPED_TRACE(fmt::format("seed {} {}", seed, text));
    const Plan& plan = c.plan;
    const Exchange exchange = c.exchange(text);
    const std::vector<std::int64_t> planned = plan.shared_rows_of_rank();
    ASSERT_EQ(sum(planned), plan.routing.tokens());
    std::vector<std::int64_t> priced(planned.size()), recorded(planned.size());
    for (const Phase& phase : exchange.schedule(plan, c.topology, c.pricing()).phases)
      for (const KernelCall& call : phase.kernels)
        if (!call.slot.valid()) priced[static_cast<std::size_t>(call.rank)] += call.rows;
    EXPECT_EQ(priced, planned);
    const auto rows = exchange.rows(plan, c.topology, true, std::vector<bool>(planned.size(), true));
    for (const Rank r : ids<Rank>(plan.ranks())) {
      std::set<std::int32_t> own;
      for (const RankRows::PhaseRows& phase : rows[static_cast<std::size_t>(r)].phases)
        for (std::size_t call = 0; call < phase.slots.size(); ++call) {
          if (phase.slots[call].valid()) continue;
          recorded[static_cast<std::size_t>(r)] += phase.input_first[call + 1] - phase.input_first[call];
          for (std::int64_t i = phase.input_first[call]; i < phase.input_first[call + 1]; ++i)
            if (const RowRef from = phase.input[static_cast<std::size_t>(i)]; from.buffer == 0) EXPECT_TRUE(own.insert(from.row).second);
        }
      const std::int64_t first = plan.routing.first_token[static_cast<std::size_t>(r)];
      for (std::int64_t t = first; t < plan.routing.first_token[static_cast<std::size_t>(r) + 1]; ++t) {
        const bool stays = plan.shared_rank.empty() || plan.shared_rank[static_cast<std::size_t>(t)] == r;
        EXPECT_EQ(own.contains(static_cast<std::int32_t>(t - first)), stays);
        ++(stays ? stayed : away);
      }
    }
    EXPECT_EQ(recorded, planned);
  }
  EXPECT_GT(away, 500);
  EXPECT_GT(stayed, 500);
}

// Where some rank has more copies than the target, a token's shared expert adds no row where rows stand for ranks, and ranks that reach the target get no token from one that does not.
TEST(SharedExpertProperty, WaterfillTakesNobodyToANewRankWhileOneIsAboveTheTarget) {
  int above = 0, below = 0;
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    const RandomCase own(seed);
    RandomCase c(seed);
    c.share("waterfill: {min_tokens: 0}");
    SCOPED_TRACE(seed);
    const Plan& plan = c.plan;
    if (plan.shared_rank.empty()) continue;
    const std::vector<std::int64_t> load = plan.copies_of_rank();
    const std::int64_t ranks = plan.ranks(), target = (sum(load) + plan.routing.tokens() + ranks - 1) / ranks;
    if (std::ranges::max(load) <= target) {
      ++below;
      continue;
    }
    ++above;
    for (const Rank home : ids<Rank>(ranks))
      for (std::int64_t t = plan.routing.first_token[static_cast<std::size_t>(home)]; t < plan.routing.first_token[static_cast<std::size_t>(home) + 1]; ++t) {
        const Rank at = plan.shared_rank[static_cast<std::size_t>(t)];
        if (at == home) continue;
        EXPECT_TRUE(visited(plan, t).contains(at));
        EXPECT_TRUE(load[static_cast<std::size_t>(at)] < target || load[static_cast<std::size_t>(home)] >= target);
      }
    for (const Rank home : ids<Rank>(ranks))
      for (const Rank r : ids<Rank>(ranks))
        if (r != home) EXPECT_EQ(plan.reach.ranks(home, r), own.plan.reach.ranks(home, r));
  }
  EXPECT_GT(above, 50);
  EXPECT_GT(below, 20);
}

// What follows for the fullest rank. Above the target, the rank with most copies takes nobody in (no other rank's load exceeds its own), so it computes no more rows than with `own`; no rank computes twice as many as the fullest
// does with `own`: it adds at most the tokens that visit it, which are no more than its copies. Below, everybody is drawn by room, and a rank is filled up to the target in the mean, and its own tokens' favour beyond.
TEST(SharedExpertProperty, WaterfillFillsNoRankFarAboveTheTarget) {
  int above = 0, below = 0, better = 0;
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    Rng rng(seed, Stream::test, 9);
    const int ranks = 2 + static_cast<int>(rng.below(7)), experts = ranks * (1 + static_cast<int>(rng.below(4))), k = 1 + static_cast<int>(rng.below(static_cast<std::uint64_t>(std::min(experts, 4))));
    std::vector<std::int64_t> tokens;
    for (int r = 0; r < ranks; ++r) tokens.push_back(200 + static_cast<std::int64_t>(rng.below(300)));
    std::vector<std::uint16_t> expert_of_slot(static_cast<std::size_t>(experts));
    std::vector<std::uint32_t> order(expert_of_slot.size());
    rng.permutation(order);
    for (std::size_t s = 0; s < order.size(); ++s) expert_of_slot[s] = static_cast<std::uint16_t>(seed % 2 ? order[s] : s);
    std::vector<std::int32_t> first_slot;
    for (int r = 0; r <= ranks; ++r) first_slot.push_back(experts / ranks * r);
    Plan plan = make_plan(0, testing::random_routing(tokens, experts, k, seed), {}, Placement::from_experts(expert_of_slot, first_slot, experts),
                          part_from_yaml(builtin_replica_rules(), "round_robin", static_cast<const Shape*>(nullptr)), {});
    settle_shared_expert(plan, part_from_yaml(builtin_shared_expert_rules(), "waterfill", static_cast<const Shape*>(nullptr)), {});
    SCOPED_TRACE(seed);
    const std::vector<std::int64_t> load = plan.copies_of_rank(), shared = plan.shared_rows_of_rank();
    const std::int64_t target = (sum(load) + sum(tokens) + ranks - 1) / ranks;
    std::int64_t own_fullest = 0, fullest = 0;
    double room = 0;
    for (std::size_t r = 0; r < load.size(); ++r) {
      own_fullest = std::max(own_fullest, load[r] + tokens[r]), fullest = std::max(fullest, load[r] + shared[r]);
      room += static_cast<double>(std::max<std::int64_t>(0, target - load[r]));
    }
    ASSERT_GE(own_fullest, target);
    better += fullest < own_fullest;
    const std::size_t hottest = static_cast<std::size_t>(std::ranges::max_element(load) - load.begin());
    if (load[hottest] > target) {
      ++above;
      EXPECT_LE(shared[hottest], tokens[hottest]);
      EXPECT_LT(fullest, 2 * own_fullest);
      continue;
    }
    ++below;
    for (std::size_t r = 0; r < load.size(); ++r) {
      const double mine = static_cast<double>(target - load[r]), favour = static_cast<double>(tokens[r]) * mine / room / 10;
      EXPECT_LE(static_cast<double>(shared[r]), mine + favour + 5 * std::sqrt(mine + favour)) << "rank " << r;
    }
  }
  EXPECT_GT(above, 20);
  EXPECT_GT(below, 20);
  EXPECT_GT(better, 100);
}

}  // namespace
}  // namespace epsim
