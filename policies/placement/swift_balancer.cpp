#include <algorithm>
#include <numeric>

#include "base/parallel.h"
#include "policies/placement/shared/copies.h"
#include "policies/placement/shared/slots.h"
#include "policies/placement/shared/table.h"

namespace epsim::parts_placement {
namespace {

/// One layer on its way from the table in force to a better one: at most one expert goes from one rank to another.
class SwiftLayer {
 public:
  SwiftLayer(const Placement& now, std::span<const double> load)
      : now_(now), load_(load), ranks_(static_cast<std::size_t>(now.ranks())), table_(ranks_), kept_(ranks_), moved_(now.ranks(), now.ranks()) {
    for (std::size_t r = 0; r < ranks_; ++r)
      for (std::int32_t s = now.first_slot[r]; s < now.first_slot[r + 1]; ++s) {
        table_[r].push_back(now.expert_of_slot[static_cast<std::size_t>(s)]);
        kept_[r].push_back(true);
      }
    was_ = table_;
  }

  /// Chooses anew what the slots hold that are not their expert's first.
  void choose_copies() {
    std::vector<std::size_t> owner(load_.size(), ranks_);
    std::vector<std::vector<std::size_t>> open(ranks_);  // places of redundant slots
    std::size_t widest = 0, redundant = 0;
    for (const std::vector<int>& experts : table_) widest = std::max(widest, experts.size());
    for (std::size_t place = 0; place < widest; ++place)
      for (std::size_t r = 0; r < ranks_; ++r) {
        if (place >= table_[r].size()) continue;
        std::size_t& first = owner[static_cast<std::size_t>(table_[r][place])];
        if (first == ranks_) {
          first = r;
        } else {
          open[r].push_back(place);
          ++redundant;
        }
      }
    if (redundant == 0) return;
    for (std::size_t r = 0; r < ranks_; ++r)
      for (const std::size_t place : open[r]) table_[r][place] = kEmpty;

    const std::vector<int> all = replicate(load_, static_cast<std::int64_t>(load_.size() + redundant));
    const std::vector<int> count = count_copies(all, load_.size());
    std::vector<double> part(load_.size()), rank_load(ranks_);
    for (std::size_t e = 0; e < part.size(); ++e) part[e] = load_[e] / count[e];
    for (std::size_t e = 0; e < part.size(); ++e) rank_load[owner[e]] += part[e];
    std::vector<int> copies(all.begin() + static_cast<std::ptrdiff_t>(load_.size()), all.end()), placed(load_.size(), 1);
    std::ranges::stable_sort(copies, [&](int a, int b) { return part[static_cast<std::size_t>(a)] > part[static_cast<std::size_t>(b)]; });

    std::vector<std::size_t> next(ranks_);  // of the rank's open places, the first that is still empty
    const auto fits = [&](std::size_t e, std::size_t r) {
      const int expert = static_cast<int>(e);
      return std::ranges::find(table_[r], expert) == table_[r].end() &&
             (had(r, expert) || !moved_(static_cast<std::int64_t>(owner[e]), static_cast<std::int64_t>(r)));
    };
    const auto put = [&](std::size_t e, std::size_t r) {
      const std::size_t place = open[r][next[r]++];
      table_[r][place] = static_cast<int>(e);
      ++placed[e];
      if (had(r, static_cast<int>(e))) return;
      kept_[r][place] = false;
      moved_(static_cast<std::int64_t>(owner[e]), static_cast<std::int64_t>(r)) = 1;
    };
    for (const int copy : copies) {
      const auto e = static_cast<std::size_t>(copy);
      std::size_t best = ranks_;
      for (std::size_t r = 0; r < ranks_; ++r)
        if (next[r] < open[r].size() && (best == ranks_ || rank_load[r] < rank_load[best]) && fits(e, r)) best = r;
      if (best == ranks_) continue;
      put(e, best);
      rank_load[best] += part[e];
    }
    for (std::size_t r = 0; r < ranks_; ++r)
      while (next[r] < open[r].size()) {
        std::size_t heaviest = load_.size();
        for (std::size_t e = 0; e < load_.size(); ++e)
          if ((heaviest == load_.size() || load_[e] / placed[e] > load_[heaviest] / placed[heaviest]) && fits(e, r)) heaviest = e;
        // Where nothing fits the slot keeps what it has: that needs no transfer.
        put(heaviest < load_.size() ? heaviest : static_cast<std::size_t>(was_[r][open[r][next[r]]]), r);
      }
  }

  /// Swaps one expert of the hottest rank for one of another rank, as long as that lowers the hotter of the two by `increment` of the mean.
  void swap(double increment, std::int64_t max_swaps) {
    std::vector<int> count(load_.size());
    for (const std::vector<int>& experts : table_)
      for (const int e : experts) ++count[static_cast<std::size_t>(e)];
    std::vector<double> part(load_.size()), rank_load = rank_loads();
    for (std::size_t e = 0; e < part.size(); ++e) part[e] = load_[e] / count[e];
    const double least_gain = increment * std::accumulate(load_.begin(), load_.end(), 0.0) / static_cast<double>(ranks_);
    std::vector<std::size_t> order(ranks_);
    for (std::int64_t n = 0; n < max_swaps; ++n) {
      std::iota(order.begin(), order.end(), std::size_t{0});
      const auto hot = static_cast<std::size_t>(std::ranges::max_element(rank_load) - rank_load.begin());
      std::ranges::stable_sort(order, [&](std::size_t a, std::size_t b) { return rank_load[a] < rank_load[b]; });
      const bool found = std::ranges::any_of(order, [&](std::size_t other) { return other != hot && swap_between(hot, other, part, rank_load, least_gain); });
      if (!found) return;
    }
  }

  double peak() const { return std::ranges::max(rank_loads()); }
  Placement placement() const { return keep_slots(placement_of(table_, static_cast<int>(load_.size())), now_); }

 private:
  static constexpr int kEmpty = -1;
  bool had(std::size_t r, int expert) const { return std::ranges::find(was_[r], expert) != was_[r].end(); }

  std::vector<double> rank_loads() const { return even_rank_loads(placement_of(table_, static_cast<int>(load_.size())), load_); }

  bool swap_between(std::size_t hot, std::size_t other, std::span<const double> part, std::span<double> rank_load, double least_gain) {
    const auto h = static_cast<std::int64_t>(hot), o = static_cast<std::int64_t>(other);
    if (moved_(h, o) || moved_(o, h)) return false;
    const auto lacks = [&](std::size_t r, int expert) { return std::ranges::find(table_[r], expert) == table_[r].end(); };
    double least = rank_load[hot];
    std::size_t give = 0, take = 0;
    for (std::size_t i = 0; i < table_[hot].size(); ++i) {
      if (!kept_[hot][i] || !lacks(other, table_[hot][i])) continue;
      for (std::size_t j = 0; j < table_[other].size(); ++j) {
        const double less = part[static_cast<std::size_t>(table_[hot][i])] - part[static_cast<std::size_t>(table_[other][j])];
        const double after = std::max(rank_load[hot] - less, rank_load[other] + less);
        if (after < least && kept_[other][j] && lacks(hot, table_[other][j])) least = after, give = i, take = j;
      }
    }
    if (least == rank_load[hot] || rank_load[hot] - least < least_gain) return false;
    const double less = part[static_cast<std::size_t>(table_[hot][give])] - part[static_cast<std::size_t>(table_[other][take])];
    rank_load[hot] -= less, rank_load[other] += less;
    std::swap(table_[hot][give], table_[other][take]);
    kept_[hot][give] = kept_[other][take] = false;
    moved_(h, o) = moved_(o, h) = 1;
    return true;
  }

  const Placement& now_;
  std::span<const double> load_;
  std::size_t ranks_;
  std::vector<std::vector<int>> table_, was_;  ///< experts of each rank: as they are to be, and in force
  std::vector<std::vector<bool>> kept_;        ///< of each place in `table_`: its expert did not come from another rank
  Matrix<std::uint8_t> moved_;                 ///< [from][to] an expert goes there
};

}  // namespace

/// SwiftBalancer of vllm-ascend: begins from the placement in force (at first slot p holds expert p mod E), chooses redundant copies anew, and swaps experts
/// between the hottest rank and others, moving at most one expert from one rank to another. A copy that its rank has already counts as no move. A layer whose
/// heaviest rank is below `imbalance` times the mean, or that gets no better, stays; so do all layers unless the sum of their heaviest ranks' loads falls below
/// `accept` of what it was. (The original sorts the layers by what they gain, for a transfer that goes layer by layer; here all move at once.)
PlacementPolicy swift_balancer(Params& p, const Shape* shape) {
  PlacementPolicy policy;
  policy.summary = "vllm-ascend's SwiftBalancer: betters the placement in force with at most one expert moved between any two ranks.";
  const std::int64_t wanted = read_slots(p, shape);
  const double imbalance = p.number("imbalance", "layers whose max/mean rank load is below are left alone", 1.01, 0);
  const double increment = p.number("increment", "least gain of a swap, in parts of the mean rank load", 0.01, 0);
  const std::int64_t max_swaps = p.integer("max_swaps", "swaps a layer at most", 100, 0);
  const double accept = p.number("accept", "nothing changes unless the sum over layers of the heaviest rank's load falls below this part of it", 0.95, 0);
  if (!p.usable()) return policy;
  policy.place = [=](const Problem& problem) {
    const std::vector<std::int32_t> first = spread_slots(wanted ? wanted : problem.experts, problem.ranks);
    const std::size_t layers = problem.counts.size();
    std::vector<Placement> now(layers), next(layers);
    std::vector<double> before(layers), after(layers);
    parallel_for(static_cast<std::int64_t>(layers), [&](std::int64_t i) {
      const auto l = static_cast<std::size_t>(i);
      const std::vector<std::int64_t> counts = problem.loads(l);
      const std::vector<double> load(counts.begin(), counts.end());
      now[l] = next[l] = in_force(problem, l, first);
      before[l] = after[l] = std::ranges::max(even_rank_loads(now[l], load));
      const double mean = std::accumulate(load.begin(), load.end(), 0.0) / problem.ranks;
      if (mean == 0 || before[l] < imbalance * mean) return;
      SwiftLayer layer(now[l], load);
      layer.choose_copies();
      layer.swap(increment, max_swaps);
      if (layer.peak() < before[l]) next[l] = layer.placement(), after[l] = layer.peak();
    });
    const double was = std::accumulate(before.begin(), before.end(), 0.0), is = std::accumulate(after.begin(), after.end(), 0.0);
    return is < accept * was ? next : now;
  };
  return policy;
}

}  // namespace epsim::parts_placement
