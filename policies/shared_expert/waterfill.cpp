#include <algorithm>
#include <numeric>

#include "base/parallel.h"
#include "base/rng.h"
#include "base/seeds.h"
#include "policies/shared_expert.h"

namespace epsim::parts_shared_expert {
namespace {

/// How much the home rank is favoured, as a fraction that is exact in whole numbers; who stays at home at all; and what a row of the shared expert counts.
struct Settings {
  Rational preference;
  std::int64_t min_tokens = 0, row = 1;
  std::uint64_t seed = 0;
};

/// How full ranks are with the copies that they compute, and up to where they are to be filled.
struct Levels {
  std::vector<std::int64_t> load, room;  ///< [R] copies; what is missing up to the target
  std::vector<Rank> everyone;            ///< all ranks where none is above the target, who then are candidates for every token; else empty

  Levels(const Plan& plan, std::int64_t row) : load(plan.copies_of_rank()) {
    const auto ranks = static_cast<std::int64_t>(load.size());
    const std::int64_t target = (std::accumulate(load.begin(), load.end(), row * plan.routing.tokens()) + ranks - 1) / ranks;
    for (const std::int64_t l : load) room.push_back(std::max<std::int64_t>(0, target - l));
    if (std::ranges::max(load) <= target)
      for (const Rank r : ids<Rank>(ranks)) everyone.push_back(r);
  }

  /// One of the candidates, which rise and have the home rank among them: at random by their room, the home rank's counting `preference` times as much; where none has any, the least loaded, others' loads counting
  /// `preference` times as much (of equals the home rank, then the first).
  Rank pick(std::span<const Rank> candidates, Rank home, Rational preference, Rng draw) const {
    std::int64_t all = 0;
    for (const Rank r : candidates) all += room[static_cast<std::size_t>(r)];
    if (all == 0) {
      Rank least = home;
      std::int64_t cost = load[static_cast<std::size_t>(home)] * preference.den;
      for (const Rank r : candidates)
        if (const std::int64_t other = load[static_cast<std::size_t>(r)] * preference.num; r != home && other < cost) least = r, cost = other;
      return least;
    }
    // The home rank's part is den + (num - den) times its room: what is beyond the others' measure comes first.
    const std::int64_t beyond = (preference.num - preference.den) * room[static_cast<std::size_t>(home)];
    std::int64_t at = static_cast<std::int64_t>(draw.below(static_cast<std::uint64_t>(all * preference.den + beyond))) - beyond;
    if (at < 0) return home;
    for (const Rank r : candidates)
      if (at -= room[static_cast<std::size_t>(r)] * preference.den; at < 0) return r;
    return home;
  }
};

std::vector<Rank> waterfill_ranks(const Plan& plan, const Settings& settings) {
  const Levels levels(plan, settings.row);
  const std::vector<std::int64_t>& first = plan.routing.first_token;
  const std::int64_t k = plan.routing.top_k;
  std::vector<Rank> rank_of_slot, chosen(static_cast<std::size_t>(plan.routing.tokens()));
  for (const Rank r : ids<Rank>(plan.ranks())) rank_of_slot.resize(static_cast<std::size_t>(plan.placement.first_slot[r + 1]), r);
  parallel_for(plan.ranks(), [&](std::int64_t rank) {
    const Rank home(rank);
    const bool stay = first[home + 1] - first[home] < settings.min_tokens;
    std::vector<Rank> visited;
    for (std::int64_t t = first[home]; t < first[home + 1]; ++t) {
      Rank& mine = chosen[static_cast<std::size_t>(t)] = home;
      if (stay) continue;
      if (levels.everyone.empty()) {
        visited.assign(1, home);
        for (std::int64_t c = t * k; c < (t + 1) * k; ++c)
          if (const std::int32_t slot = plan.slot[static_cast<std::size_t>(c)]; slot >= 0) visited.push_back(rank_of_slot[static_cast<std::size_t>(slot)]);
        std::ranges::sort(visited);
        visited.erase(std::ranges::unique(visited).begin(), visited.end());
      }
      const Rng draw(seed_of(plan.routing.seed, settings.seed), Stream::shared_expert, static_cast<std::uint64_t>(plan.routing.number + t), static_cast<std::uint32_t>(plan.layer));
      mine = levels.pick(levels.everyone.empty() ? visited : levels.everyone, home, settings.preference, draw);
    }
  });
  return chosen;
}

}  // namespace

/// SGLang's Waterfill (pull request 19290 and RFC 29630 of sgl-project/sglang): shared experts fill up ranks with few copies. With a target of (copies + tokens) / R rows a rank, rounded up, a token's shared expert goes to one of the
/// ranks that it visits anyway, its home rank among them, drawn by what each is short of the target. Where no rank is above the target, all ranks are candidates. There a row of the shared expert counts as one of a routed expert; `row` is ours, for shared experts that are wider.
/// Loads are those of the whole batch, and the draw is the token's own, so the answer does not depend on who asks.
SharedExpertRule waterfill(Params& p, const Shape*) {
  SharedExpertRule rule;
  rule.summary = "Ranks with few copies compute the shared expert of tokens that visit them (SGLang's Waterfill).";
  Settings settings;
  settings.preference = p.rational("local_preference", "how much more the home rank's room counts, and how much less its load", Rational{11, 10});
  settings.min_tokens = p.integer("min_tokens", "a rank with fewer tokens keeps the shared expert of all of them", 64);
  settings.row = p.integer("row", "rows of a routed expert that a row of the shared one counts as: about how many times as wide it is", 1, 1, 1000);
  settings.seed = static_cast<std::uint64_t>(p.integer("seed", "of the random numbers, besides the experiment's", 0));
  if (p.usable() && (settings.preference.num < settings.preference.den || settings.preference.num > 1'000'000))
    p.error("local_preference", "expected 1 or more, with up to six digits: it is how much the home rank is favoured");
  if (!p.usable()) return rule;
  rule.choose = [settings](const Plan& plan) { return waterfill_ranks(plan, settings); };
  return rule;
}

}  // namespace epsim::parts_shared_expert
