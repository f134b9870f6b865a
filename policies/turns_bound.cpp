#include "policies/turns_bound.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <optional>
#include <tuple>

#include "policies/concave.h"
#include "policies/configuration_bound.h"
#include "policies/crossing_bound.h"

namespace epsim {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr int kBisections = 24;         // of times whose refuting takes long
constexpr std::int64_t kPacked = 32;    // experts up to which the sets are looked at that a rank may have
constexpr std::int64_t kSlots = 64;     // of one expert that are told apart, or as many as there are ranks
constexpr std::int64_t kSplits = 4096;  // copies of an expert up to which all ways to split them are tried

/// The sum of the first `count`, or of all.
double sum_of_first(const std::vector<double>& values, std::int64_t count) {
  const auto n = std::clamp<std::int64_t>(count, 0, static_cast<std::int64_t>(values.size()));
  return std::accumulate(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(n), 0.0);
}

/// What a slot computes of an expert, in seconds on one rank.
struct Call {
  double compute = 0;  ///< at speed 1
  double wait = 0;     ///< of the rank that computes it: until its rows have come, and its results have left
};

/// What an expert takes, in seconds on one rank.
struct Expert {
  std::int64_t copies = 0;
  double compute = 0;                    ///< one call, at speed 1
  std::vector<double> computes;          ///< by slots that hold it, from 1: all their calls, at speed 1
  std::vector<double> shared;            ///< by slots that hold it: copies of it that share a row with another's, at most, a half of each pair
  std::vector<double> alone;             ///< by slots that hold it, or fewer: of the fullest of them, were nothing else on it
  std::vector<std::vector<Call>> calls;  ///< by slots that hold it, as far as what each of them computes is known
  double wait = 0;                       ///< of a rank that holds it whole
};

/// Rows to ranks, or results from them, that come from an approach's latency away.
struct Side {
  double latency = 0, row_seconds = 0;       ///< on the rank with the widest links
  std::vector<std::vector<double>> copies;   ///< by expert and slots that hold it, from 1: copies with so long a way, at least
  std::vector<std::vector<std::int64_t>> near_only;  ///< by expert and slots that hold it: those of them that may have no copy with so long a way
  std::vector<std::vector<std::int64_t>> least_far;  ///< by expert and slots that hold it: copies with so long a way of any of its calls, at least
  std::int64_t approach = 0;                 ///< which of MachineCuts::there or ::back
  std::int64_t homes = 0;                    ///< nearer to a rank, at most
  bool may_share = false, empty = false;     ///< rows may stand for several copies; they have no bytes

  /// Seconds that these keep links busy, at least.
  double seconds(std::size_t e, std::size_t holders, const Expert& expert) const {
    return row_seconds * std::max(0.0, copies[e][holders - 1] - (may_share ? expert.shared[holders - 1] : 0));
  }
  /// Slots, of those that hold an expert, that need not wait for so long a way.
  std::int64_t nearby(std::size_t e, std::size_t holders) const { return empty ? 0 : near_only[e][holders - 1]; }
};

/// How many of a home's copies of an expert go to replica `at` of `holders` where they are dealt in turn (ReplicaRule::in_turn).
std::int64_t dealt(std::int64_t copies, std::int64_t home, std::int64_t at, std::int64_t holders) {
  const std::int64_t offset = ((at - home) % holders + holders) % holders;
  return copies / holders + (offset < copies % holders ? 1 : 0);
}

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
    most_ = static_cast<std::size_t>(std::min(std::max<std::int64_t>(kSlots, ranks()), 1 + spare_));
    for (std::int64_t e = 0; e < d.kept.columns; ++e) {
      std::vector<std::int64_t> homes(static_cast<std::size_t>(d.kept.rows));
      for (std::int64_t r = 0; r < d.kept.rows; ++r) homes[static_cast<std::size_t>(r)] = d.kept(r, e);
      Expert expert;
      expert.copies = std::accumulate(homes.begin(), homes.end(), std::int64_t{0});
      if (expert.copies == 0) continue;
      total_ += expert.copies;
      share_rows(expert, e);
      experts_.push_back(std::move(expert)), homes_.push_back(std::move(homes));
    }
    if (experts_.empty()) return;
    if (cuts.crossing) widest_in_ = std::ranges::max(cuts.crossing->in), widest_out_ = std::ranges::max(cuts.crossing->out);
    replica_ = replica_seconds();
    in_ = sides(cuts.there, serving_, d.dispatch_row, d.dispatch_row_for);
    out_ = sides(cuts.back, serving_, d.combine_row, d.combine_row_for);
    const std::int64_t looks = in_time();
    for (std::size_t e = 0; e < experts_.size(); ++e) find_calls(e, known(experts_[e], looks)), find_many(e), find_alone(e);
    if (spare_ > 0) one_more_ = one_computes(calls() + 1);
  }

  Certificate run() const {
    Certificate bound;
    if (experts_.empty()) return bound;
    const auto raise = [&bound](double value, std::string_view because) {
      if (value > bound.value) bound = {value, because};
    };
    raise(calls_and_waits(), "calls and waits");
    raise(company(), "company");
    for (const auto& [in, out] : all_ways()) {
      raise(all_in_turn(*in, *out), "all in turn");
      raise(calls_in_turn(*in, *out), "calls and waits");
      raise(company(*in, *out), "company");
    }
    if (cuts_.crossing) raise(crossing_in_turn(*cuts_.crossing), "crossing in turn");
    if (spare_ == 0 && active() <= kPacked) raise(configuration_bound(configurations(), bound.value), "configurations");
    return bound;
  }

  std::int64_t spare() const { return experts_.empty() ? 0 : spare_; }
  /// That the rank with most of them makes at least.
  std::int64_t calls() const { return (active() + ranks() - 1) / ranks(); }
  double one_more() const { return one_more_; }
  /// Seconds that a layer takes in which no rank computes more than `calls()` experts and some are not whole, but z computed by ranks beside one an expert; where that is no more than `known`, some such time.
  double none_more(double known) const {
    constexpr std::int64_t kMost = 64;  // numbers that there is time for
    const std::int64_t most = std::min(spare_, calls() * ranks() - active());
    if (most > kMost) return 0;
    const std::vector<Ways> ways = all_ways();
    const std::vector<Part> of_parts = parts(ways);
    const Sorted s = sorted();
    std::vector<double> compute, of_waits;
    for (const Expert& e : experts_) compute.push_back(e.compute / fastest_), of_waits.push_back(e.wait);
    std::vector<std::vector<std::pair<double, double>>> means;
    std::vector<std::vector<double>> with_rows, ascending;
    for (const auto& [in, out] : ways) {
      means.push_back(means_by_reward(*in, *out)), with_rows.push_back(whole(*in, *out)), ascending.push_back(with_rows.back());
      std::ranges::sort(ascending.back());
    }
    // What a rank computes of an expert that is also elsewhere may be in several slots of its own: the shortest call of any number of slots.
    const Part& part = of_parts.back();
    if (part.compute == kInfinity) return kInfinity;
    double least = kInfinity;
    for (std::int64_t z = 1; z <= most && least > known; ++z) {
      double takes = std::max({mean(ways, means, z), company(compute, of_waits, calls(), z, part.compute), busy(s, z)});
      for (std::size_t i = 0; i < ways.size(); ++i) {
        const auto& [in, out] = ways[i];
        takes = std::max({takes, company(with_rows[i], waits(*in, *out), calls(), z, part.compute + part.there_s[i] + part.back_s[i]), busy(ascending[i], *in, *out, z)});
      }
      least = std::min(least, takes);
    }
    return least;
  }

 private:
  double one_row() const { return d_.expert_seconds(1) / fastest_; }
  std::int64_t ranks() const { return static_cast<std::int64_t>(serving_.size()); }
  std::int64_t active() const { return static_cast<std::int64_t>(experts_.size()); }

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

  /// Copies of these homes that are nearer to each serving rank than each approach: [approach][serving rank].
  Matrix<std::int64_t> near_copies(const std::vector<Approach>& approaches, const std::vector<std::int64_t>& homes) const {
    Matrix<std::int64_t> near(static_cast<std::int64_t>(approaches.size()), ranks());
    for (std::int64_t i = 0; i < near.rows; ++i)
      for (std::int64_t s = 0; s < near.columns; ++s)
        for (const std::int32_t h : approaches[static_cast<std::size_t>(i)].nearer[serving_[static_cast<std::size_t>(s)]]) near(i, s) += homes[static_cast<std::size_t>(h)];
    return near;
  }

  /// Sides without experts: one for each approach that is used, and which it is.
  static std::vector<Side> sides(const std::vector<Approach>& approaches, const std::vector<std::size_t>& serving, Bytes row_bytes, RowFor row_for) {
    std::vector<Side> all;
    for (std::size_t i = 0; row_bytes > 0 && i < approaches.size(); ++i) {
      Side side;
      double widest = 0;
      for (const std::size_t r : serving) widest = std::max(widest, approaches[i].rates[r]), side.homes = std::max(side.homes, static_cast<std::int64_t>(approaches[i].nearer[r].size()));
      if (widest == 0) continue;
      side.approach = static_cast<std::int64_t>(i), side.latency = approaches[i].latency, side.row_seconds = static_cast<double>(row_bytes) / widest, side.may_share = row_for != RowFor::copy;
      all.push_back(std::move(side));
    }
    if (all.empty()) all.emplace_back(), all.back().empty = true;
    return all;
  }

  /// Slots that the number `a` of them stands for, at most: the last stands for more, where there may be more.
  std::int64_t slots(std::size_t a) const { return a == most_ ? 1 + spare_ : static_cast<std::int64_t>(a); }

  /// How many slots of each expert there is time to look at one by one.
  std::int64_t in_time() const {
    constexpr double kLooks = 1 << 20;  // at homes of copies, for all experts
    double homes = 200;                 // that are looked at for one slot, or could be meanwhile
    for (const std::vector<Approach>* approaches : {&cuts_.there, &cuts_.back})
      for (const Approach& approach : *approaches)
        for (const std::size_t r : serving_) homes += static_cast<double>(1 + approach.nearer[r].size());
    return static_cast<std::int64_t>(std::sqrt(2 * kLooks / (homes * static_cast<double>(active()))));
  }

  /// How many slots of an expert are looked at one by one where copies are dealt in turn: as many as there is time for, and as heavy experts need.
  std::size_t known(const Expert& e, std::int64_t in_time) const {
    if (!d_.in_turn) return 1;
    const std::int64_t needed = 1 + 2 * e.copies * ranks() / total_;
    const std::int64_t all = slots(most_) > static_cast<std::int64_t>(most_) ? static_cast<std::int64_t>(most_) - 1 : static_cast<std::int64_t>(most_);
    return static_cast<std::size_t>(std::max<std::int64_t>(1, std::min(all, std::max(in_time, needed))));
  }

  /// What the slots of an expert compute and wait for, and what has a long way to them.
  void find_calls(std::size_t e, std::size_t known_slots) {
    Expert& expert = experts_[e];
    for (std::vector<Side>* sides : {&in_, &out_})
      for (Side& side : *sides) {
        side.copies.emplace_back(most_), side.near_only.emplace_back(most_), side.least_far.emplace_back(known_slots, std::numeric_limits<std::int64_t>::max());
      }
    for (std::size_t a = 1; a <= known_slots; ++a) {
      std::vector<Call> calls;
      double compute = 0;
      for (std::size_t j = 0; j < a; ++j) {
        std::vector<std::int64_t> homes = homes_[e];
        for (std::size_t h = 0; h < homes.size() && a > 1; ++h) homes[h] = dealt(homes[h], static_cast<std::int64_t>(h), static_cast<std::int64_t>(j), static_cast<std::int64_t>(a));
        const std::int64_t copies = std::accumulate(homes.begin(), homes.end(), std::int64_t{0});
        if (copies == 0) continue;  // no call, and nothing to wait for
        const Matrix<std::int64_t> near_there = near_copies(cuts_.there, homes), near_back = near_copies(cuts_.back, homes);
        for (const auto& [sides, near] : {std::pair{&in_, &near_there}, {&out_, &near_back}})
          for (Side& side : *sides) {
            if (side.empty) continue;
            const std::int64_t far = copies - std::ranges::max(near->row(side.approach));
            side.least_far[e][a - 1] = std::min(side.least_far[e][a - 1], far);
            side.copies[e][a - 1] += static_cast<double>(far), side.near_only[e][a - 1] += far == 0;
          }
        calls.push_back({d_.expert_seconds(copies), wait(homes, copies, near_there, near_back)});
        compute += calls.back().compute;
      }
      expert.computes.push_back(compute);
      expert.calls.push_back(std::move(calls));
    }
    expert.compute = expert.computes.front(), expert.wait = expert.calls.front().front().wait;
  }

  /// The same of an expert in more slots than `find_calls` looks at.
  void find_many(std::size_t e) {
    Expert& expert = experts_[e];
    const std::size_t known_slots = expert.computes.size();
    for (std::size_t a = known_slots + 1; a <= most_; ++a) expert.computes.push_back(expert.compute + static_cast<double>(a - 1) * replica_);
    for (const auto& [sides, approaches] : {std::pair{&in_, &cuts_.there}, {&out_, &cuts_.back}})
      for (Side& side : *sides) {
        if (side.empty || known_slots == most_) continue;
        const std::vector<std::vector<std::int32_t>>& nearer = (*approaches)[static_cast<std::size_t>(side.approach)].nearer;
        std::vector<std::int64_t> near;
        std::int64_t fewest = std::numeric_limits<std::int64_t>::max();  // copies of the home afar that has most, for any rank
        for (const std::size_t r : serving_) {
          near.push_back(0);
          std::int64_t most = 0;
          auto next = nearer[r].begin();
          for (std::size_t h = 0; h < homes_[e].size(); ++h)
            if (next != nearer[r].end() && static_cast<std::size_t>(*next) == h)
              near.back() += homes_[e][h], ++next;
            else
              most = std::max(most, homes_[e][h]);
          fewest = std::min(fewest, most);
        }
        std::ranges::sort(near, std::greater());
        std::int64_t kept = 0;
        for (std::size_t a = 1; a <= most_; ++a) {
          if (a <= near.size()) kept += near[a - 1];
          if (a <= known_slots) continue;
          const std::int64_t most = d_.in_turn ? std::min(kept, near.front() + (slots(a) - 1) * side.homes) : kept;
          side.copies[e][a - 1] = static_cast<double>(std::max<std::int64_t>(0, expert.copies - most));
          side.near_only[e][a - 1] = d_.in_turn && fewest >= slots(a) ? 0 : std::min(ranks(), slots(a));
        }
      }
  }

  /// Seconds that the rank of a call waits until the rows of these homes have come and their results have left, wherever it is.
  double wait(const std::vector<std::int64_t>& homes, std::int64_t copies, const Matrix<std::int64_t>& near_there, const Matrix<std::int64_t>& near_back) const {
    const auto side = [&](const std::vector<Approach>& approaches, const Matrix<std::int64_t>& near, std::size_t i, Bytes row_bytes) {
      double longest = 0;
      for (std::size_t a = 0; row_bytes > 0 && a < approaches.size(); ++a)
        if (const std::int64_t far = copies - near(static_cast<std::int64_t>(a), static_cast<std::int64_t>(i)); far > 0)
          longest = std::max(longest, approaches[a].latency + static_cast<double>(far * row_bytes) / approaches[a].rates[serving_[i]]);
      return longest;
    };
    double least = kInfinity;
    const auto nodes = cuts_.crossing ? entering(*cuts_.crossing, homes) : std::vector<std::vector<Entering>>();
    for (std::size_t i = 0; i < serving_.size(); ++i) {
      const auto [enter, leave] = cuts_.crossing ? crossing_waits(*cuts_.crossing, nodes, i) : std::pair{0.0, 0.0};
      least = std::min(least, std::max(enter, side(cuts_.there, near_there, i, d_.dispatch_row)) + std::max(leave, side(cuts_.back, near_back, i, d_.combine_row)));
    }
    return least;
  }

  /// Copies of a call that enter a node by a rank of it.
  struct Entering {
    std::size_t by = 0;
    double copies = 0;
  };
  /// Those that enter each node, most first: [nodes][ranks of it].
  static std::vector<std::vector<Entering>> entering(const Crossing& crossing, const std::vector<std::int64_t>& homes) {
    std::vector<std::vector<Entering>> nodes(static_cast<std::size_t>(std::ranges::max(crossing.node)) + 1);
    for (std::size_t q = 0; q < crossing.node.size(); ++q) {
      std::int64_t copies = 0;
      for (const std::int32_t h : crossing.homes[q]) copies += homes[static_cast<std::size_t>(h)];
      nodes[static_cast<std::size_t>(crossing.node[q])].push_back({q, static_cast<double>(copies)});
    }
    for (auto& of_node : nodes) std::ranges::stable_sort(of_node, std::greater(), &Entering::copies);
    return nodes;
  }

  /// Seconds until the rows of a call on a rank have come from other nodes, and until their results have left: they enter the node by several ranks, the fewer the sooner, and pass from these to the call's one after
  /// another. What was last to begin passing there waits for all that enters with it, unless chunks follow each other.
  std::pair<double, double> crossing_waits(const Crossing& crossing, const std::vector<std::vector<Entering>>& nodes, std::size_t i) const {
    const std::size_t at = serving_[i];
    const std::vector<Entering>& of_node = nodes[static_cast<std::size_t>(crossing.node[at])];
    const double straight = std::ranges::find(of_node, at, &Entering::by)->copies;
    const auto waits = [&](Bytes row_bytes, double widest, double own_rate, double relayed_rate, double straight_s, double relayed_s) {
      if (row_bytes == 0) return 0.0;
      double longest = straight > 0 ? straight_s + straight * static_cast<double>(row_bytes) / own_rate : 0, passing = 0;
      for (const auto& [by, entering] : of_node) {
        if (entering == 0) break;
        if (by == at) continue;
        passing += entering;
        const double enters = entering / widest, passes = passing / relayed_rate;
        longest = std::max(longest, relayed_s + static_cast<double>(row_bytes) * (d_.hops_wait ? enters + passes : std::max(enters, passes)));
      }
      return longest;
    };
    const Bytes back = d_.combine_row_for == RowFor::token ? 0 : d_.combine_row;
    return {waits(d_.dispatch_row, widest_in_, crossing.in[at], crossing.relayed_in[at], crossing.straight_there_s, crossing.relayed_there_s),
            waits(back, widest_out_, crossing.out[at], crossing.relayed_out[at], crossing.straight_back_s, crossing.relayed_back_s)};
  }

  void find_alone(std::size_t e) {
    const double near_s = in_.front().latency + out_.front().latency, row_s = in_.front().row_seconds + out_.front().row_seconds;
    double least = kInfinity;
    for (std::size_t a = 1; a <= most_; ++a) {
      double fullest = 0;
      if (a <= experts_[e].calls.size()) {
        for (const Call& call : experts_[e].calls[a - 1]) fullest = std::max(fullest, call.compute / fastest_ + call.wait);
      } else {
        const std::int64_t copies = (experts_[e].copies + slots(a) - 1) / slots(a), foreign = copies - std::ranges::max(homes_[e]);
        fullest = d_.expert_seconds(copies) / fastest_ + (foreign > 0 ? near_s + static_cast<double>(foreign) * row_s : 0);
      }
      least = std::min(least, fullest);
      experts_[e].alone.push_back(least);
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
    for (std::size_t e = 0; e < experts_.size(); ++e) experts += in.nearby(e, 1) > 0 || out.nearby(e, 1) > 0;
    return experts;
  }

  /// Slots that compute copies of an expert where `a` hold it, at most: of those to which none are dealt there is no call.
  std::int64_t computing(std::size_t e, std::size_t a) const {
    const Expert& expert = experts_[e];
    return a <= expert.calls.size() && slots(a) == static_cast<std::int64_t>(a) ? static_cast<std::int64_t>(expert.calls[a - 1].size()) : slots(a);
  }

  /// By rising latency: what comes from afar goes back there.
  using Ways = std::pair<const Side*, const Side*>;
  std::vector<Ways> all_ways() const {
    std::vector<Ways> ways;
    for (std::size_t i = 0; i < std::max(in_.size(), out_.size()); ++i) ways.emplace_back(&in_[std::min(i, in_.size() - 1)], &out_[std::min(i, out_.size() - 1)]);
    return ways;
  }
  /// The mean over ranks where `more` slots compute beside one an expert.
  double mean(const std::vector<Ways>& ways, const std::vector<std::vector<std::pair<double, double>>>& means, std::int64_t more) const {
    double longest = 0;
    for (std::size_t i = 0; i < ways.size(); ++i)
      for (const auto& [reward, all] : means[i])
        if (const double sum = all + reward * static_cast<double>(more); sum >= 0) longest = std::max(longest, ways[i].first->latency + ways[i].second->latency + sum / speeds_);
    return longest;
  }

  /// The least of a call of any expert that so many slots compute, two or more, and how many rows of it have how long a way.
  struct Part {
    double compute = kInfinity, wait = kInfinity;
    std::vector<double> there_s, back_s;  // [ways]
  };
  /// By slots that compute an expert, at most: [0] and [1] are empty.
  std::vector<Part> parts(const std::vector<Ways>& ways) const {
    std::vector<Part> least(most_ + 1);
    for (Part& p : least) p.there_s.assign(ways.size(), kInfinity), p.back_s.assign(ways.size(), kInfinity);
    for (std::size_t a = 2; a <= most_; ++a)
      for (std::size_t e = 0; e < experts_.size(); ++e) {
        const std::int64_t n = computing(e, a);
        if (n < 2) continue;
        const bool known = a <= experts_[e].calls.size() && slots(a) == static_cast<std::int64_t>(a);
        Part& part = least[static_cast<std::size_t>(std::min<std::int64_t>(n, static_cast<std::int64_t>(most_)))];
        if (!known) {
          part.compute = one_row(), part.wait = 0;
          std::ranges::fill(part.there_s, 0), std::ranges::fill(part.back_s, 0);
          continue;
        }
        for (const Call& call : experts_[e].calls[a - 1]) part.compute = std::min(part.compute, call.compute / fastest_), part.wait = std::min(part.wait, call.wait);
        for (std::size_t i = 0; i < ways.size(); ++i) {
          const auto rows = [&](const Side& side) { return side.empty || side.may_share ? 0 : side.row_seconds * static_cast<double>(side.least_far[e][a - 1]); };
          part.there_s[i] = std::min(part.there_s[i], rows(*ways[i].first)), part.back_s[i] = std::min(part.back_s[i], rows(*ways[i].second));
        }
      }
    for (std::size_t n = 3; n < least.size(); ++n) {
      least[n].compute = std::min(least[n].compute, least[n - 1].compute), least[n].wait = std::min(least[n].wait, least[n - 1].wait);
      for (std::size_t i = 0; i < ways.size(); ++i) least[n].there_s[i] = std::min(least[n].there_s[i], least[n - 1].there_s[i]), least[n].back_s[i] = std::min(least[n].back_s[i], least[n - 1].back_s[i]);
    }
    return least;
  }

  /// Seconds that a layer takes in which some rank computes so many experts or more: the least over z of what that rank takes, and of the mean over ranks, where z slots compute beside one an expert. All but z experts are whole on it, and
  /// where m are not, none of these is computed by more than z - m + 2 slots.
  double one_computes(std::int64_t experts) const {
    std::vector<double> compute;
    double whole_waits = kInfinity;
    for (const Expert& e : experts_) compute.push_back(e.compute / fastest_), whole_waits = std::min(whole_waits, e.wait);
    std::ranges::sort(compute);
    const std::vector<Ways> ways = all_ways();
    std::vector<std::vector<double>> with_rows;
    std::vector<std::int64_t> near;  // experts that may have no rows from afar
    std::vector<std::vector<std::pair<double, double>>> means;
    for (const auto& [in, out] : ways) {
      with_rows.push_back(whole(*in, *out)), near.push_back(near_only(*in, *out)), means.push_back(means_by_reward(*in, *out));
      std::ranges::sort(with_rows.back());
    }
    const std::vector<Part> of_parts = parts(ways);
    double least = kInfinity;
    for (std::int64_t z = 0; z <= spare_; ++z) {
      double of_rank = kInfinity;
      for (std::int64_t m = 0; m <= std::min(z, experts); ++m) {
        const Part& part = of_parts[std::min(static_cast<std::size_t>(z - m + 2), most_)];
        if (m > 0 && part.compute == kInfinity) continue;  // no expert can be computed in parts
        const std::int64_t whole = experts - m;
        const double n = static_cast<double>(m), calls_s = m > 0 ? n * part.compute : 0;
        double takes = sum_of_first(compute, whole) + calls_s + std::max(whole > 0 ? whole_waits : 0, m > 0 ? part.wait : 0);
        for (std::size_t i = 0; i < ways.size(); ++i) {
          const auto& [in, out] = ways[i];
          const bool afar = whole > near[i];
          const double there = m > 0 ? part.there_s[i] : 0, back = m > 0 ? part.back_s[i] : 0;
          const double latency = (afar || there > 0 ? in->latency : 0) + (afar || back > 0 ? out->latency : 0);
          takes = std::max(takes, sum_of_first(with_rows[i], whole) + calls_s + n * (there + back) + latency);
        }
        of_rank = std::min(of_rank, takes);
      }
      least = std::min(least, std::max(of_rank, mean(ways, means, z)));
    }
    return least;
  }

  /// [expert][a]: what `all in turn` adds up of an expert in a slots.
  std::vector<std::vector<double>> in_turn(const Side& in, const Side& out) const {
    std::vector<std::vector<double>> of(experts_.size());
    for (std::size_t e = 0; e < experts_.size(); ++e)
      for (std::size_t a = 1; a <= most_; ++a) of[e].push_back(experts_[e].computes[a - 1] - fastest_ * (in.latency * static_cast<double>(in.nearby(e, a)) + out.latency * static_cast<double>(out.nearby(e, a))) + slowest_ * (in.seconds(e, a, experts_[e]) + out.seconds(e, a, experts_[e])));
    return of;
  }

  /// For some rewards of a slot that computes beside one an expert: what all experts add up to at least, less these rewards.
  std::vector<std::pair<double, double>> means_by_reward(const Side& in, const Side& out) const {
    const std::vector<std::vector<double>> of = in_turn(in, out);
    constexpr int kRewards = 16;
    double dearest = 0;
    for (std::size_t e = 0; e < of.size(); ++e)
      for (std::size_t a = 1; a < most_; ++a)
        if (const std::int64_t more = computing(e, a + 1) - 1; more > 0) dearest = std::max(dearest, (of[e][a] - of[e][0]) / static_cast<double>(more));
    std::vector<std::pair<double, double>> means;
    for (int i = 0; i <= kRewards; ++i) {
      const double reward = dearest * i / kRewards;
      double all = 0;
      for (std::size_t e = 0; e < of.size(); ++e) {
        double least = of[e][0];
        for (std::size_t a = 1; a < most_; ++a) least = std::min(least, of[e][a] - reward * static_cast<double>(std::max<std::int64_t>(0, computing(e, a + 1) - 1)));
        all += least;
      }
      means.emplace_back(reward, all);
    }
    return means;
  }

  double all_in_turn(const Side& in, const Side& out) const {
    const double latency = in.latency + out.latency;
    std::vector<std::vector<double>> of = in_turn(in, out);
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
    // [expert][a]: the least for a slots, or more.
    std::vector<std::vector<double>> least = std::move(of);
    for (std::vector<double>& l : least) {
      for (std::size_t a = 1; a < l.size(); ++a) l[a] += price * static_cast<double>(a);
      for (std::size_t a = l.size() - 1; a >= 1; --a) l[a - 1] = std::min(l[a - 1], l[a]);
    }
    // What the layer takes at least if it takes no longer than `seconds`.
    const auto at_least = [&](double seconds) {
      double all = -price * static_cast<double>(spare_);
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

  /// The least over numbers z of slots that compute beside one an expert of what `busy(z)` says of ranks that compute q = calls() experts each, of which there are A + z - (q - 1) R, or of what `more` says of one that computes one more.
  template <class Busy>
  double least_of_calls(Busy&& busy, double more) const {
    const std::int64_t q = calls();
    double least = kInfinity;
    for (std::int64_t z = 0; z <= spare_ && active() + z <= q * ranks(); ++z) least = std::min(least, busy(z));
    const bool can_make_more = fullest_ > q && active() + spare_ > q;
    return can_make_more ? std::min(least, std::max(more, one_more_)) : least;
  }
  std::int64_t busy_ranks(std::int64_t z) const { return active() + z - (calls() - 1) * ranks(); }

  /// Experts by what they compute whole, by how long they let a rank wait, and by both: each ascending.
  struct Sorted {
    std::vector<double> compute, wait, both;
  };
  Sorted sorted() const {
    Sorted s;
    for (const Expert& e : experts_) s.compute.push_back(e.compute / fastest_), s.wait.push_back(e.wait), s.both.push_back(e.compute / fastest_ + e.wait);
    std::ranges::sort(s.compute);
    std::ranges::sort(s.wait);
    std::ranges::sort(s.both);
    return s;
  }
  /// Of one rank with so many calls: whole experts are on it, the one that waits longest among them.
  double on_one(const Sorted& s, std::int64_t made, std::int64_t whole, double longest) const { return sum_of_first(s.compute, whole) + static_cast<double>(made - whole) * one_row() + longest; }
  double busy(const Sorted& s, std::int64_t z) const {
    const std::int64_t q = calls(), ranks = busy_ranks(z), whole = ranks * q - 2 * z;
    if (whole <= 0) return static_cast<double>(q) * one_row();
    double waits = 0;
    for (std::int64_t i = whole; i >= 1; i -= q) waits += s.wait[static_cast<std::size_t>(i - 1)];
    const double mean = (sum_of_first(s.compute, whole) + static_cast<double>(2 * z) * one_row() + waits) / static_cast<double>(ranks);
    // Of so many whole experts one takes as long as the last of them, and its rank has others besides.
    const std::int64_t others = std::max<std::int64_t>(0, q - 1 - 2 * z);
    return std::max(mean, s.both[static_cast<std::size_t>(whole - 1)] + on_one(s, q - 1, others, 0));
  }
  double calls_and_waits() const {
    const Sorted s = sorted();
    const std::int64_t q = calls(), whole = std::max<std::int64_t>(0, std::min(active(), q + 1 - 2 * spare_));
    return least_of_calls([&](std::int64_t z) { return busy(s, z); }, on_one(s, q + 1, whole, whole > 0 ? s.wait[static_cast<std::size_t>(whole - 1)] : 0));
  }

  /// Seconds of each expert whole on a rank, with its rows; ascending.
  std::vector<double> whole(const Side& in, const Side& out) const {
    std::vector<double> seconds;
    for (std::size_t e = 0; e < experts_.size(); ++e) seconds.push_back(experts_[e].compute / fastest_ + in.seconds(e, 1, experts_[e]) + out.seconds(e, 1, experts_[e]));
    return seconds;
  }

  /// The same as `busy` with the rows of experts that take `seconds` whole, ascending.
  double busy(const std::vector<double>& seconds, const Side& in, const Side& out, std::int64_t z) const {
    const std::int64_t q = calls(), ranks = busy_ranks(z), whole = std::max<std::int64_t>(0, ranks * q - 2 * z), far = std::max<std::int64_t>(0, whole - near_only(in, out)), waiting = (far + q - 1) / q;
    return (sum_of_first(seconds, whole) + static_cast<double>(ranks * q - whole) * one_row() + static_cast<double>(waiting) * (in.latency + out.latency)) / static_cast<double>(ranks);
  }
  double calls_in_turn(const Side& in, const Side& out) const {
    std::vector<double> seconds = whole(in, out);
    std::ranges::sort(seconds);
    const std::int64_t q = calls(), whole = std::max<std::int64_t>(0, std::min(active(), q + 1 - 2 * spare_));
    return least_of_calls([&](std::int64_t z) { return busy(seconds, in, out, z); },
                          sum_of_first(seconds, whole) + static_cast<double>(q + 1 - whole) * one_row() + (whole > near_only(in, out) ? in.latency + out.latency : 0));
  }

  /// Seconds of each expert's wait on a rank, whole, where only these ways count.
  std::vector<double> waits(const Side& in, const Side& out) const {
    std::vector<double> waits;
    for (std::size_t e = 0; e < experts_.size(); ++e) waits.push_back((in.nearby(e, 1) > 0 ? 0 : in.latency) + (out.nearby(e, 1) > 0 ? 0 : out.latency));
    return waits;
  }
  double company(const Side& in, const Side& out) const { return spare_ > 0 ? 0 : company(whole(in, out), waits(in, out), fullest_, 0, 0); }
  double company() const {
    std::vector<double> seconds, waits;
    for (const Expert& e : experts_) seconds.push_back(e.compute / fastest_), waits.push_back(e.wait);
    return spare_ > 0 ? 0 : company(seconds, waits, fullest_, 0, 0);
  }
  /// Of experts that take `of` seconds each on a rank, and let it wait besides, for as long as the one that waits longest, where no rank computes more than `each` and `more` slots compute beside one an expert: the `more` heaviest may
  /// be in parts, of `part` seconds each.
  double company(const std::vector<double>& of, const std::vector<double>& waits, std::int64_t each, std::int64_t more, double part) const {
    const std::int64_t idle = each * ranks() - active() - more;
    for (const std::size_t r : serving_)
      if (d_.slots[r] < each) return 0;
    std::vector<std::size_t> order(of.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::ranges::stable_sort(order, std::greater(), [&](std::size_t e) { return of[e] + waits[e]; });
    std::vector<double> light = of;
    light.insert(light.end(), static_cast<std::size_t>(2 * more), part);
    std::ranges::sort(light);
    const std::int64_t calls = active() + more;
    double bound = 0, heaviest = 0, together = kInfinity;
    for (std::int64_t h = 1; h <= std::min(ranks(), active() - more); ++h) {
      const std::size_t last = order[static_cast<std::size_t>(more + h - 1)];
      heaviest += of[last] + waits[last];
      const double apart = (heaviest + sum_of_first(light, std::min(calls - h, h * (each - 1) - idle))) / static_cast<double>(h);
      const double others = sum_of_first(light, std::min(calls - 2, each - 2 - idle));
      for (std::int64_t i = 0; i + 1 < h && each > 1; ++i) {
        const std::size_t first = order[static_cast<std::size_t>(more + i)];
        together = std::min(together, of[first] + of[last] + std::max(waits[first], waits[last]) + others);
      }
      bound = std::max(bound, std::min(apart, together));
    }
    return bound;
  }

  /// What each rank takes for each expert.
  Configurations configurations() const {
    Configurations c;
    c.compute = c.enters = c.leaves = Matrix<double>(active(), ranks());
    c.rows_add = d_.dispatch_row_for == RowFor::copy && d_.combine_row_for == RowFor::copy;
    for (const std::size_t r : serving_) c.slots.push_back(d_.slots[r]);
    for (const auto& [ways, approaches, row_bytes] : {std::tuple{&c.in, &cuts_.there, d_.dispatch_row}, {&c.out, &cuts_.back, d_.combine_row}})
      for (std::size_t a = 0; row_bytes > 0 && a < approaches->size(); ++a) ways->push_back({(*approaches)[a].latency, Matrix<double>(active(), ranks())});
    for (std::int64_t e = 0; e < active(); ++e) {
      const std::vector<std::int64_t>& homes = homes_[static_cast<std::size_t>(e)];
      const Expert& expert = experts_[static_cast<std::size_t>(e)];
      for (const auto& [ways, approaches, row_bytes] : {std::tuple{&c.in, &cuts_.there, d_.dispatch_row}, {&c.out, &cuts_.back, d_.combine_row}}) {
        const Matrix<std::int64_t> near = near_copies(*approaches, homes);
        for (std::size_t a = 0; a < ways->size(); ++a)
          for (std::int64_t i = 0; i < ranks(); ++i)
            if (const std::int64_t far = expert.copies - near(static_cast<std::int64_t>(a), i); far > 0) (*ways)[a].seconds(e, i) = static_cast<double>(far * row_bytes) / (*approaches)[a].rates[serving_[static_cast<std::size_t>(i)]];
      }
      const auto nodes = cuts_.crossing ? entering(*cuts_.crossing, homes) : std::vector<std::vector<Entering>>();
      for (std::int64_t i = 0; i < ranks(); ++i) {
        c.compute(e, i) = expert.compute / (d_.speed.empty() ? 1 : d_.speed[serving_[static_cast<std::size_t>(i)]]);
        if (cuts_.crossing) std::tie(c.enters(e, i), c.leaves(e, i)) = crossing_waits(*cuts_.crossing, nodes, static_cast<std::size_t>(i));
      }
    }
    return c;
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
    const double row_seconds = static_cast<double>(d_.dispatch_row) / widest_in_ + (d_.combine_row_for == RowFor::token ? 0 : static_cast<double>(d_.combine_row) / widest_out_);
    // Experts that tokens want that enter any node by any rank, whole wherever they lie.
    std::int64_t wanted_by_all = 0;
    for (const std::vector<std::int64_t>& homes : homes_)
      wanted_by_all += std::ranges::all_of(crossing.homes, [&](const auto& entering) { return std::ranges::any_of(entering, [&](std::int32_t h) { return homes[static_cast<std::size_t>(h)] > 0; }); });
    std::vector<std::int64_t> node_ranks(static_cast<std::size_t>(nodes));
    for (const std::int32_t n : crossing.node) ++node_ranks[static_cast<std::size_t>(n)];
    const std::int64_t widest = std::ranges::max(node_ranks);
    const double own_of_replica = d_.in_turn ? static_cast<double>(widest) : kInfinity;
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
  double widest_in_ = 0, widest_out_ = 0;  // bytes/s at the rank where most can cross to it, and from it
  std::int64_t slots_ = 0, fullest_ = 0, spare_ = 0, total_ = 0;
  std::size_t most_ = 1;  // slots of one expert that are told apart
  double fastest_ = 0, slowest_ = kInfinity, speeds_ = 0;
  std::vector<Expert> experts_;  // that tokens want
  std::vector<std::vector<std::int64_t>> homes_;  // [expert][R] copies
  std::vector<Side> in_, out_;
  double replica_ = 0;
  double one_more_ = 0;  // of a layer in which some rank computes more experts than the fewest that the busiest must; not known without spare slots
};

/// The demand of placements in which every expert is whole and no rank computes more than `each`. Experts that nobody wants fill the slots that are left. Nothing where there are no such placements.
std::optional<Demand> all_whole(const Demand& d, std::int64_t each) {
  std::vector<std::int64_t> active;
  for (std::int64_t e = 0; e < d.kept.columns; ++e) {
    std::int64_t copies = 0;
    for (std::int64_t r = 0; r < d.kept.rows; ++r) copies += d.kept(r, e);
    if (copies > 0) active.push_back(e);
  }
  Demand out = d;
  std::int64_t slots = 0;
  for (std::int32_t& s : out.slots) s = static_cast<std::int32_t>(std::min<std::int64_t>(s, each)), slots += s;
  if (slots < static_cast<std::int64_t>(active.size())) return std::nullopt;
  out.kept = Matrix<std::int64_t>(d.kept.rows, slots);
  for (std::int64_t r = 0; r < d.kept.rows; ++r)
    for (std::size_t i = 0; i < active.size(); ++i) out.kept(r, static_cast<std::int64_t>(i)) = d.kept(r, active[i]);
  if (d.together.rows > 0) {
    out.together = Matrix<std::int64_t>(slots, slots);
    for (std::size_t i = 0; i < active.size(); ++i)
      for (std::size_t j = 0; j < active.size(); ++j) out.together(static_cast<std::int64_t>(i), static_cast<std::int64_t>(j)) = d.together(active[i], active[j]);
  }
  return out;
}

}  // namespace

Certificate turns_bound(const Demand& demand, const MachineCuts& cuts) {
  const Turns turns(demand, cuts);
  Certificate bound = turns.run();
  if (turns.spare() == 0) return bound;
  // Either some rank computes more experts than the busiest must; or none does, and all experts are whole, or some are not.
  double least = turns.one_more();
  if (least > bound.value) least = std::min(least, turns.none_more(bound.value));
  if (least <= bound.value) return bound;
  std::string_view because = "calls and waits";
  if (const std::optional<Demand> whole = all_whole(demand, turns.calls()))
    if (const Certificate apart = Turns(*whole, cuts).run(); apart.value < least) least = apart.value, because = apart.because;
  if (least > bound.value) bound = {least, because};
  return bound;
}

}  // namespace epsim
