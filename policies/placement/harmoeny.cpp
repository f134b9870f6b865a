#include <algorithm>
#include <numeric>

#include "base/parallel.h"
#include "policies/placement/shared/homes.h"

namespace epsim::parts_placement {
namespace {

/// An expert on a rank and whose copies it computes there.
struct Hosted {
  Expert expert;
  std::vector<std::int64_t> from;  ///< [sources]
  std::int64_t copies = 0;
};

struct Hosts {
  std::vector<std::vector<Hosted>> on;  ///< [R]
  std::vector<std::int64_t> load;       ///< [R]

  Hosts(std::span<const Rank> home, const Matrix<std::int64_t>& sent, int ranks) : on(static_cast<std::size_t>(ranks)), load(static_cast<std::size_t>(ranks)) {
    for (const Expert e : ids<Expert>(sent.columns)) {
      Hosted h{e, {}, 0};
      for (std::int64_t s = 0; s < sent.rows; ++s) h.from.push_back(sent(s, e)), h.copies += sent(s, e);
      load[home[e]] += h.copies;
      on[home[e]].push_back(std::move(h));
    }
  }

  void move(Hosted& h, std::size_t over, std::size_t under, std::int64_t average) {
    auto to = std::ranges::find(on[under], h.expert, &Hosted::expert);
    if (to == on[under].end()) to = on[under].insert(to, {h.expert, std::vector<std::int64_t>(h.from.size()), 0});
    std::vector<std::size_t> senders(h.from.size());
    std::iota(senders.begin(), senders.end(), std::size_t{0});
    std::ranges::stable_sort(senders, std::ranges::greater{}, [&](std::size_t s) { return h.from[s]; });
    for (const std::size_t s : senders) {
      if (load[over] <= average || load[under] >= average) break;
      const std::int64_t n = std::min(h.from[s], average - load[under]);
      h.from[s] -= n, h.copies -= n, load[over] -= n;
      to->from[s] += n, to->copies += n, load[under] += n;
    }
  }
};

}  // namespace

/// HarMoEny's rebalancing (Doucet et al., 2025): while a rank has more than the mean, copies of its largest expert go to the rank that has least, the largest
/// sender's first, until the one is down to the mean or the other up to it. It ends where the lightest rank lacks less than `eq_tokens` to the mean or the
/// largest expert of the heaviest rank has fewer. Where sources are not known there is one sender.
PlacementPolicy harmoeny(Params& p, const Shape*) {
  PlacementPolicy policy;
  policy.summary =
      "HarMoEny: moves copies of the heaviest rank's largest expert to the lightest rank, again and again, until loads are near the mean; plans shares, which the replica rule `quota` follows.";
  const std::int64_t least = p.integer("eq_tokens", "fewest copies that are worth an expert's move", 150, 0);
  if (!p.usable()) return policy;
  policy.place = [=](const Problem& problem) {
    std::vector<Placement> placements(problem.counts.size());
    parallel_for(static_cast<std::int64_t>(placements.size()), [&](std::int64_t l) {
      const auto layer = static_cast<std::size_t>(l);
      const std::vector<Rank> home = home_ranks(problem, layer);
      Hosts hosts(home, problem.counts[layer], problem.ranks);
      const std::int64_t average = std::accumulate(hosts.load.begin(), hosts.load.end(), std::int64_t{0}) / problem.ranks;
      while (true) {
        const auto over = static_cast<std::size_t>(std::ranges::max_element(hosts.load) - hosts.load.begin());
        const auto under = static_cast<std::size_t>(std::ranges::min_element(hosts.load) - hosts.load.begin());
        if (hosts.load[over] <= average || hosts.load[under] >= average || hosts.load[under] + least > average) break;
        Hosted& largest = *std::ranges::max_element(
            hosts.on[over], [](const Hosted& a, const Hosted& b) { return a.copies < b.copies || (a.copies == b.copies && a.expert > b.expert); });
        if (largest.copies < least) break;
        hosts.move(largest, over, under, average);
      }
      std::vector<Quota> quotas;
      for (const Rank r : ids<Rank>(problem.ranks))
        for (const Hosted& h : hosts.on[r])
          if (r != home[h.expert] && h.copies > 0) quotas.push_back({h.expert, r, h.copies});
      placements[layer] = place_quotas(home, problem.ranks, problem.loads(layer), std::move(quotas));
    });
    return placements;
  };
  return policy;
}

}  // namespace epsim::parts_placement
