#include "policies/optimum.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/check.h"
#include "policies/turns_bound.h"

namespace epsim {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
// Sums are taken in another order than a simulation takes them, and cuts in whole bytes/s: leave room for rounding.
constexpr double kRounding = 1 - 1e-8;

void raise(Certificate& bound, double value, std::string_view because) {
  if (value > bound.value) bound = {value, because};
}

/// The sum of the `count` largest.
std::int64_t largest(std::vector<std::int64_t> values, std::int64_t count) {
  const auto n = std::min(values.size(), static_cast<std::size_t>(count));
  std::ranges::nth_element(values, values.begin() + static_cast<std::ptrdiff_t>(n), std::greater());
  return std::accumulate(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(n), std::int64_t{0});
}

/// A rank or a node as the home of tokens and as a server of copies.
struct Place {
  std::int64_t copies = 0;  ///< of its own tokens
  std::int64_t keeps = 0;   ///< of these it can compute itself, at most
  std::int64_t slots = 0;
  double out = kInfinity, in = kInfinity;  ///< bytes/s of its cut
  std::int64_t leaves() const { return copies - keeps; }
};

/// One of the two exchanges.
struct Traffic {
  RowFor row_for = RowFor::token;
  double row_bytes = 0;
  std::int64_t top_k = 1, rank_slots = 1, node_slots = 1;  // the most of any rank or node

  /// Copies that one row may stand for, out of a home (or back to it).
  double copies_of_home_row() const { return copies(rank_slots, node_slots, top_k); }
  /// The same of rows that enter a serving rank or node (or leave it), counting the copies that it computes.
  double copies_at_rank(const Place& rank) const { return copies(rank.slots, rank.slots, rank.slots); }
  double copies_at_node(const Place& node) const { return copies(rank_slots, node.slots, node.slots); }

 private:
  double copies(std::int64_t on_rank, std::int64_t on_node, std::int64_t of_token) const {
    const std::int64_t most = row_for == RowFor::copy ? 1 : row_for == RowFor::rank ? on_rank : row_for == RowFor::node ? on_node : of_token;
    return static_cast<double>(std::max<std::int64_t>(1, std::min(most, top_k)));
  }
};

/// The earliest time at which servers could have computed `total` between them: `within(i, t)` is what server i can compute by t. Rises to `late`, by which they surely can.
template <class Within>
double earliest(std::size_t servers, double total, Within&& within) {
  const auto enough = [&](double t) {
    double sum = 0;
    for (std::size_t i = 0; i < servers && sum < total; ++i) sum += within(i, t);
    return sum >= total;
  };
  if (enough(0)) return 0;
  double late = 1e-9, early = 0;
  while (!enough(late)) {
    if (late > 1e12) return 0;  // nothing bounds it
    early = late, late *= 2;
  }
  for (int i = 0; i < 60 && late - early > 1e-12 * late; ++i) {
    const double middle = (early + late) / 2;
    (enough(middle) ? late : early) = middle;
  }
  return early;
}

class Optimum {
 public:
  Optimum(const Demand& d, const Topology& topology, const MachineCuts& cuts) : d_(d), topology_(topology), cuts_(cuts) {
    ensure(static_cast<int>(d.slots.size()) == topology.ranks() && (d.shared_seconds.empty() || d.shared_seconds.size() == d.slots.size()) && (d.speed.empty() || d.speed.size() == d.slots.size()),
           "a demand is for the ranks of the machine");
    loads_.resize(static_cast<std::size_t>(d.kept.columns));
    for (std::int64_t r = 0; r < d.kept.rows; ++r)
      for (std::int64_t e = 0; e < d.kept.columns; ++e) loads_[static_cast<std::size_t>(e)] += d.kept(r, e);
    total_ = static_cast<double>(std::accumulate(loads_.begin(), loads_.end(), std::int64_t{0}));
    sources_known_ = d.kept.rows == topology.ranks();
    if (sources_known_) find_places();
    dispatch_ = traffic(d.dispatch_row_for, d.dispatch_row);
    combine_ = traffic(d.combine_row_for, d.combine_row);
  }

  OptimumBounds run() {
    OptimumBounds out;
    out.load = load_bound(loads_, d_.slots);
    if (total_ > 0 && sources_known_) {
      out.dispatch_s = stage(dispatch_, true);
      out.combine_s = stage(combine_, false);
    }
    if (d_.expert_seconds) layer(out);
    for (Certificate* c : {&out.dispatch_s, &out.combine_s, &out.layer_s}) c->value *= kRounding;
    return out;
  }

 private:
  void find_places() {
    ranks_.resize(d_.slots.size());
    nodes_.resize(static_cast<std::size_t>(topology_.nodes()));
    for (std::size_t r = 0; r < ranks_.size(); ++r) ranks_[r] = place({&d_.slots[r], 1}, std::vector<Rank>{Rank(static_cast<std::int64_t>(r))}, cuts_.rank_out[r], cuts_.rank_in[r]);
    for (const Node n : ids<Node>(topology_.nodes())) {
      std::vector<std::int32_t> slots;
      for (const Rank r : topology_.ranks_of(n)) slots.push_back(d_.slots[static_cast<std::size_t>(r)]);
      nodes_[static_cast<std::size_t>(n)] = place(slots, topology_.ranks_of(n), cuts_.node_out[static_cast<std::size_t>(n)], cuts_.node_in[static_cast<std::size_t>(n)]);
    }
  }
  Place place(std::span<const std::int32_t> slots, std::span<const Rank> ranks, double out, double in) const {
    std::vector<std::int64_t> wanted(static_cast<std::size_t>(d_.kept.columns));
    for (const Rank r : ranks)
      for (std::int64_t e = 0; e < d_.kept.columns; ++e) wanted[static_cast<std::size_t>(e)] += d_.kept(r, e);
    Place p;
    p.slots = std::accumulate(slots.begin(), slots.end(), std::int64_t{0});
    p.copies = std::accumulate(wanted.begin(), wanted.end(), std::int64_t{0});
    p.keeps = largest(std::move(wanted), p.slots);
    p.out = out, p.in = in;
    return p;
  }
  Traffic traffic(RowFor row_for, Bytes row_bytes) const {
    Traffic t{row_for, static_cast<double>(row_bytes), d_.top_k};
    for (const Place& r : ranks_) t.rank_slots = std::max(t.rank_slots, r.slots);
    for (const Place& n : nodes_) t.node_slots = std::max(t.node_slots, n.slots);
    return t;
  }

  /// Seconds that what a home cannot keep takes out of it (dispatch) or into it (combine).
  double at_home(const Place& home, const Traffic& t, bool dispatch) const {
    return std::ceil(static_cast<double>(home.leaves()) / t.copies_of_home_row()) * t.row_bytes / (dispatch ? home.out : home.in);
  }
  /// Copies that a server can compute if what enters it (or leaves it) may take `seconds`.
  static double served(const Place& server, double copies_of_row, double row_bytes, double rate, double seconds) {
    if (server.slots == 0) return 0;
    return row_bytes > 0 && rate < kInfinity ? static_cast<double>(server.keeps) + seconds * rate / row_bytes * copies_of_row : kInfinity;
  }

  Certificate stage(const Traffic& t, bool dispatch) const {
    Certificate bound;
    for (const Place& r : ranks_) raise(bound, at_home(r, t, dispatch), "home rank");
    for (const Place& n : nodes_) raise(bound, at_home(n, t, dispatch), "home node");
    raise(bound, earliest(ranks_.size(), total_, [&](std::size_t i, double s) { return served(ranks_[i], t.copies_at_rank(ranks_[i]), t.row_bytes, dispatch ? ranks_[i].in : ranks_[i].out, s); }), "serving ranks");
    raise(bound, earliest(nodes_.size(), total_, [&](std::size_t i, double s) { return served(nodes_[i], t.copies_at_node(nodes_[i]), t.row_bytes, dispatch ? nodes_[i].in : nodes_[i].out, s); }), "serving nodes");
    return bound;
  }

  double speed(std::size_t rank) const { return d_.speed.empty() ? 1 : d_.speed[rank]; }
  double computes(std::size_t rank, std::int64_t copies) const { return copies > 0 ? d_.expert_seconds(copies) / speed(rank) : 0; }
  double shares(std::size_t rank) const { return d_.shared_seconds.empty() ? 0 : d_.shared_seconds[rank]; }

  /// Seconds until a rank is done with `copies`: what it cannot keep comes first and goes after, unless its computing alone takes longer.
  double busy(std::size_t rank, std::int64_t copies) const {
    double enters = 0, leaves = 0;
    if (sources_known_ && copies > ranks_[rank].keeps) {
      const auto foreign = static_cast<double>(copies - ranks_[rank].keeps);
      if (dispatch_.row_bytes > 0) enters = cuts_.latency_in[rank] + std::ceil(foreign / dispatch_.copies_at_rank(ranks_[rank])) * dispatch_.row_bytes / ranks_[rank].in;
      if (combine_.row_bytes > 0) leaves = cuts_.latency_out[rank] + std::ceil(foreign / combine_.copies_at_rank(ranks_[rank])) * combine_.row_bytes / ranks_[rank].out;
    }
    const double computed = computes(rank, copies);
    return std::max(d_.experts_wait ? enters + computed + leaves : std::max({enters, computed, leaves}), shares(rank) + computed);
  }
  /// Copies that a rank can be done with by a time.
  double done_by(std::size_t rank, double seconds) const {
    if (d_.slots[rank] == 0) return 0;
    std::int64_t can = 0, cannot = static_cast<std::int64_t>(total_) + 1;
    while (cannot - can > 1) {
      const std::int64_t middle = can + (cannot - can) / 2;
      (busy(rank, middle) <= seconds ? can : cannot) = middle;
    }
    return static_cast<double>(can);
  }

  /// Seconds that some rank computes, of the experts that `counts` names: slots beyond one an expert replicate at most as many of them, and those that are left lie whole on one rank each. (Whichever are replicated, the j-th
  /// slowest of the others is no quicker than the j-th slowest once the slowest are taken out.)
  template <class Counts>
  double pigeonhole(double fastest, Counts&& counts) const {
    std::int64_t ranks = 0, slots = 0;
    for (const std::int32_t s : d_.slots) ranks += s > 0, slots += s;
    std::vector<double> seconds;
    for (std::size_t e = 0; e < loads_.size(); ++e)
      if (loads_[e] > 0 && counts(e)) seconds.push_back(d_.expert_seconds(loads_[e]));
    std::ranges::sort(seconds, std::greater());
    const std::int64_t redundant = std::max<std::int64_t>(0, slots - static_cast<std::int64_t>(loads_.size()));
    seconds.erase(seconds.begin(), seconds.begin() + std::min<std::int64_t>(redundant, static_cast<std::int64_t>(seconds.size())));
    return seconds.empty() ? 0 : packing_bound(std::move(seconds), static_cast<int>(ranks)).value / fastest;
  }

  void layer(OptimumBounds& out) const {
    Certificate& bound = out.layer_s;
    double speeds = 0;
    for (std::size_t r = 0; r < d_.slots.size(); ++r) {
      raise(bound, shares(r), "shared expert");
      speeds += speed(r);
    }
    raise(bound, d_.shared_anywhere_s / speeds, "shared expert");
    if (total_ == 0) return;
    if (d_.experts_wait && d_.all_ways && sources_known_ && !cuts_.there.empty())
      if (const Certificate turns = turns_bound(d_, cuts_); turns.value > bound.value) bound = turns;
    raise(bound, earliest(d_.slots.size(), total_, [&](std::size_t r, double s) { return done_by(r, s); }), "busiest rank");
    double all = d_.shared_anywhere_s, quickest = kInfinity, fastest = 0;
    for (const std::int64_t load : loads_) all += load > 0 ? d_.expert_seconds(load) : 0;
    for (std::size_t r = 0; r < d_.slots.size(); ++r) {
      all += shares(r) * speed(r);
      fastest = std::max(fastest, speed(r));
      if (d_.slots[r] > 0) quickest = std::min(quickest, busy(r, static_cast<std::int64_t>(out.load.value)));
    }
    raise(bound, quickest, "busiest rank");
    raise(bound, all / speeds, "computing");
    raise(bound, pigeonhole(fastest, [](std::size_t) { return true; }), "pigeonhole");
    if (!sources_known_) return;

    // Of experts that several ranks' tokens want, one that is not replicated has rows to wait for and results to send, wherever it is.
    std::vector<std::int64_t> homes_of(loads_.size());
    for (std::int64_t r = 0; r < d_.kept.rows; ++r)
      for (std::int64_t e = 0; e < d_.kept.columns; ++e) homes_of[static_cast<std::size_t>(e)] += d_.kept(r, e) > 0;
    if (const double computing = pigeonhole(fastest, [&](std::size_t e) { return homes_of[e] > 1; }); computing > 0) {
      const auto way = [&](const Traffic& t, const std::vector<double>& latency, double Place::*rate) {
        double quickest_s = kInfinity;
        for (std::size_t r = 0; r < ranks_.size(); ++r) quickest_s = std::min(quickest_s, latency[r] + t.row_bytes / (ranks_[r].*rate));
        return t.row_bytes > 0 ? quickest_s : 0;
      };
      raise(bound, way(dispatch_, cuts_.latency_in, &Place::in) + computing + way(combine_, cuts_.latency_out, &Place::out), "pigeonhole");
    }

    // What precedes or follows a stage at a home: the way of one row of the other stage, and a call of one row somewhere.
    const double one_row = d_.expert_seconds(1) / fastest;
    const auto least = [](const std::vector<double>& v) { return *std::ranges::min_element(v); };
    const auto homes = [&](const Place& home, double latency_out, double latency_in, std::string_view because) {
      if (home.leaves() == 0) return;
      const double there = dispatch_.row_bytes > 0 ? latency_out : 0, back = combine_.row_bytes > 0 ? latency_in : 0;
      raise(bound, there + at_home(home, dispatch_, true) + one_row + back + combine_.row_bytes / home.in, because);
      raise(bound, there + dispatch_.row_bytes / home.out + one_row + back + at_home(home, combine_, false), because);
    };
    for (std::size_t r = 0; r < ranks_.size(); ++r) homes(ranks_[r], cuts_.latency_out[r], cuts_.latency_in[r], "home rank");
    const double out_least = least(cuts_.latency_out), in_least = least(cuts_.latency_in);
    for (const Place& n : nodes_) homes(n, out_least, in_least, "home node");
    // Some node is as busy as the stage bound says, and something is computed after the last row has come, and before the first result leaves.
    for (const auto& [t, dispatch] : {std::pair{&dispatch_, true}, {&combine_, false}}) {
      if (t->row_bytes == 0 || dispatch_.row_bytes == 0 || combine_.row_bytes == 0) continue;
      const double stage_s = earliest(nodes_.size(), total_, [&](std::size_t i, double s) { return served(nodes_[i], t->copies_at_node(nodes_[i]), t->row_bytes, dispatch ? nodes_[i].in : nodes_[i].out, s); });
      if (stage_s > 0) raise(bound, out_least + stage_s + one_row + in_least, "serving nodes");
    }
  }

  const Demand& d_;
  const Topology& topology_;
  const MachineCuts& cuts_;
  std::vector<std::int64_t> loads_;  // [E]
  double total_ = 0;
  bool sources_known_ = false;
  std::vector<Place> ranks_, nodes_;
  Traffic dispatch_, combine_;
};

}  // namespace

OptimumBounds optimum_bounds(const Demand& demand, const Topology& topology, const MachineCuts& cuts) { return Optimum(demand, topology, cuts).run(); }

}  // namespace epsim
