#include "policies/turns_bound.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "policies/concave.h"
#include "policies/crossing_bound.h"

namespace epsim {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr int kBisections = 24;         // of times whose refuting takes long
constexpr std::int64_t kSplits = 4096;  // copies of an expert up to which all ways to split them are tried

/// The sum of the first `count`, or of all.
double sum_of_first(const std::vector<double>& values, std::int64_t count) {
  const auto n = std::clamp<std::int64_t>(count, 0, static_cast<std::int64_t>(values.size()));
  return std::accumulate(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(n), 0.0);
}

/// What an expert takes, in seconds on one rank.
struct Expert {
  std::int64_t copies = 0;
  double compute = 0;              ///< one call, at speed 1
  std::vector<double> shared;      ///< by slots that hold it, from 1: copies of it that share a row with another's, at most, a half of each pair
  std::vector<double> alone;       ///< by slots that hold it: of the fullest of them, were nothing else on it
  double wait = 0;                 ///< of a rank that holds it whole: until its rows have come, and its results have left
};

/// Rows to ranks, or results from them, that come from an approach's latency away.
struct Side {
  double latency = 0, row_seconds = 0;       ///< on the rank with the widest links
  std::vector<std::vector<double>> copies;   ///< by expert and slots that hold it, from 1: copies with so long a way, at least
  bool may_share = false, empty = false;     ///< rows may stand for several copies; they have no bytes

  /// Seconds that these keep links busy, at least.
  double seconds(std::size_t e, std::size_t holders, const Expert& expert) const {
    return row_seconds * std::max(0.0, copies[e][holders - 1] - (may_share ? expert.shared[holders - 1] : 0));
  }
  bool far(std::size_t e) const { return empty || copies[e].front() > 0; }
};

class Turns {
 public:
  Turns(const Demand& d, const MachineCuts& cuts) : d_(d), cuts_(cuts) {
    for (std::size_t r = 0; r < d.slots.size(); ++r) {
      if (d.slots[r] == 0) continue;
      const double speed = d.speed.empty() ? 1 : d.speed[r];
      serving_.push_back(r);
      slots_ += d.slots[r], fullest_ = std::max<std::int64_t>(fullest_, d.slots[r]);
      fastest_ = std::max(fastest_, speed), slowest_ = std::min(slowest_, speed), speeds_ += speed;
    }
    spare_ = std::max<std::int64_t>(0, slots_ - d.kept.columns);
    most_ = static_cast<std::size_t>(std::min(ranks(), 1 + spare_));
    for (std::int64_t e = 0; e < d.kept.columns; ++e) {
      std::vector<std::int64_t> homes(static_cast<std::size_t>(d.kept.rows));
      for (std::int64_t r = 0; r < d.kept.rows; ++r) homes[static_cast<std::size_t>(r)] = d.kept(r, e);
      Expert expert;
      expert.copies = std::accumulate(homes.begin(), homes.end(), std::int64_t{0});
      if (expert.copies == 0) continue;
      expert.compute = d.expert_seconds(expert.copies);
      share_rows(expert, e);
      experts_.push_back(std::move(expert)), homes_.push_back(std::move(homes));
    }
    if (experts_.empty()) return;
    const std::vector<Matrix<std::int64_t>> near_there = near_copies(cuts.there), near_back = near_copies(cuts.back);
    in_ = sides(cuts.there, near_there, d.dispatch_row, d.dispatch_row_for);
    out_ = sides(cuts.back, near_back, d.combine_row, d.combine_row_for);
    find_waits(near_there, near_back);
    for (std::size_t e = 0; e < experts_.size(); ++e) find_alone(e);
    replica_ = replica_seconds();
  }

  Certificate run() const {
    Certificate bound;
    if (experts_.empty()) return bound;
    const auto raise = [&bound](double value, std::string_view because) {
      if (value > bound.value) bound = {value, because};
    };
    raise(calls_and_waits(), "calls and waits");
    raise(company(), "company");
    for (std::size_t i = 0; i < std::max(in_.size(), out_.size()); ++i) {  // by rising latency: what comes from afar goes back there
      const Side &in = in_[std::min(i, in_.size() - 1)], &out = out_[std::min(i, out_.size() - 1)];
      raise(all_in_turn(in, out), "all in turn");
      raise(calls_in_turn(in, out), "calls and waits");
      raise(company(in, out), "company");
    }
    if (cuts_.crossing) raise(crossing_in_turn(*cuts_.crossing), "crossing in turn");
    return bound;
  }

 private:
  std::int64_t ranks() const { return static_cast<std::int64_t>(serving_.size()); }
  std::int64_t active() const { return static_cast<std::int64_t>(experts_.size()); }
  double one_row() const { return d_.expert_seconds(1) / fastest_; }

  void share_rows(Expert& expert, std::int64_t e) const {
    const auto partners = static_cast<std::size_t>(fullest_ - 1);
    if (d_.together.rows == 0) {
      // No more than a row can stand for.
      const auto row = static_cast<double>(std::max<std::int64_t>(1, std::min<std::int64_t>(fullest_, d_.top_k)));
      expert.shared.assign(most_, static_cast<double>(expert.copies) * (1 - 1 / row));
      return;
    }
    std::vector<std::int64_t> pairs(d_.together.row(e).begin(), d_.together.row(e).end());
    pairs[static_cast<std::size_t>(e)] = 0;
    std::ranges::sort(pairs, std::greater());
    double shared = 0;
    for (std::size_t a = 0; a < most_; ++a) {
      for (std::size_t i = a * partners; i < std::min((a + 1) * partners, pairs.size()); ++i) shared += static_cast<double>(pairs[i]) / 2;
      expert.shared.push_back(shared);
    }
  }

  /// Copies from homes nearer to a rank than an approach, by expert and serving rank.
  std::vector<Matrix<std::int64_t>> near_copies(const std::vector<Approach>& approaches) const {
    std::vector<Matrix<std::int64_t>> all;
    for (const Approach& approach : approaches) {
      Matrix<std::int64_t>& near = all.emplace_back(active(), ranks());
      for (std::int64_t e = 0; e < near.rows; ++e)
        for (std::int64_t i = 0; i < near.columns; ++i)
          for (const std::int32_t h : approach.nearer[serving_[static_cast<std::size_t>(i)]]) near(e, i) += homes_[static_cast<std::size_t>(e)][static_cast<std::size_t>(h)];
    }
    return all;
  }
  std::vector<Side> sides(const std::vector<Approach>& approaches, const std::vector<Matrix<std::int64_t>>& near, Bytes row_bytes, RowFor row_for) const {
    if (row_bytes == 0 || approaches.empty()) return {Side{0, 0, std::vector(experts_.size(), std::vector<double>(most_)), false, true}};
    std::vector<Side> all;
    for (std::size_t i = 0; i < approaches.size(); ++i) {
      const Approach& approach = approaches[i];
      double widest = 0;
      for (const std::size_t r : serving_) widest = std::max(widest, approach.rates[r]);
      if (widest == 0) continue;
      std::int64_t homes = 0;  // nearer to a rank, at most
      for (const std::size_t r : serving_) homes = std::max(homes, static_cast<std::int64_t>(approach.nearer[r].size()));
      Side side{approach.latency, static_cast<double>(row_bytes) / widest, {}, row_for != RowFor::copy, false};
      for (std::size_t e = 0; e < experts_.size(); ++e) {
        const std::span<const std::int64_t> of_ranks = near[i].row(static_cast<std::int64_t>(e));
        std::vector<std::int64_t> nearer(of_ranks.begin(), of_ranks.end());
        std::partial_sort(nearer.begin(), nearer.begin() + static_cast<std::ptrdiff_t>(most_), nearer.end(), std::greater());
        std::int64_t kept = 0;
        std::vector<double>& copies = side.copies.emplace_back();
        for (std::size_t a = 0; a < most_; ++a) {
          kept += nearer[a];
          const std::int64_t most = d_.evenly ? std::min(kept, nearer.front() + static_cast<std::int64_t>(a) * homes) : kept;
          copies.push_back(static_cast<double>(std::max<std::int64_t>(0, experts_[e].copies - most)));
        }
      }
      all.push_back(std::move(side));
    }
    return all;
  }

  void find_waits(const std::vector<Matrix<std::int64_t>>& near_there, const std::vector<Matrix<std::int64_t>>& near_back) {
    const auto side = [this](const std::vector<Approach>& approaches, const std::vector<Matrix<std::int64_t>>& near, std::size_t e, std::size_t i, Bytes row_bytes) {
      double longest = 0;
      for (std::size_t a = 0; row_bytes > 0 && a < approaches.size(); ++a)
        if (const std::int64_t far = experts_[e].copies - near[a](static_cast<std::int64_t>(e), static_cast<std::int64_t>(i)); far > 0)
          longest = std::max(longest, approaches[a].latency + static_cast<double>(far * row_bytes) / approaches[a].rates[serving_[i]]);
      return longest;
    };
    for (std::size_t e = 0; e < experts_.size(); ++e) {
      experts_[e].wait = kInfinity;
      for (std::size_t i = 0; i < serving_.size(); ++i) {
        const auto [enter, leave] = cuts_.crossing ? crossing_waits(*cuts_.crossing, e, i) : std::pair{0.0, 0.0};
        experts_[e].wait = std::min(experts_[e].wait, std::max(enter, side(cuts_.there, near_there, e, i, d_.dispatch_row)) + std::max(leave, side(cuts_.back, near_back, e, i, d_.combine_row)));
      }
    }
  }

  /// Copies of an expert that enter a rank's node by each other rank of it, most first.
  std::vector<double> entering_by_others(const Crossing& crossing, std::size_t e, std::size_t at) const {
    std::vector<double> entering;
    for (std::size_t q = 0; q < crossing.node.size(); ++q)
      if (q != at && crossing.node[q] == crossing.node[at]) entering.push_back(entering_by(crossing, e, q));
    std::ranges::sort(entering, std::greater());
    return entering;
  }
  double entering_by(const Crossing& crossing, std::size_t e, std::size_t q) const {
    std::int64_t copies = 0;
    for (const std::int32_t h : crossing.homes[q]) copies += homes_[e][static_cast<std::size_t>(h)];
    return static_cast<double>(copies);
  }

  /// Seconds until the rows of an expert that is whole on a rank have come from other nodes, and until their results have left: they enter the node by several ranks, the fewer the sooner, and pass from these to the expert's one after
  /// another. What was last to begin passing there waits for all that enters with it, unless chunks follow each other.
  std::pair<double, double> crossing_waits(const Crossing& crossing, std::size_t e, std::size_t i) const {
    const std::size_t at = serving_[i];
    const double straight = entering_by(crossing, e, at);
    const std::vector<double> by_others = entering_by_others(crossing, e, at);
    const auto waits = [&](Bytes row_bytes, double widest, double own_rate, double relayed_rate, double straight_s, double relayed_s) {
      if (row_bytes == 0) return 0.0;
      double longest = straight > 0 ? straight_s + straight * static_cast<double>(row_bytes) / own_rate : 0, passing = 0;
      for (const double entering : by_others) {
        if (entering == 0) break;
        passing += entering;
        const double enters = entering / widest, passes = passing / relayed_rate;
        longest = std::max(longest, relayed_s + static_cast<double>(row_bytes) * (d_.hops_wait ? enters + passes : std::max(enters, passes)));
      }
      return longest;
    };
    const Bytes back = d_.combine_row_for == RowFor::token ? 0 : d_.combine_row;
    return {waits(d_.dispatch_row, std::ranges::max(crossing.in), crossing.in[at], crossing.relayed_in[at], crossing.straight_there_s, crossing.relayed_there_s),
            waits(back, std::ranges::max(crossing.out), crossing.out[at], crossing.relayed_out[at], crossing.straight_back_s, crossing.relayed_back_s)};
  }

  void find_alone(std::size_t e) {
    const double near_s = in_.front().latency + out_.front().latency, row_s = in_.front().row_seconds + out_.front().row_seconds;
    for (std::size_t a = 1; a <= most_; ++a) {
      const std::int64_t copies = (experts_[e].copies + static_cast<std::int64_t>(a) - 1) / static_cast<std::int64_t>(a), foreign = copies - std::ranges::max(homes_[e]);
      experts_[e].alone.push_back(d_.expert_seconds(copies) / fastest_ + (foreign > 0 ? near_s + static_cast<double>(foreign) * row_s : 0));
    }
  }

  /// Seconds that one more replica of an expert adds to all that ranks compute, at least.
  double replica_seconds() const {
    const std::int64_t most = std::ranges::max_element(experts_, {}, &Expert::copies)->copies;
    if (most > kSplits) return 0;
    std::vector<double> of(static_cast<std::size_t>(most) + 1);
    for (std::int64_t n = 1; n <= most; ++n) of[static_cast<std::size_t>(n)] = d_.expert_seconds(n);
    double least = most < 2 ? 1.0 : of[1];  // a single copy cannot be split: any large number
    for (std::size_t n = 2; n < of.size(); ++n)
      for (std::size_t part = 1; 2 * part <= n; ++part) least = std::min(least, of[part] + of[n - part] - of[n]);
    return std::max(0.0, least);
  }

  std::int64_t near_only(const Side& in, const Side& out) const {
    std::int64_t experts = 0;
    for (std::size_t e = 0; e < experts_.size(); ++e) experts += !in.far(e) || !out.far(e);
    return experts;
  }

  double all_in_turn(const Side& in, const Side& out) const {
    const double latency = in.latency + out.latency, each = replica_ - 2 * fastest_ * latency;
    double compute = 0;
    for (const Expert& e : experts_) compute += e.compute;
    // [expert][a]: of an expert in a slots.
    std::vector<std::vector<double>> of(experts_.size());
    for (std::size_t e = 0; e < experts_.size(); ++e)
      for (std::size_t a = 1; a <= most_; ++a) of[e].push_back(static_cast<double>(a - 1) * each + slowest_ * (in.seconds(e, a, experts_[e]) + out.seconds(e, a, experts_[e])));
    // There are slots for so many replicas in all: at any price of one, what they save less what all slots together are worth. The price that is best without regard to how long calls take.
    double dearest = 0;
    for (const std::vector<double>& o : of) dearest = std::max(dearest, o.front() - *std::ranges::min_element(o));
    const double price = highest_at(dearest, [&](double p) {
      double all = -p * static_cast<double>(spare_);
      for (const std::vector<double>& o : of) {
        double least = o.front();
        for (std::size_t a = 1; a < o.size(); ++a) least = std::min(least, o[a] + p * static_cast<double>(a));
        all += least;
      }
      return all;
    });
    compute -= price * static_cast<double>(spare_);
    // [expert][a]: the least for a slots, or more.
    std::vector<std::vector<double>> least = std::move(of);
    for (std::vector<double>& l : least) {
      for (std::size_t a = 1; a < l.size(); ++a) l[a] += price * static_cast<double>(a);
      for (std::size_t a = l.size() - 1; a >= 1; --a) l[a - 1] = std::min(l[a - 1], l[a]);
    }
    const double latencies = fastest_ * latency * static_cast<double>(near_only(in, out));
    // What the layer takes at least if it takes no longer than `seconds`.
    const auto at_least = [&](double seconds) {
      double all = compute - latencies;
      for (std::size_t e = 0; e < experts_.size(); ++e) {
        const std::vector<double>& alone = experts_[e].alone;
        const auto holders = static_cast<std::size_t>(std::partition_point(alone.begin(), alone.end(), [&](double s) { return s > seconds; }) - alone.begin());
        if (holders == most_) return kInfinity;
        all += least[e][holders];
      }
      // Ranks that are not in use have nothing to wait for; what is to be shared, if it is not negative, is then more for each of the others.
      return all >= 0 ? latency + all / speeds_ : 0;
    };
    return longest_refuted(at_least, at_least(kInfinity), 50);
  }

  /// The least over numbers of replicas of what `seconds(replicas, ranks)` says of ranks that make `calls` calls each, or of what `more` says of one that makes a call more.
  template <class Seconds>
  double least_of_calls(Seconds&& seconds, double more) const {
    const std::int64_t q = calls();
    double least = kInfinity;
    for (std::int64_t z = 0; z <= spare_ && active() + z <= q * ranks(); ++z) least = std::min(least, seconds(z, active() + z - (q - 1) * ranks()));
    const bool can_make_more = fullest_ > q && active() + spare_ > q;
    return can_make_more ? std::min(least, more) : least;
  }
  std::int64_t calls() const { return (active() + ranks() - 1) / ranks(); }

  double calls_and_waits() const {
    std::vector<double> compute, wait;
    for (const Expert& e : experts_) compute.push_back(e.compute / fastest_), wait.push_back(e.wait);
    std::ranges::sort(compute);
    std::ranges::sort(wait);
    const std::int64_t q = calls();
    const double one = one_row();
    // Of one rank with so many calls: whole experts are on it, the one that waits longest among them.
    const auto on_one = [&](std::int64_t made, std::int64_t whole, double longest) { return sum_of_first(compute, whole) + static_cast<double>(made - whole) * one + longest; };
    const auto some = [&](std::int64_t z, std::int64_t busy) {
      const std::int64_t whole = busy * q - 2 * z;
      if (whole <= 0) return static_cast<double>(q) * one;
      double waits = 0;
      for (std::int64_t i = whole; i >= 1; i -= q) waits += wait[static_cast<std::size_t>(i - 1)];
      const double mean = (sum_of_first(compute, whole) + static_cast<double>(2 * z) * one + waits) / static_cast<double>(busy);
      return std::max(mean, on_one(q, std::max<std::int64_t>(1, q - 2 * z), wait[static_cast<std::size_t>(whole - 1)]));
    };
    const std::int64_t whole = std::max<std::int64_t>(0, std::min(active(), q + 1 - 2 * spare_));
    return least_of_calls(some, on_one(q + 1, whole, whole > 0 ? wait[static_cast<std::size_t>(whole - 1)] : 0));
  }

  /// Seconds of each expert whole on a rank, with its rows; ascending.
  std::vector<double> whole(const Side& in, const Side& out) const {
    std::vector<double> seconds;
    for (std::size_t e = 0; e < experts_.size(); ++e) seconds.push_back(experts_[e].compute / fastest_ + in.seconds(e, 1, experts_[e]) + out.seconds(e, 1, experts_[e]));
    return seconds;
  }

  double calls_in_turn(const Side& in, const Side& out) const {
    std::vector<double> seconds = whole(in, out);
    std::ranges::sort(seconds);
    const std::int64_t q = calls(), near = near_only(in, out);
    const double one = one_row(), latency = in.latency + out.latency;
    const auto some = [&](std::int64_t z, std::int64_t busy) {
      const std::int64_t whole = std::max<std::int64_t>(0, busy * q - 2 * z), far = std::max<std::int64_t>(0, whole - near), waiting = (far + q - 1) / q;
      return (sum_of_first(seconds, whole) + static_cast<double>(busy * q - whole) * one + static_cast<double>(waiting) * latency) / static_cast<double>(busy);
    };
    const std::int64_t whole = std::max<std::int64_t>(0, std::min(active(), q + 1 - 2 * spare_));
    return least_of_calls(some, sum_of_first(seconds, whole) + static_cast<double>(q + 1 - whole) * one + (whole > near ? latency : 0));
  }

  double company(const Side& in, const Side& out) const {
    const double latency = in.latency + out.latency;
    std::vector<double> waits;
    for (std::size_t e = 0; e < experts_.size(); ++e) waits.push_back(in.far(e) && out.far(e) ? latency : 0);
    return company(whole(in, out), waits);
  }
  double company() const {
    std::vector<double> seconds, waits;
    for (const Expert& e : experts_) seconds.push_back(e.compute / fastest_), waits.push_back(e.wait);
    return company(seconds, waits);
  }
  /// Of experts that take `of` seconds each on a rank, and let it wait besides, for as long as the one that waits longest.
  double company(const std::vector<double>& of, const std::vector<double>& waits) const {
    if (spare_ > 0 || fullest_ * ranks() != slots_) return 0;
    const std::int64_t idle = slots_ - active();
    std::vector<std::size_t> order(of.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::ranges::stable_sort(order, std::greater(), [&](std::size_t e) { return of[e] + waits[e]; });
    std::vector<double> light = of;
    std::ranges::sort(light);
    double bound = 0, heaviest = 0, together = kInfinity;
    for (std::int64_t h = 1; h <= std::min(ranks(), active()); ++h) {
      const std::size_t last = order[static_cast<std::size_t>(h - 1)];
      heaviest += of[last] + waits[last];
      const double apart = (heaviest + sum_of_first(light, std::min(active() - h, h * (fullest_ - 1) - idle))) / static_cast<double>(h);
      const double others = sum_of_first(light, std::min(active() - 2, fullest_ - 2 - idle));
      for (std::int64_t i = 0; i + 1 < h && fullest_ > 1; ++i) {
        const std::size_t first = order[static_cast<std::size_t>(i)];
        together = std::min(together, of[first] + of[last] + std::max(waits[first], waits[last]) + others);
      }
      bound = std::max(bound, std::min(apart, together));
    }
    return bound;
  }

  double crossing_in_turn(const Crossing& crossing) const {
    if (d_.together.rows == 0 || d_.tokens_with.empty() || d_.dispatch_row == 0 || d_.combine_row == 0 || ranks() < d_.kept.rows) return 0;
    const std::int32_t nodes = std::ranges::max(crossing.node) + 1;
    std::vector<std::int64_t> slots(static_cast<std::size_t>(nodes));
    Matrix<std::int64_t> wanted(d_.kept.columns, nodes);
    for (std::int64_t r = 0; r < d_.kept.rows; ++r) {
      const std::int32_t node = crossing.node[static_cast<std::size_t>(r)];
      slots[static_cast<std::size_t>(node)] += d_.slots[static_cast<std::size_t>(r)];
      for (std::int64_t e = 0; e < d_.kept.columns; ++e) wanted(e, node) += d_.kept(r, e);
    }
    FewestCrossings fewest(wanted, d_.together, d_.tokens_with, std::min(d_.kept.columns, std::ranges::max(slots)));
    const double row_seconds = static_cast<double>(d_.dispatch_row) / std::ranges::max(crossing.in) + (d_.combine_row_for == RowFor::token ? 0 : static_cast<double>(d_.combine_row) / std::ranges::max(crossing.out));
    // Experts that tokens want that enter any node by any rank, whole wherever they lie.
    std::int64_t wanted_by_all = 0;
    for (const std::vector<std::int64_t>& homes : homes_)
      wanted_by_all += std::ranges::all_of(crossing.homes, [&](const auto& entering) { return std::ranges::any_of(entering, [&](std::int32_t h) { return homes[static_cast<std::size_t>(h)] > 0; }); });
    std::vector<std::int64_t> node_ranks(static_cast<std::size_t>(nodes));
    for (const std::int32_t n : crossing.node) ++node_ranks[static_cast<std::size_t>(n)];
    const std::int64_t widest = std::ranges::max(node_ranks);
    const double own_of_replica = d_.evenly ? static_cast<double>(widest) : kInfinity;
    double compute = 0, least = kInfinity;
    for (const Expert& e : experts_) compute += e.compute;
    // The mean over ranks, with so many rows that cross and replicas.
    const auto mean = [&](double rows, std::int64_t replicas) {
      const std::int64_t whole = std::max<std::int64_t>(0, wanted_by_all - replicas);
      const std::int64_t others = ranks() - (whole + fullest_ - 1) / fullest_;  // ranks that may have none of these
      const auto waiting = static_cast<double>(std::max<std::int64_t>(0, ranks() - others * widest));
      const double others_s = waiting * (crossing.relayed_there_s + crossing.relayed_back_s);
      return (compute + slowest_ * (row_seconds * rows + others_s)) / speeds_;
    };
    // From `z` replicas on, below twice as many.
    for (std::int64_t z = 0; z <= spare_; z = std::max<std::int64_t>(1, 2 * z)) {
      const std::int64_t replicas = std::min(spare_, std::max<std::int64_t>(0, 2 * z - 1));
      least = std::min(least, mean(fewest.with(replicas, own_of_replica), replicas) + static_cast<double>(z) * replica_ / speeds_);
    }
    if (spare_ > 0 || std::ranges::max(slots) == 0) return least;

    // Where a layer takes no longer than `seconds`, no node computes so much that it would take longer with what must enter and leave it; so balanced, tokens have to cross more often.
    fewest.find_excess(wanted, d_.together);
    std::vector<const Expert*> by_compute;
    for (const Expert& e : experts_) by_compute.push_back(&e);
    const auto of_copy = [](const Expert* e) { return e->compute / static_cast<double>(e->copies); };
    std::ranges::sort(by_compute, {}, of_copy);
    double copies = 0, homed = 0;  // tokens of one node, at most
    for (const Expert& e : experts_) copies += static_cast<double>(e.copies);
    const auto least_choices = std::ranges::find_if(d_.tokens_with.begin() + 1, d_.tokens_with.end(), [](std::int64_t tokens) { return tokens > 0; }) - d_.tokens_with.begin();
    for (std::int32_t n = 0; n < nodes; ++n) {
      double of_node = 0;
      for (std::int64_t e = 0; e < wanted.rows; ++e) of_node += static_cast<double>(wanted(e, n));
      homed = std::max(homed, of_node / static_cast<double>(least_choices));
    }
    const auto of_node = [&](double load) {
      double seconds = slowest_ * row_seconds * std::max(0.0, fewest.touched(load) - homed);
      for (const Expert* e : by_compute) {
        const double part = std::min(load, static_cast<double>(e->copies));
        seconds += part * of_copy(e), load -= part;
      }
      return seconds;
    };
    const auto at_least = [&](double seconds) {
      double most = copies, too_much = copies;
      if (const double there_is = seconds * fastest_ * static_cast<double>(widest); of_node(copies) > there_is) {
        most = 0;
        for (int i = 0; i < 40; ++i) {
          const double middle = (most + too_much) / 2;
          (of_node(middle) > there_is ? too_much : most) = middle;
        }
      }
      return mean(fewest.balanced(too_much), 0);
    };
    return longest_refuted(at_least, least, kBisections);
  }

  /// A time that the layer takes at least if `at_least(t)`, which falls, is what it takes at least if it takes no longer than t.
  template <class AtLeast>
  static double longest_refuted(AtLeast&& at_least, double known, int steps) {
    double below = known, above = known;
    if (at_least(below) <= below) return below;
    while (at_least(above) > above) below = above, above = 2 * above + 1e-9;
    for (int i = 0; i < steps; ++i) {
      const double middle = (below + above) / 2;
      (at_least(middle) <= middle ? above : below) = middle;
    }
    return below;
  }

  const Demand& d_;
  const MachineCuts& cuts_;
  std::vector<std::size_t> serving_;  // ranks that have slots
  std::int64_t slots_ = 0, fullest_ = 0, spare_ = 0;
  std::size_t most_ = 1;  // slots of one expert that are told apart; more, on the same ranks, only take longer
  double fastest_ = 0, slowest_ = kInfinity, speeds_ = 0;
  std::vector<Expert> experts_;  // that tokens want
  std::vector<std::vector<std::int64_t>> homes_;  // [expert][R] copies
  std::vector<Side> in_, out_;
  double replica_ = 0;
};

}  // namespace

Certificate turns_bound(const Demand& demand, const MachineCuts& cuts) { return Turns(demand, cuts).run(); }

}  // namespace epsim
