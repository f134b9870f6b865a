#include <algorithm>
#include <numeric>

#include "base/parallel.h"
#include "policies/placement/shared/homes.h"

namespace epsim::parts_placement {
namespace {

struct Settings {
  Rational factor;
  std::int64_t least;
  double ratio;
};

std::vector<Quota> spill(std::span<const Rank> home, std::span<const std::int64_t> loads, int ranks, const Settings& s) {
  const std::int64_t total = std::accumulate(loads.begin(), loads.end(), std::int64_t{0});
  std::vector<std::int64_t> load(static_cast<std::size_t>(ranks));  // assigned, or pending: an expert of one's own that is not yet dealt with
  for (const Expert e : ids<Expert>(static_cast<std::int64_t>(loads.size()))) load[home[e]] += loads[e];
  if (static_cast<double>(std::ranges::max(load)) * ranks < s.ratio * static_cast<double>(total) || ranks == 1) return {};

  using Wide = __int128;
  const auto cap = static_cast<std::int64_t>(Wide{s.factor.num} * (total / ranks) / s.factor.den);
  std::vector<Expert> order;
  for (const Expert e : ids<Expert>(static_cast<std::int64_t>(loads.size()))) order.push_back(e);
  std::ranges::stable_sort(order, std::ranges::greater{}, [&](Expert e) { return loads[e]; });
  std::vector<Quota> quotas;
  std::vector<Rank> helpers;
  for (const Expert e : order) {
    const Rank owner = home[e];
    const std::int64_t kept = std::clamp<std::int64_t>(cap - (load[owner] - loads[e]), 0, loads[e]);
    std::int64_t left = loads[e] - kept;
    if (left == 0) continue;
    load[owner] -= left;
    helpers.clear();
    for (const Rank r : ids<Rank>(ranks))
      if (r != owner) helpers.push_back(r);
    std::ranges::stable_sort(helpers, {}, [&](Rank r) { return load[r]; });
    const auto give = [&](Rank r, std::int64_t copies) {
      quotas.push_back({e, r, copies});
      load[r] += copies;
      left -= copies;
    };
    for (const Rank r : helpers) {
      const std::int64_t chunk = std::min(left, cap - load[r]);
      if (chunk > 0 && (chunk >= s.least || chunk == left)) give(r, chunk);
      if (left == 0) break;
    }
    if (left > 0) give(*std::ranges::min_element(helpers, {}, [&](Rank r) { return load[r]; }), left);
  }
  return quotas;
}

}  // namespace

/// Least-loaded expert parallelism (SalesforceAIResearch/LeastLoadedEP, 2026): experts, those with most tokens first, keep what their rank has room for under a
/// cap on every rank's tokens, and spill the rest, with the expert's weights, to the least loaded ranks. Nothing moves while the largest load over the mean is
/// below `adaptive_ratio`. `int(f x floor(total / R))` is taken exactly, for a factor that is a fraction.
PlacementPolicy llep(Params& p, const Shape*) {
  PlacementPolicy policy;
  policy.summary = "Least-loaded expert parallelism: what a rank has above a cap is spilled, expert weights and all, to the least loaded ranks; plans shares, which the replica rule `quota` follows.";
  Settings s;
  s.factor = p.rational("max_tokens_factor", "cap on a rank's tokens, in parts of the mean", Rational{11, 10});
  s.least = p.integer("min_tokens_per_gemm", "no fewer tokens of an expert are given to a helper, unless they are its last", 1024, 0);
  s.ratio = p.number("adaptive_ratio", "largest load over mean load below which nothing moves", 1.3);
  if (!p.usable()) return policy;
  policy.place = [=](const Problem& problem) {
    std::vector<Placement> placements(problem.counts.size());
    parallel_for(static_cast<std::int64_t>(placements.size()), [&](std::int64_t l) {
      const auto layer = static_cast<std::size_t>(l);
      const std::vector<std::int64_t> loads = problem.loads(layer);
      const std::vector<Rank> home = home_ranks(problem, layer);
      placements[layer] = place_quotas(home, problem.ranks, loads, spill(home, loads, problem.ranks, s));
    });
    return placements;
  };
  return policy;
}

}  // namespace epsim::parts_placement
