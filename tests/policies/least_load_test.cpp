#include "policies/least_load.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <numeric>

#include "base/rng.h"
#include "policies/solve/min_max_split.h"

namespace epsim {
namespace {

using Loads = std::vector<std::int64_t>;
using Slots = std::vector<std::int32_t>;

double fullest_evenly(const Placement& p, const Loads& loads) {
  std::vector<double> rank(static_cast<std::size_t>(p.ranks()));
  for (const Slot s : ids<Slot>(p.slots())) {
    const std::size_t e = p.expert_of_slot[static_cast<std::size_t>(s)];
    rank[static_cast<std::size_t>(p.rank_of(s))] += static_cast<double>(loads[e]) / static_cast<double>(p.slots_of_expert[e].size());
  }
  return *std::ranges::max_element(rank);
}

double fullest_freely(const Placement& p, const Loads& loads) {
  std::vector<std::vector<int>> places(loads.size());
  for (std::size_t e = 0; e < loads.size(); ++e)
    for (const Slot s : p.slots_of_expert[e]) places[e].push_back(p.rank_of(s));
  return static_cast<double>(min_max_split(loads, places, p.ranks()).fullest);
}

/// The best of all placements, one slot after another.
double by_brute_force(const Loads& loads, const Slots& slots, double (*fullest)(const Placement&, const Loads&)) {
  const int experts = static_cast<int>(loads.size()), all = std::accumulate(slots.begin(), slots.end(), 0);
  std::vector<std::int32_t> first{0};
  for (const std::int32_t s : slots) first.push_back(first.back() + s);
  std::vector<std::uint16_t> expert(static_cast<std::size_t>(all));
  double best = 1e300;
  const std::function<void(std::size_t)> next = [&](std::size_t s) {
    if (s == expert.size()) {
      const Placement p = Placement::from_experts(expert, first, experts);
      if (std::ranges::none_of(p.slots_of_expert, [](const auto& of) { return of.empty(); })) best = std::min(best, fullest(p, loads));
      return;
    }
    const bool begins_rank = std::ranges::find(first, static_cast<std::int32_t>(s)) != first.end();
    for (int e = begins_rank ? 0 : expert[s - 1]; e < experts; ++e) expert[s] = static_cast<std::uint16_t>(e), next(s + 1);
  };
  next(0);
  return best;
}

const Loads kReadme0 = {90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86}, kReadme1 = {20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27};  // of github.com/deepseek-ai/EPLB
const Loads kSkewed = {600, 560, 120, 120, 20, 10, 10, 10};  // of vLLM pull request 37656

// The optima were found by enumerating replica counts and pairing largest with smallest, which is best with two slots a rank.
double by_pairing(const Loads& loads, int ranks) {
  double best = 1e300;
  std::vector<double> weights;
  const std::function<void(std::size_t, int)> next = [&](std::size_t e, int left) {
    if (e == loads.size()) {
      if (left > 0) return;
      std::vector<double> sorted = weights;
      std::ranges::sort(sorted);
      double most = 0;
      for (std::size_t i = 0; i < sorted.size() / 2; ++i) most = std::max(most, sorted[i] + sorted[sorted.size() - 1 - i]);
      best = std::min(best, most);
      return;
    }
    const std::size_t before = weights.size();
    for (int c = 1; c <= left - static_cast<int>(loads.size() - e - 1); ++c) {
      weights.insert(weights.end(), static_cast<std::size_t>(c), static_cast<double>(loads[e]) / c);
      next(e + 1, left - c);
      weights.resize(before);
    }
  };
  next(0, 2 * ranks);
  return best;
}

TEST(LeastLoad, KnownOptimaOfEvenSplits) {
  const Slots two(8, 2);
  for (const auto& [loads, optimum] : {std::pair{kReadme0, 136.0}, {kReadme1, 172.0}, {kSkewed, 590.0 / 3}}) {
    EXPECT_DOUBLE_EQ(by_pairing(loads, 8), optimum);
    const LeastLoad found = least_load(loads, two, true);
    EXPECT_NEAR(found.load, optimum, 1e-9);
    EXPECT_NEAR(found.bound, optimum, 1e-9) << "proven";
    found.placement.check(static_cast<int>(loads.size()));
    EXPECT_NEAR(fullest_evenly(found.placement, loads), optimum, 1e-9);
    EXPECT_LE(load_bound(loads, two, false).value, optimum);
  }
}

// A rank may be filled in a million ways here, but in few that leave no more to the others than these can have.
TEST(LeastLoad, LooksOnlyAtRanksThatLeaveEnoughToNoOther) {
  const LeastLoad found = least_load(kSkewed, Slots(4, 4), true);
  EXPECT_TRUE(found.searched);
  EXPECT_NEAR(found.load, 1090.0 / 3, 1e-9) << "EPLB comes to 364";
  EXPECT_NEAR(found.bound, found.load, 1e-9) << "proven";
  found.placement.check(8);
  EXPECT_NEAR(fullest_evenly(found.placement, kSkewed), found.load, 1e-9);
}

TEST(LeastLoad, FreeSplitsMayReachTheMean) {
  const LeastLoad found = least_load(kSkewed, Slots(8, 2), false, {.seconds = {}, .nodes = 300});
  EXPECT_EQ(found.load, 182) << "1450 copies on 8 ranks";
  EXPECT_EQ(found.bound, 182);
  found.placement.check(8);
  EXPECT_EQ(fullest_freely(found.placement, kSkewed), 182);
}

TEST(LeastLoad, ALimitLeavesAGapButNoLie) {
  const LeastLoad found = least_load(kReadme1, Slots(8, 2), false, {.seconds = {}, .nodes = 1});
  found.placement.check(12);
  EXPECT_EQ(fullest_freely(found.placement, kReadme1), found.load);
  EXPECT_LT(found.bound, found.load);
  EXPECT_GE(found.bound, 145) << "1156 copies on 8 ranks";
}

TEST(LeastLoad, EqualsBruteForceOnTinyCases) {
  int beaten = 0;
  for (std::uint64_t seed = 0; seed < 120; ++seed) {
    Rng rng(seed, Stream::test, 31);
    const int experts = 1 + static_cast<int>(rng.below(4));
    Loads loads;
    for (int e = 0; e < experts; ++e) loads.push_back(rng.below(6) == 0 ? 0 : static_cast<std::int64_t>(rng.below(rng.below(2) ? 100 : 12)));
    Slots slots;
    int all = 0;
    for (int left = 7; all < experts || (left > 0 && rng.below(3) > 0);) {
      slots.push_back(static_cast<std::int32_t>(rng.below(4)));
      if (all + slots.back() > 7) slots.back() = 0;
      all += slots.back(), left = 7 - all;
      if (slots.size() > 5 && all >= experts) break;
    }
    SCOPED_TRACE("case " + std::to_string(seed));
    for (const bool even : {true, false}) {
      const LeastLoad found = least_load(loads, slots, even);
      const double best = by_brute_force(loads, slots, even ? fullest_evenly : fullest_freely);
      EXPECT_NEAR(found.load, best, 1e-9) << even;
      EXPECT_NEAR(found.bound, best, 1e-9) << even;
      const Certificate bound = load_bound(loads, slots, !even);
      EXPECT_LE(bound.value, best * (1 + 1e-12)) << even << " by " << bound.because;
      beaten += bound.value < best * (1 - 1e-9);
    }
  }
  EXPECT_LT(beaten, 120) << "the bound is often met";
}

TEST(LoadBound, EachArgument) {
  const auto is = [](const Certificate& c, double value, std::string_view because) {
    EXPECT_NEAR(c.value, value, 1e-9 * value) << because;
    EXPECT_EQ(c.because, because);
  };
  is(load_bound(Loads{5, 5, 5, 6}, Slots{2, 2}), 11, "mean");
  is(load_bound(Loads{5, 5, 5, 6}, Slots{2, 2}, false), 10.5, "mean");
  is(load_bound(Loads{100, 1, 1}, Slots{1, 1, 1, 1}), 50, "slots");        // two replicas at most
  is(load_bound(Loads{100, 1, 1}, Slots{8, 8, 0, 0}), 51, "mean");         // ranks without slots compute nothing
  is(load_bound(Loads{100, 0, 0}, Slots{1, 9}), 50, "mean");
  is(load_bound(Loads{8, 8, 8}, Slots{2, 1}), 16, "pigeonhole");           // three whole experts on two ranks
  is(load_bound(Loads{9, 8, 7, 6}, Slots{3, 2}), 15, "mean");              // one may be replicated
  is(load_bound(Loads{10, 10, 10, 10, 10}, Slots{3, 2, 1}), 20, "pigeonhole");  // one replicated, four whole on three ranks
  is(load_bound(Loads{0, 0}, Slots{1, 1}), 0, "nothing");
  is(packing_bound({5, 4, 3, 3}, 2), 7.5, "mean");
  is(packing_bound({9, 1, 1, 1}, 2), 9, "slots");
  is(packing_bound({5, 5, 5, 0}, 2), 10, "pigeonhole");
}

}  // namespace
}  // namespace epsim
