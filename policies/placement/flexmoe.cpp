#include <algorithm>
#include <tuple>

#include "base/parallel.h"
#include "policies/placement/shared/laer_time.h"
#include "policies/placement/shared/nodes.h"
#include "policies/placement/shared/slots.h"
#include "policies/placement/shared/table.h"

namespace epsim::parts_placement {
namespace {

/// A placement being changed, and what each replica carries.
class Table {
 public:
  Table(const Placement& p, std::span<const std::int64_t> loads, std::span<const int> node, int nodes)
      : experts_(p.expert_of_slot),
        first_(p.first_slot),
        loads_(loads),
        node_(node),
        copies_(loads.size()),
        in_node_(nodes, static_cast<std::int64_t>(loads.size())) {
    for (std::size_t r = 0; r < node.size(); ++r)
      for (std::size_t s = begin(r); s < end(r); ++s) ++copies_[experts_[s]], ++in_node_(node[r], experts_[s]);
    one_a_node_ = true;
    for (const std::int64_t n : in_node_.cells) one_a_node_ &= n > 0;
  }

  double carries(std::size_t e) const { return static_cast<double>(loads_[e]) / copies_[e]; }
  std::size_t hottest() const {
    std::size_t best = 0;
    for (std::size_t e = 1; e < copies_.size(); ++e)
      if (carries(e) > carries(best)) best = e;
    return best;
  }

  /// Gives an expert one more copy in a node, in the place of the node's coldest expert that can spare one. False where there is no place.
  bool expand(std::size_t hot, int node, std::span<const double> rank_load) {
    constexpr std::size_t kNone = static_cast<std::size_t>(-1);
    std::size_t victim = kNone, at = kNone;
    const auto better = [&](std::size_t slot, std::size_t rank) {
      const auto key = [&](std::size_t s, std::size_t r) {
        return std::tuple(carries(experts_[s]), static_cast<std::size_t>(experts_[s]), holds(r, hot), rank_load[r], s);
      };
      return victim == kNone || key(slot, rank) < key(victim, at);
    };
    each_slot(node, [&](std::size_t s, std::size_t r) {
      const std::size_t e = experts_[s];
      if (e != hot && (one_a_node_ ? in_node_(node, static_cast<std::int64_t>(e)) : copies_[e]) > 1 && better(s, r)) victim = s, at = r;
    });
    if (victim == kNone) return false;
    if (!holds(at, hot)) return replace(victim, at, hot), true;

    // The rank has the expert already: what lies on another rank makes room there, and goes to the victim's slot.
    std::size_t other = kNone, there = kNone;
    each_slot(node, [&](std::size_t s, std::size_t r) {
      if (holds(r, hot) || holds(at, experts_[s])) return;
      const auto key = [&](std::size_t q, std::size_t rank) { return std::tuple(rank_load[rank], rank, carries(experts_[q]), q); };
      if (other == kNone || key(s, r) < key(other, there)) other = s, there = r;
    });
    if (other == kNone) return false;
    replace(victim, at, experts_[other]);
    replace(other, there, hot);
    return true;
  }

  Placement placement() const { return Placement::from_experts(experts_, first_, static_cast<int>(loads_.size())); }

 private:
  std::size_t begin(std::size_t r) const { return static_cast<std::size_t>(first_[r]); }
  std::size_t end(std::size_t r) const { return static_cast<std::size_t>(first_[r + 1]); }
  bool holds(std::size_t r, std::size_t e) const { return std::find(&experts_[0] + begin(r), &experts_[0] + end(r), e) != &experts_[0] + end(r); }
  template <class Visit>
  void each_slot(int node, Visit visit) const {
    for (std::size_t r = 0; r < node_.size(); ++r)
      for (std::size_t s = begin(r); node_[r] == node && s < end(r); ++s) visit(s, r);
  }
  void replace(std::size_t slot, std::size_t rank, std::size_t by) {
    --copies_[experts_[slot]], --in_node_(node_[rank], experts_[slot]);
    experts_[slot] = static_cast<std::uint16_t>(by);
    ++copies_[by], ++in_node_(node_[rank], static_cast<std::int64_t>(by));
  }

  std::vector<std::uint16_t> experts_;
  std::vector<std::int32_t> first_;
  std::span<const std::int64_t> loads_;
  std::span<const int> node_;
  std::vector<int> copies_;
  Matrix<std::int64_t> in_node_;  // [nodes][E] copies
  bool one_a_node_;               // every node has every expert, and is to keep one
};

}  // namespace

/// FlexMoE (Nie et al., SIGMOD 2023) as LAER-MoE's authors re-implemented it: from the placement in force, up to `max_iteration` rounds in which the expert
/// whose copies carry most gets one copy more in each node, and the node's coldest expert that has a copy to spare loses one; where the rank has the hot expert
/// already, an expert of another rank changes places. A round stays if LAER-MoE's time model or max/min of the loads improves, and else is the last.
PlacementPolicy flexmoe(Params& p, const Shape* shape) {
  PlacementPolicy policy;
  policy.summary =
      "FlexMoE: step by step, the hottest expert gains a copy in each node and the coldest loses one, while modelled time or max/min of loads improves.";
  const LaerSettings s = read_laer(p, shape);
  const std::int64_t rounds = p.integer("max_iteration", "most rounds", 10, 0, 100'000);
  if (!p.usable()) return policy;
  policy.place = [=](const Problem& problem) {
    const std::vector<std::int32_t> first_slot = spread_slots(laer_slots(s, problem), problem.ranks);
    const std::vector<int> node = node_of_ranks(problem);
    std::vector<Placement> placements(problem.counts.size());
    parallel_for(static_cast<std::int64_t>(placements.size()), [&](std::int64_t l) {
      const auto layer = static_cast<std::size_t>(l);
      const std::vector<std::int64_t> loads = problem.loads(layer);
      const LaerTime time(problem, layer, s, node);
      Placement best = in_force(problem, layer, first_slot);
      best.share.clear();
      LaerTime::Estimate now = time(best);
      for (std::int64_t i = 0; i < rounds; ++i) {
        Table table(best, loads, node, problem.nodes);
        const std::size_t hot = table.hottest();
        bool changed = false;
        for (int n = 0; n < problem.nodes; ++n) changed |= table.expand(hot, n, now.load);
        if (!changed) break;
        Placement next = table.placement();
        LaerTime::Estimate then = time(next);
        if (then.seconds >= now.seconds && then.max_over_min() >= now.max_over_min()) break;
        best = std::move(next), now = std::move(then);
      }
      placements[layer] = std::move(best);
    });
    return placements;
  };
  return policy;
}

}  // namespace epsim::parts_placement
