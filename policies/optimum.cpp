#include "policies/optimum.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <queue>

#include "base/check.h"
#include "base/parallel.h"
#include "topology/bisection.h"

namespace epsim {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
// Sums are taken in another order than a simulation takes them, and cuts in whole bytes/s: leave room for rounding.
constexpr double kRounding = 1 - 1e-8;

void raise(Certificate& bound, double value, std::string_view because) {
  if (value > bound.value) bound = {value, because};
}

constexpr int kMostWays = 1024;         // ranks between each two of which ways are found: they grow as the square
constexpr std::int64_t kFarthest = 64;  // homes of a rank that are looked at for what an expert waits for there
constexpr int kHomes = 8;               // of an expert that its wait is reckoned with, the farthest
constexpr std::int64_t kSplits = 1024;  // copies of an expert up to which all ways to split them are tried

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
    for (std::size_t r = 0; r < d.slots.size(); ++r) {
      slots_ += d.slots[r], serving_ += d.slots[r] > 0 ? 1 : 0;
      if (d.slots[r] > 0) fastest_ = std::max(fastest_, speed(r)), slowest_ = std::min(slowest_, speed(r)), speeds_ += speed(r);
    }
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

  /// Seconds until rows have come to a rank, or results have gone back: all of them, and the one with the longest way.
  struct Wait {
    double all = 0, latency = 0;
  };
  /// Of one expert: `homes` begins with the farthest.
  Wait wait_of(std::int64_t e, std::size_t server, std::span<const std::int32_t> homes, const Matrix<double>& ways, double row_seconds) const {
    Wait wait;
    double rows = 0;
    int looked_at = 0;
    for (const std::int32_t h : homes) {
      const std::int64_t here = kept_by_expert_(e, h);
      if (here == 0 || static_cast<std::size_t>(h) == server) continue;
      const double way = ways(h, static_cast<std::int64_t>(server));
      if (looked_at == 0) wait.latency = way;
      rows += static_cast<double>(here);
      wait.all = std::max(wait.all, way + rows * row_seconds);
      if (++looked_at == kHomes) break;  // others could only make it longer
    }
    return wait;
  }
  /// What experts with copies wait for at least, before they are computed and after, on whatever rank they lie whole.
  struct Waits {
    std::vector<double> in_all, latency;  ///< ascending: with the time that their rows take, and without
  };
  Waits waits() {
    const std::int64_t ranks = d_.kept.rows, experts = d_.kept.columns;
    kept_by_expert_ = Matrix<std::int64_t>(experts, ranks);
    for (std::int64_t r = 0; r < ranks; ++r)
      for (std::int64_t e = 0; e < experts; ++e) kept_by_expert_(e, r) = d_.kept(r, e);
    Waits least{std::vector<double>(static_cast<std::size_t>(experts), kInfinity), std::vector<double>(static_cast<std::size_t>(experts), kInfinity)};
    for (std::size_t s = 0; s < ranks_.size(); ++s) {
      if (d_.slots[s] == 0) continue;
      const auto at = static_cast<std::int64_t>(s);
      const std::span<const std::int32_t> far = cuts_.farthest_there.row(at), far_back = cuts_.farthest_back.row(at);
      for (std::size_t e = 0; e < loads_.size(); ++e) {
        if (loads_[e] == 0) continue;
        const auto expert = static_cast<std::int64_t>(e);
        const Wait there = d_.dispatch_row > 0 ? wait_of(expert, s, far, cuts_.there, dispatch_.row_bytes / ranks_[s].in) : Wait{};
        const Wait back = d_.combine_row > 0 ? wait_of(expert, s, far_back, cuts_.back, combine_.row_bytes / ranks_[s].out) : Wait{};
        least.in_all[e] = std::min(least.in_all[e], there.all + back.all);
        least.latency[e] = std::min(least.latency[e], there.latency + back.latency);
      }
    }
    for (std::vector<double>* w : {&least.in_all, &least.latency}) {
      std::erase(*w, kInfinity);
      std::ranges::sort(*w);
    }
    return least;
  }
  /// Seconds that one more replica of an expert adds to all that ranks compute, at least.
  double replica_seconds() const {
    const std::int64_t most = *std::ranges::max_element(loads_);
    if (most > kSplits) return 0;
    std::vector<double> of(static_cast<std::size_t>(most) + 1);
    for (std::int64_t n = 1; n <= most; ++n) of[static_cast<std::size_t>(n)] = d_.expert_seconds(n);
    double least = most < 2 ? 1.0 : of[1];  // a single copy cannot be split: any large number
    for (std::size_t n = 2; n < of.size(); ++n)
      for (std::size_t part = 1; 2 * part <= n; ++part) least = std::min(least, of[part] + of[n - part] - of[n]);
    return std::max(0.0, least);
  }
  /// Seconds that an expert's rows keep the links of ranks busy, both ways, by the number of its replicas, from 1: all its copies but those that its replicas' ranks have themselves, and but those that share a row with another
  /// copy there; of each pair of experts that share rows, either is credited with a half (`by_pairs`), or every row stands for as many copies as it can.
  std::vector<double> row_seconds(std::size_t e, bool by_pairs) const {
    const auto experts = static_cast<std::size_t>(d_.kept.columns), most = static_cast<std::size_t>(std::min(serving_, 1 + slots_ - d_.kept.columns));
    const auto partners = static_cast<std::size_t>(dispatch_.rank_slots - 1);
    std::vector<std::int64_t> homes(kept_by_expert_.row(static_cast<std::int64_t>(e)).begin(), kept_by_expert_.row(static_cast<std::int64_t>(e)).end()), shared;
    std::ranges::sort(homes, std::greater());
    if (by_pairs) {
      shared.assign(d_.together.row(static_cast<std::int64_t>(e)).begin(), d_.together.row(static_cast<std::int64_t>(e)).end());
      shared[e] = 0;
      std::ranges::sort(shared, std::greater());
    }
    double in = 0, out = 0;
    for (const Place& r : ranks_) in = std::max(in, r.in), out = std::max(out, r.out);
    std::vector<double> seconds;
    auto foreign = static_cast<double>(loads_[e]);
    double pairs = 0;
    for (std::size_t a = 1; a <= std::max<std::size_t>(1, most); ++a) {
      foreign -= static_cast<double>(a <= homes.size() ? homes[a - 1] : 0);
      for (std::size_t i = (a - 1) * partners; by_pairs && i < std::min(a * partners, experts); ++i) pairs += static_cast<double>(shared[i]);
      const auto rows = [&](const Traffic& t) {
        if (t.row_for == RowFor::copy) return foreign;
        return by_pairs ? std::max(0.0, foreign - pairs / 2) : foreign / static_cast<double>(std::max<std::int64_t>(1, std::min<std::int64_t>(dispatch_.rank_slots, d_.top_k)));
      };
      seconds.push_back((dispatch_.row_bytes > 0 ? rows(dispatch_) * dispatch_.row_bytes / in : 0) + (combine_.row_bytes > 0 ? rows(combine_) * combine_.row_bytes / out : 0));
    }
    return seconds;
  }
  void raise_by_waits(Certificate& bound) {
    const Waits wait = waits();
    const auto active = static_cast<std::int64_t>(wait.in_all.size()), spare = slots_ - static_cast<std::int64_t>(loads_.size());
    const double one_row = d_.expert_seconds(1) / fastest_;

    const std::int64_t calls = (active + serving_ - 1) / serving_;
    const std::int64_t waiting = calls > 1 ? calls * (active - (calls - 1) * serving_) : active - spare;
    if (waiting > 0) {
      const bool may_call_more = *std::ranges::max_element(d_.slots) > calls;
      const double in_turn = static_cast<double>(calls) * one_row + wait.in_all[static_cast<std::size_t>(waiting - 1)];
      raise(bound, may_call_more ? std::min(in_turn, static_cast<double>(calls + 1) * one_row) : in_turn, "calls and waits");
    }

    double compute = 0;
    std::vector<std::vector<double>> by_pairs, by_rows;
    for (std::size_t e = 0; e < loads_.size(); ++e) {
      if (loads_[e] == 0) continue;
      compute += d_.expert_seconds(loads_[e]);
      by_rows.push_back(row_seconds(e, false));
      if (d_.together.rows > 0) by_pairs.push_back(row_seconds(e, true));
    }
    const double replica = replica_seconds();
    // The least over numbers of replicas, expert by expert, where one more costs so much.
    const auto sum = [&](const std::vector<std::vector<double>>& rows, double each) {
      double all = compute;
      for (const std::vector<double>& of : rows) {
        double least = kInfinity;
        for (std::size_t a = 0; a < of.size(); ++a) least = std::min(least, static_cast<double>(a) * each + slowest_ * of[a]);
        all += least;
      }
      return all;
    };
    const auto with_rows = [&](double each) { return by_pairs.empty() ? sum(by_rows, each) : std::max(sum(by_rows, each), sum(by_pairs, each)); };
    raise(bound, with_rows(replica) / speeds_, "all in turn");
    for (std::int64_t shorter = 0; shorter < active; ++shorter) {
      const double each = wait.latency[static_cast<std::size_t>(shorter)];
      if (shorter > 0 && each == wait.latency[static_cast<std::size_t>(shorter - 1)]) continue;
      // Ranks that are not in use have nothing to wait for; what is to be shared, if it is not negative, is then more for each of the others.
      const double shared = with_rows(replica - 2 * fastest_ * each) - fastest_ * each * static_cast<double>(shorter);
      if (shared >= 0) raise(bound, each + shared / speeds_, "all in turn");
    }
  }

  void layer(OptimumBounds& out) {
    if (d_.experts_wait && d_.all_ways && cuts_.there.rows > 0 && sources_known_ && total_ > 0) raise_by_waits(out.layer_s);
    layer_without_waits(out);
  }
  void layer_without_waits(OptimumBounds& out) const {
    Certificate& bound = out.layer_s;
    double speeds = 0;
    for (std::size_t r = 0; r < d_.slots.size(); ++r) {
      raise(bound, shares(r), "shared expert");
      speeds += speed(r);
    }
    raise(bound, d_.shared_anywhere_s / speeds, "shared expert");
    if (total_ == 0) return;
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
  std::int64_t slots_ = 0, serving_ = 0;  // serving: ranks that have slots
  double fastest_ = 0, slowest_ = kInfinity, speeds_ = 0;
  Matrix<std::int64_t> kept_by_expert_;  // [E][R]
  bool sources_known_ = false;
  std::vector<Place> ranks_, nodes_;
  Traffic dispatch_, combine_;
};

/// The least latency of any way over links between each rank and a rank of another node: into it or out of it.
std::vector<double> far_latencies(const Topology& topology, bool into) {
  // Shortest ways from all ranks at once; a vertex keeps the two that are shortest among ways from different nodes.
  struct Way {
    double seconds;
    std::int32_t vertex, node;
    bool operator>(const Way& o) const { return seconds > o.seconds; }
  };
  const std::span<const Vertex> vertices = topology.vertices();
  std::vector<std::vector<std::int32_t>> links_at(vertices.size());
  for (std::size_t l = 0; l < topology.links().size(); ++l) links_at[static_cast<std::size_t>(into ? topology.links()[l].from : topology.links()[l].to)].push_back(static_cast<std::int32_t>(l));
  std::vector<std::vector<Way>> found(vertices.size());
  std::priority_queue<Way, std::vector<Way>, std::greater<>> open;
  for (std::size_t v = 0; v < vertices.size(); ++v)
    if (vertices[v].rank.valid()) open.push({0, static_cast<std::int32_t>(v), topology.node_of(vertices[v].rank).value});
  while (!open.empty()) {
    const Way way = open.top();
    open.pop();
    std::vector<Way>& here = found[static_cast<std::size_t>(way.vertex)];
    if (here.size() == 2 || (here.size() == 1 && here.front().node == way.node)) continue;
    here.push_back(way);
    for (const std::int32_t l : links_at[static_cast<std::size_t>(way.vertex)]) {
      const Link& link = topology.links()[static_cast<std::size_t>(l)];
      open.push({way.seconds + link.latency.seconds(), into ? link.to : link.from, way.node});
    }
  }
  std::vector<double> seconds(static_cast<std::size_t>(topology.ranks()), kInfinity);
  for (std::size_t v = 0; v < vertices.size(); ++v)
    if (vertices[v].rank.valid())
      for (const Way& way : found[v])
        if (way.node != topology.node_of(vertices[v].rank).value) seconds[static_cast<std::size_t>(vertices[v].rank)] = way.seconds;
  return seconds;
}

/// The latency of the way between each two ranks, hop by hop the shorter of both directions: results may come back along it.
Matrix<double> ways(const Topology& topology, const Exchange& exchange, const MachineCuts& cuts) {
  const std::int64_t ranks = topology.ranks();
  Matrix<double> there(ranks, ranks);
  const auto any = [&](Rank s, Rank d) {
    const double near = std::max(cuts.latency_out[s], cuts.latency_in[d]);
    return topology.node_of(s) == topology.node_of(d) ? near : std::max({near, cuts.far_out[s], cuts.far_in[d]});
  };
  const Journey journey = exchange.journey ? exchange.journey(topology) : Journey{};
  parallel_for(ranks, [&](std::int64_t i) {
    const Rank s(i);
    std::vector<bool> known(static_cast<std::size_t>(ranks));
    known[static_cast<std::size_t>(i)] = true;
    std::vector<Rank> open;
    for (const Rank d : ids<Rank>(ranks)) {
      if (!exchange.journey) {
        if (s != d) there(i, d.value) = any(s, d);
        continue;
      }
      for (Rank at = d; !known[static_cast<std::size_t>(at)]; at = journey.last(s, at).from) open.push_back(at);
      for (; !open.empty(); open.pop_back()) {
        const Rank at = open.back(), from = journey.last(s, at).from;
        there(i, at.value) = there(i, from.value) + std::min(topology.latency(from, at), topology.latency(at, from)).seconds();
        known[static_cast<std::size_t>(at)] = true;
      }
    }
  });
  return there;
}

/// For each serving rank the home ranks with the longest ways, longest first: [R][at most kFarthest].
Matrix<std::int32_t> farthest(const Matrix<double>& ways) {
  Matrix<std::int32_t> homes(ways.columns, std::min(ways.rows, kFarthest));
  parallel_for(ways.columns, [&](std::int64_t s) {
    std::vector<std::int32_t> all(static_cast<std::size_t>(ways.rows));
    std::iota(all.begin(), all.end(), 0);
    const auto longer = [&](std::int32_t a, std::int32_t b) { return ways(a, s) != ways(b, s) ? ways(a, s) > ways(b, s) : a < b; };
    std::partial_sort(all.begin(), all.begin() + homes.columns, all.end(), longer);
    std::copy_n(all.begin(), homes.columns, homes.row(s).begin());
  });
  return homes;
}

}  // namespace

MachineCuts cuts_of(const Topology& topology, const Exchange& exchange) {
  const auto ranks = static_cast<std::size_t>(topology.ranks()), nodes = static_cast<std::size_t>(topology.nodes());
  MachineCuts cuts;
  cuts.rank_out.assign(ranks, 0), cuts.rank_in.assign(ranks, 0);
  // The first and the last link of any path; where a link joins two ranks, it is both.
  std::vector<double> first(ranks, kInfinity), last(ranks, kInfinity);
  double any_first = kInfinity, any_last = kInfinity;
  const auto rank_at = [&](std::int32_t v) { return topology.vertices()[static_cast<std::size_t>(v)].rank; };
  for (const Link& link : topology.links()) {
    const Rank from = rank_at(link.from), to = rank_at(link.to);
    if (from.valid()) cuts.rank_out[static_cast<std::size_t>(from)] += link.bandwidth;
    if (to.valid()) cuts.rank_in[static_cast<std::size_t>(to)] += link.bandwidth;
    if (from.valid()) any_first = std::min(any_first, link.latency.seconds());
    if (to.valid()) any_last = std::min(any_last, link.latency.seconds());
  }
  for (const Link& link : topology.links()) {
    const Rank from = rank_at(link.from), to = rank_at(link.to);
    if (from.valid()) first[static_cast<std::size_t>(from)] = std::min(first[static_cast<std::size_t>(from)], link.latency.seconds() + (to.valid() ? 0 : any_last));
    if (to.valid()) last[static_cast<std::size_t>(to)] = std::min(last[static_cast<std::size_t>(to)], link.latency.seconds() + (from.valid() ? 0 : any_first));
  }
  cuts.latency_out = std::move(first), cuts.latency_in = std::move(last);
  cuts.far_out = far_latencies(topology, false), cuts.far_in = far_latencies(topology, true);
  if (topology.ranks() <= kMostWays) {
    cuts.there = ways(topology, exchange, cuts);
    cuts.back = cuts.there;
    for (std::int64_t h = 0; h < cuts.back.rows; ++h)
      for (std::int64_t s = 0; s < cuts.back.columns; ++s) cuts.back(h, s) = std::min(cuts.there(h, s), cuts.there(s, h));
    cuts.farthest_there = farthest(cuts.there), cuts.farthest_back = farthest(cuts.back);
  }
  cuts.node_out.assign(nodes, kInfinity), cuts.node_in.assign(nodes, kInfinity);
  if (nodes < 2) return cuts;
  parallel_for(static_cast<std::int64_t>(nodes), [&](std::int64_t n) {
    std::vector<bool> inside(ranks);
    for (const Rank r : topology.ranks_of(Node(n))) inside[static_cast<std::size_t>(r)] = true;
    cuts.node_out[static_cast<std::size_t>(n)] = cut_bandwidth(topology, inside);
    inside.flip();
    cuts.node_in[static_cast<std::size_t>(n)] = cut_bandwidth(topology, inside);
  });
  return cuts;
}

OptimumBounds optimum_bounds(const Demand& demand, const Topology& topology, const MachineCuts& cuts) { return Optimum(demand, topology, cuts).run(); }

}  // namespace epsim
