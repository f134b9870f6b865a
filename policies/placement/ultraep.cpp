#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>

#include "base/parallel.h"
#include "policies/placement/shared/homes.h"
#include "policies/placement/shared/nodes.h"

namespace epsim::parts_placement {
namespace {

struct Settings {
  std::int64_t redundant, least;
  double threshold, probe;
  bool may_leave_home;
};

/// One group of ranks that may hold replicas of each other's experts.
class Domain {
 public:
  Domain(std::vector<Rank> ranks, std::span<const Rank> home, std::span<const std::int64_t> loads, const Settings& s)
      : ranks_(std::move(ranks)), loads_(loads), settings_(s), load_(ranks_.size()), masters_(ranks_.size()) {
    for (const Expert e : ids<Expert>(static_cast<std::int64_t>(home.size())))
      if (const auto at = std::ranges::lower_bound(ranks_, home[e]); at != ranks_.end() && *at == home[e]) {
        const auto i = static_cast<std::size_t>(at - ranks_.begin());
        load_[i] += loads[e];
        masters_[i].push_back(e);
      }
    for (std::vector<Expert>& m : masters_) std::ranges::stable_sort(m, std::ranges::greater{}, [&](Expert e) { return loads[e]; });
    by_load_.resize(ranks_.size());
    std::iota(by_load_.begin(), by_load_.end(), std::size_t{0});
    std::ranges::stable_sort(by_load_, std::ranges::greater{}, [&](std::size_t i) { return load_[i]; });
  }

  /// Quotas under which no rank has more than `cap` copies, if the greedy finds some.
  std::optional<std::vector<Quota>> plan(std::int64_t cap) const {
    std::vector<std::int64_t> slack(load_.size()), free(load_.size(), settings_.redundant);
    std::int64_t excess = 0, room = 0;
    for (std::size_t i = 0; i < load_.size(); ++i) {
      slack[i] = std::max<std::int64_t>(cap - load_[i], 0);
      room += slack[i];
      excess += std::max<std::int64_t>(load_[i] - cap, 0);
    }
    if (excess > room) return {};
    std::vector<Quota> quotas;
    for (const std::size_t source : by_load_) {
      std::int64_t need = load_[source] - cap;
      if (need <= 0) break;
      for (const Expert e : masters_[source]) {
        std::int64_t available = loads_[e] - (settings_.may_leave_home ? 0 : 1);
        const std::size_t first = quotas.size();
        while (need > 0 && available > 0) {
          const std::size_t target = most_slack(slack, free, std::span(quotas).subspan(first));
          if (target == slack.size()) break;
          const std::int64_t q = std::min({need, slack[target], available});
          if (q <= 0 || q < settings_.least) break;
          quotas.push_back({e, ranks_[target], q});
          need -= q, available -= q, slack[target] -= q, --free[target];
        }
        if (need == 0) break;
      }
      if (need > 0) return {};
    }
    return quotas;
  }

  /// Quotas for the smallest cap that the search finds.
  std::vector<Quota> best() const {
    const double mean = static_cast<double>(std::accumulate(load_.begin(), load_.end(), std::int64_t{0})) / static_cast<double>(load_.size());
    std::int64_t high = std::ranges::max(load_), low = std::min(high, static_cast<std::int64_t>(std::ceil(mean * settings_.threshold)));
    std::vector<Quota> found;  // of `high`: nothing is above the largest load
    const auto feasible = [&](std::int64_t cap) {
      std::optional<std::vector<Quota>> quotas = plan(cap);
      if (!quotas) return false;
      found = std::move(*quotas);
      high = cap;
      return true;
    };
    if (const auto near = static_cast<std::int64_t>(std::ceil(mean * (1 + settings_.probe))); near > low && near < high && !feasible(near)) low = near + 1;
    while (low < high)
      if (const std::int64_t middle = low + (high - low) / 2; !feasible(middle)) low = middle + 1;
    return found;
  }

 private:
  /// The rank with most slack that has a free slot and no replica of the expert whose quotas are given (ties: lowest); as many as there are ranks if there is
  /// none.
  std::size_t most_slack(std::span<const std::int64_t> slack, std::span<const std::int64_t> free, std::span<const Quota> has) const {
    std::size_t best = slack.size();
    for (std::size_t i = 0; i < slack.size(); ++i)
      if (slack[i] > 0 && free[i] > 0 && (best == slack.size() || slack[i] > slack[best]) && std::ranges::find(has, ranks_[i], &Quota::rank) == has.end())
        best = i;
    return best;
  }

  std::vector<Rank> ranks_;
  std::span<const std::int64_t> loads_;
  const Settings& settings_;
  std::vector<std::int64_t> load_;
  std::vector<std::vector<Expert>> masters_;  // of each rank, heaviest first
  std::vector<std::size_t> by_load_;
};

}  // namespace

/// UltraEP's quota planner (Dots-Infra/UltraEP, 2026): where replicas go and how many tokens each takes is one problem. Experts stay on their home; a rank
/// takes up to `redundant_slots` replicas of other ranks' experts, of its own node only (replicas travel over NVLink). The plan is the greedy one for the
/// smallest cap on every rank's copies that the search finds feasible: first a probe just above the mean, then bisection. Redundant slots that the plan has no
/// use for do not exist.
PlacementPolicy ultraep(Params& p, const Shape*) {
  PlacementPolicy policy;
  policy.summary = "UltraEP's quota planner: replicas inside a node and the copies each takes, for the smallest cap on a rank's copies that bisection finds; the replica rule `quota` follows them.";
  Settings s;
  s.redundant = p.integer("redundant_slots", "replicas of other ranks' experts that a rank has room for", 2, 0, 65'536);
  s.threshold = p.number("threshold", "no smaller cap than this many times the mean is sought", 1, 1);
  s.least = p.integer("min_tokens_per_replica", "fewest copies that are worth a replica", 1024, 1);
  s.probe = p.number("eps", "the first cap to be probed is above the mean by this part of it", 0.01, 0);
  s.may_leave_home = p.flag("may_leave_home", "an expert's home may be left without a copy to compute", false);
  const std::string domain = p.choice("domain", "where replicas of an expert may be: in its home's `node` or on `any` rank", {"node", "any"}, "node");
  if (!p.usable()) return policy;
  policy.place = [=](const Problem& problem) {
    const std::vector<int> node = domain == "any" ? std::vector<int>(static_cast<std::size_t>(problem.ranks)) : node_of_ranks(problem);
    std::vector<std::vector<Rank>> domains(static_cast<std::size_t>(std::ranges::max(node)) + 1);
    for (const Rank r : ids<Rank>(problem.ranks)) domains[static_cast<std::size_t>(node[r])].push_back(r);

    std::vector<Placement> placements(problem.counts.size());
    parallel_for(static_cast<std::int64_t>(placements.size()), [&](std::int64_t l) {
      const auto layer = static_cast<std::size_t>(l);
      const std::vector<std::int64_t> loads = problem.loads(layer);
      const std::vector<Rank> home = home_ranks(problem, layer);
      std::vector<Quota> quotas;
      for (const std::vector<Rank>& ranks : domains) std::ranges::copy(Domain(ranks, home, loads, s).best(), std::back_inserter(quotas));
      placements[layer] = place_quotas(home, problem.ranks, loads, std::move(quotas));
    });
    return placements;
  };
  return policy;
}

}  // namespace epsim::parts_placement
