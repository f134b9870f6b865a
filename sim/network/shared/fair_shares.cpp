#include "sim/network/shared/fair_shares.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <utility>

#include "base/check.h"
#include "base/vectorise.h"

namespace epsim {
namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();
constexpr double kTie = 1e-12;       // flows that end within this share of the clock are one event
constexpr double kDead = 1e-12;      // links within this share of a level are not put in another order: rounding would do it for ever
constexpr double kUnchanged = 1e-15;  // a level within this share of what it was is what it was
constexpr std::uint32_t kAhead = 3;   // links that a sweep asks for before their turn
constexpr double kWindow = 4;        // of the tolerance: so found by trying all-to-alls of random sizes
constexpr std::size_t kLanes = Lanes::kLanes;

/// The least of a whole number of blocks.
EPSIM_VECTORISE double least_of(const double* values, std::size_t count) {
  double lowest[kLanes];
  std::fill(lowest, lowest + kLanes, kNever);
  for (std::size_t i = 0; i < count; i += kLanes)
    for (std::size_t k = 0; k < kLanes; ++k) lowest[k] = values[i + k] < lowest[k] ? values[i + k] : lowest[k];
  return *std::min_element(lowest, lowest + kLanes);
}

/// The places where `values` is `wanted`.
EPSIM_VECTORISE void find_all(const std::uint16_t* values, std::size_t count, std::uint16_t wanted, std::vector<std::uint32_t>& places) {
  constexpr std::size_t kChunk = 64;
  places.clear();
  for (std::size_t i = 0; i < count; i += kChunk) {
    const std::size_t end = std::min(count, i + kChunk);
    if (end == i + kChunk) {
      std::uint16_t any = 0;
      for (std::size_t k = 0; k < kChunk; ++k) any |= static_cast<std::uint16_t>(-(values[i + k] == wanted));
      if (!any) continue;
    }
    for (std::size_t k = i; k < end; ++k)
      if (values[k] == wanted) places.push_back(static_cast<std::uint32_t>(k));
  }
}

}  // namespace

void FairShares::Soon::clear() {
  count = 0;
  limit = least = kNever;
}

FairShares::FairShares(const Topology& topology, double tolerance, Curve incast)
    : topology_(topology), window_(kWindow * tolerance), dead_(std::max(kDead, kWindow * tolerance / 3)), incast_(std::move(incast)), next_end_(kNever) {}

void FairShares::expect(std::vector<RankPair> pairs) {
  ensure(live_ == 0, "flows are expected before they begin");
  expected_ = std::move(pairs);
  crossings_ = {};
  link_.clear();
}

/// Calls visit(link, load) for the links of a flow: the part of the link's capacity that each unit of its rate for each unit of weight takes.
template <class Visit>
void FairShares::for_each_hop(std::uint32_t flow, Visit visit) const {
  const double w = weight(flow);
  const Number *const path = crossings_.path(flow), *const end = path + crossings_.hops();
  const double* const shares = crossings_.shares(flow);
  for (const Number* p = path; p != end && *p != Crossings::kNone; ++p) visit(*p, shares ? w * shares[p - path] : w);
}

template <class Visit>
void FairShares::for_each_own(Number q, Visit visit) const {
  crossings_.for_each(q, [&](std::uint32_t f) {
    if (link_[f] == q) visit(f);
  });
}

std::uint16_t FairShares::place_of_weight(double weight) const { return static_cast<std::uint16_t>(std::lower_bound(given_weights_.begin(), given_weights_.end(), weight) - given_weights_.begin()); }
bool FairShares::has_weight(double weight) const { return std::binary_search(given_weights_.begin(), given_weights_.end(), weight); }

void FairShares::share(FlowBatch& batch, double now) {
  const std::size_t flows = batch.size();
  if (flows == 0) return;
  if (live_ == 0) epoch_ = now, begun_ = 0;
  begun_ += flows;
  if (!place(batch)) {
    rebuild(batch, now);
  } else if (flows > live_ / 2) {
    settle(now);
    for (const std::uint32_t f : placed_) link_[f] = kOpen;
    live_ += flows;
    fill(now);
  } else {
    if (!rows_counted_) count_rows();
    just_filled_ = false;
    std::uint32_t from = kUnordered;
    for (const std::uint32_t f : placed_) from = std::min(from, begin(f, now));
    live_ += flows;
    sweep(from, now);
  }
  batch = {};
  find_next_end();
}

/// Finds for each flow of a batch one of the structure that is idle, and writes down there what it is. False where there are not enough.
bool FairShares::place(const FlowBatch& batch) {
  const std::span<const RankPair> pairs = crossings_.pairs();
  placed_.clear();
  std::size_t next = 0;  // flows mostly come in order
  double last = 0;       // weight
  const auto give_up = [&] {
    for (const std::uint32_t f : placed_) link_[f] = kIdle;
    return false;
  };
  for (std::size_t i = 0; i < batch.size(); ++i) {
    const RankPair pair = batch.pairs[i];
    if (batch.weight(i) != last && !has_weight(batch.weight(i))) return give_up();
    last = batch.weight(i);
    if (next >= pairs.size() || pairs[next] != pair || link_[next] != kIdle) {
      next = static_cast<std::size_t>(std::lower_bound(pairs.begin(), pairs.end(), pair) - pairs.begin());
      while (next < pairs.size() && pairs[next] == pair && link_[next] != kIdle) ++next;
      if (next == pairs.size() || pairs[next] != pair) return give_up();
    }
    link_[next] = kOpen;
    placed_.push_back(static_cast<std::uint32_t>(next++));
  }
  for (std::size_t i = 0; i < batch.size(); ++i) {
    const std::uint32_t f = placed_[i];
    if (!weight_.empty()) weight_[f] = place_of_weight(batch.weight(i));
    id_[f] = batch.ids[i];
    mark_[f] = batch.bytes[i] / weight(f);
    link_[f] = kIdle;
  }
  return true;
}

/// A new structure for what is under way, what begins and what is expected. May change the batch.
void FairShares::rebuild(FlowBatch& batch, double now) {
  settle(now);
  const std::span<const RankPair> before = crossings_.pairs();
  if (live_ > 0 && batch.weights.empty()) batch.weights.assign(batch.size(), 1);
  for (std::uint32_t f = 0; f < link_.size(); ++f)
    if (link_[f] == kOpen) batch.add(id_[f], before[f], mark_[f] * weight(f), weight_.empty() ? given_weights_.front() : given_weights_[weight_[f]]);

  given_weights_ = batch.weights.empty() ? std::vector<double>{1} : batch.weights;
  std::sort(given_weights_.begin(), given_weights_.end());
  given_weights_.erase(std::unique(given_weights_.begin(), given_weights_.end()), given_weights_.end());
  scale_weights();
  live_ = batch.size();

  const bool sorted = std::is_sorted(batch.pairs.begin(), batch.pairs.end());
  if (sorted && expected_.empty() && given_weights_.size() == 1) {
    crossings_ = Crossings(topology_, std::move(batch.pairs), !incast_.flat());
    id_ = std::move(batch.ids);
    mark_ = std::move(batch.bytes);
    weight_.clear();
    link_.assign(live_, kOpen);
    for (double& m : mark_) m /= weights_.front();
  } else {
    std::vector<RankPair> begun = batch.pairs, pairs;
    if (!sorted) std::sort(begun.begin(), begun.end());
    pairs.reserve(std::max(begun.size(), expected_.size()));
    auto expected = expected_.begin();
    for (const RankPair& p : begun) {
      while (expected != expected_.end() && *expected < p) pairs.push_back(*expected++);
      if (expected != expected_.end() && *expected == p) ++expected;
      pairs.push_back(p);
    }
    pairs.insert(pairs.end(), expected, expected_.end());
    const std::size_t flows = pairs.size();
    crossings_ = Crossings(topology_, std::move(pairs), !incast_.flat());
    link_.assign(flows, kIdle);
    id_.resize(flows);
    mark_.resize(flows);
    weight_.assign(given_weights_.size() == 1 ? 0 : flows, 0);
    ensure(place(batch), "the structure has a flow for each that begins");
    for (const std::uint32_t f : placed_) link_[f] = kOpen;
  }
  rows_laid_out_ = rows_counted_ = false;
  fill(now);
}

/// Whole multiples of the least weight, or of a fraction of it, take a byte in the rows.
void FairShares::scale_weights() {
  constexpr int kMostParts = 60;
  ensure(given_weights_.size() <= 65535 && given_weights_.front() > 0, "there are at most 65,535 different weights, all above 0");
  weights_ = given_weights_;
  for (double& w : weights_) w /= given_weights_.front();
  for (int parts = 1; parts <= kMostParts; ++parts) {
    const auto whole = [&](double w) { return std::abs(w * parts - std::round(w * parts)) <= 1e-13 * w * parts; };
    if (!std::all_of(weights_.begin(), weights_.end(), whole)) continue;
    for (double& w : weights_) w = std::round(w * parts);
    return;
  }
}

/// What every flow under way has left, as if it began now.
void FairShares::settle(double now) {
  if (live_ == 0) return;
  for (const Number q : order_) sync(state_[q], now);
  for (std::uint32_t f = 0; f < link_.size(); ++f) {
    if (link_[f] == kIdle) continue;
    mark_[f] = std::max(0.0, mark_[f] - state_[link_[f]].clock);
    link_[f] = kOpen;
  }
}

double FairShares::capacity(Number q) const {
  const double full = crossings_.capacity(q);
  return live_on_.empty() || live_on_[q] == 0 ? full : full * incast_(live_on_[q]);
}

/// A flow comes to the link into its receiver, or goes.
void FairShares::count_live(std::uint32_t flow, int by) {
  if (live_on_.empty()) return;
  for_each_hop(flow, [&](Number l, double) {
    if (!topology_.vertices()[static_cast<std::size_t>(topology_.links()[static_cast<std::size_t>(crossings_.link_of_topology(l))].to)].rank.valid()) return;
    live_on_[l] += static_cast<std::uint32_t>(by);
    state_[l].capacity = capacity(l);
  });
}

/// Progressive filling from nothing: all flows are open.
void FairShares::fill(double now) {
  const std::size_t links = crossings_.links();
  state_.assign(links, {});
  sum_.assign(ShareRows::room(links), 0);
  end_.assign(links, kNever);
  soon_.resize(links);
  order_.clear();
  loose_.assign((links + 63) / 64, 0);
  for (std::size_t l = 0; l < links; ++l) loose_[l / 64] |= std::uint64_t{1} << l % 64;
  rows_counted_ = false;
  just_filled_ = true;
  live_on_.assign(incast_.flat() ? 0 : links, 0);
  if (!live_on_.empty())
    for (std::uint32_t f = 0; f < link_.size(); ++f)
      if (link_[f] == kOpen) count_live(f, 1);
  std::vector<double> open(links);
  if (weight_.empty() && !crossings_.shares(0) && live_ == link_.size()) {
    for (std::size_t l = 0; l < links; ++l) open[l] = crossings_.crossing(l);
  } else {
    for (std::uint32_t f = 0; f < link_.size(); ++f)
      if (link_[f] == kOpen) for_each_hop(f, [&](Number l, double load) { open[l] += load; });
  }
  Lanes share;
  share.assign(links, kNever);
  for (std::size_t l = 0; l < links; ++l) {
    state_[l].capacity = capacity(static_cast<Number>(l));
    state_[l].level = kNever;
    state_[l].date = now;
    if (open[l] > 0) share[l] = state_[l].capacity / open[l];
  }
  // All links that tie for the lowest share are one step; they are put in order from the highest number down, and a flow belongs to the first of its links in the order.
  std::vector<double> taken(links);
  std::vector<Number> tied, touched;
  std::vector<std::uint8_t> is_tied(links);
  double level = 0;
  for (double lowest; (lowest = least_of(share.data(), share.size())) < kNever;) {
    level = std::max(level, lowest);  // levels ascend; only rounding could say otherwise
    tied.clear();
    touched.clear();
    std::size_t crossing = 0;
    for (std::size_t l = links; l-- > 0;) {
      if (share[l] > lowest * (1 + kTie)) continue;
      tied.push_back(static_cast<Number>(l));
      is_tied[l] = true;
      crossing += crossings_.crossing(l);
    }
    const auto take = [&](std::uint32_t f) {
      if (link_[f] != kOpen) return;
      int highest = -1;
      for_each_hop(f, [&](Number l, double) {
        if (is_tied[l]) highest = std::max<int>(highest, l);
      });
      if (highest < 0) return;
      link_[f] = static_cast<Number>(highest);
      ++state_[highest].own;
      for_each_hop(f, [&](Number l, double load) {
        if (l == highest) state_[l].weight += load;
        if (taken[l] == 0) touched.push_back(l);
        taken[l] += load;
      });
    };
    if (crossing >= link_.size()) {
      for (std::uint32_t f = 0; f < link_.size(); ++f) take(f);
    } else {
      for (const Number l : tied) crossings_.for_each(l, take);
    }
    for (const Number l : tied) {
      State& s = state_[l];
      is_tied[l] = false;
      share[l] = kNever;
      if (s.own == 0) continue;
      s.level = level;
      s.inverse = 1 / s.weight;
      put_last(l);
      sum_[l] -= s.weight * level;  // the next lines add all that was taken
    }
    for (const Number m : touched) {
      open[m] -= taken[m];
      sum_[m] += taken[m] * level;
      if (share[m] != kNever) share[m] = open[m] > 0 ? (state_[m].capacity - sum_[m]) / open[m] : kNever;
      taken[m] = 0;
    }
  }
  for (Soon& soon : soon_) soon.clear();
  for (std::uint32_t f = 0; f < link_.size(); ++f)
    if (link_[f] != kIdle) add_soon(link_[f], f);
  for (const Number q : order_) renew_end(q, now);
}

/// What sweeps need when a level changes, and not before.
void FairShares::count_rows() {
  if (rows_laid_out_) {
    rows_.clear();
  } else {
    const double most = weights_.back();  // a flow that is idle may begin with any weight
    struct Hop {
      Number link;
      double load;
    };
    std::vector<Hop> hops;
    rows_ = ShareRows(crossings_.links(), [&](auto visit) {
      for (std::uint32_t f = 0; f < link_.size(); ++f) {
        hops.clear();
        const double scale = link_[f] == kIdle && !weight_.empty() ? most / weight(f) : 1;
        for_each_hop(f, [&](Number l, double load) { hops.push_back({l, load * scale}); });
        for (const Hop& q : hops)
          for (const Hop& m : hops)
            if (q.link != m.link) visit(q.link, m.link, m.load);
      }
    });
    rows_laid_out_ = true;
  }
  for (std::uint32_t f = 0; f < link_.size(); ++f) {
    if (link_[f] == kIdle) continue;
    for_each_hop(f, [&](Number m, double load) {
      if (m != link_[f]) rows_.change(link_[f], m, load);
    });
  }
  rows_counted_ = true;
}

/// A flow joins those under way: it belongs to the first of its links in the order. Gives the place from which on links are concerned.
std::uint32_t FairShares::begin(std::uint32_t flow, double now) {
  Number q = *crossings_.path(flow);
  for_each_hop(flow, [&](Number l, double) {
    if (state_[l].position < state_[q].position) q = l;
  });
  State& s = state_[q];
  if (s.position == kUnordered) {
    // At level 0 its flows take nothing yet: the visit gives the link its level and place.
    s.level = s.clock = s.weight = 0;
    s.date = now;
    put_last(q);
    soon_[q].clear();
  } else {
    sync(s, now);
  }
  link_[flow] = q;
  mark_[flow] += s.clock;
  count_live(flow, 1);
  ++s.own;
  for_each_hop(flow, [&](Number m, double load) {
    if (m == q) {
      s.weight += load;
      return;
    }
    rows_.change(q, m, load);
    sum_[m] += load * s.level;
  });
  s.inverse = 1 / s.weight;
  add_soon(q, flow);
  renew_end(q, now);
  return s.position;
}

void FairShares::refill(Number q) {
  Soon& soon = soon_[q];
  // The kSoon - 4 least marks and the next one, which is the limit.
  constexpr std::size_t kTake = kSoon - 4;
  double limit = kNever;
  soon.count = 0;
  double greatest = -kNever;  // of those taken
  for_each_own(q, [&](std::uint32_t f) {
    const double mark = mark_[f];
    if (mark >= limit) return;
    if (soon.count < kTake) {
      soon.flow[soon.count] = f;
      soon.mark[soon.count++] = mark;
      greatest = std::max(greatest, mark);
      return;
    }
    // One is too many: the greatest is left out and becomes the limit.
    std::size_t worst = kTake;
    double worst_mark = mark;
    for (std::size_t i = 0; i < kTake; ++i)
      if (soon.mark[i] > worst_mark) worst = i, worst_mark = soon.mark[i];
    limit = worst_mark;
    if (worst < kTake) soon.flow[worst] = f, soon.mark[worst] = mark;
  });
  soon.limit = limit;
  soon.least = kNever;
  for (std::size_t i = 0; i < soon.count; ++i) soon.least = std::min(soon.least, soon.mark[i]);
}

void FairShares::drop_soon(Number q, std::uint32_t flow) {
  Soon& soon = soon_[q];
  for (std::size_t i = 0; i < soon.count; ++i) {
    if (soon.flow[i] != flow) continue;
    const double mark = soon.mark[i];
    --soon.count;
    soon.flow[i] = soon.flow[soon.count];
    soon.mark[i] = soon.mark[soon.count];
    if (mark == soon.least) {
      soon.least = kNever;
      for (std::size_t k = 0; k < soon.count; ++k) soon.least = std::min(soon.least, soon.mark[k]);
    }
    return;
  }
}

void FairShares::add_soon(Number q, std::uint32_t flow) {
  Soon& soon = soon_[q];
  const double mark = mark_[flow];
  if (mark >= soon.limit) return;
  if (soon.count == kSoon) {
    std::size_t worst = 0;
    for (std::size_t i = 1; i < kSoon; ++i)
      if (soon.mark[i] > soon.mark[worst]) worst = i;
    soon.limit = std::max(mark, soon.mark[worst]);
    if (mark >= soon.mark[worst]) return;
    soon.flow[worst] = flow;
    soon.mark[worst] = mark;
  } else {
    soon.flow[soon.count] = flow;
    soon.mark[soon.count++] = mark;
  }
  soon.least = std::min(soon.least, mark);
}

void FairShares::renew_end(Number q, double now) {
  State& s = state_[q];
  if (s.own == 0) {
    end_[q] = kNever;
    return;
  }
  if (soon_[q].count == 0) refill(q);
  s.least = soon_[q].least;
  end_[q] = end_of(s, now);
}

void FairShares::set_level(Number q, double level, double now) {
  State& s = state_[q];
  sync(s, now);
  rows_.add(q, level - s.level, sum_);
  s.level = level;
  end_[q] = end_of(s, now);
}

void FairShares::put_last(Number q) {
  state_[q].position = static_cast<std::uint32_t>(order_.size());
  order_.push_back(q);
  loose_[q / 64] &= ~(std::uint64_t{1} << q % 64);
}

/// Takes a link that has lost all its own flows out of the order.
void FairShares::unorder(std::uint32_t position) {
  State& s = state_[order_[position]];
  loose_[order_[position] / 64] |= std::uint64_t{1} << order_[position] % 64;
  s.position = kUnordered;
  s.level = kNever;
  s.weight = 0;
  end_[order_[position]] = kNever;
  order_.erase(order_.begin() + position);
  for (std::uint32_t i = position; i < order_.size(); ++i) state_[order_[i]].position = i;
}

/// Appends the flows of `from` that cross `to` to moves_.
void FairShares::find_shared(Number from, Number to) {
  const auto add = [&](std::uint32_t f) {
    __builtin_prefetch(&mark_[f], 1);
    __builtin_prefetch(crossings_.path(f));
    moves_.push_back({f, from});
  };
  if (crossings_.in_sequence(to)) {
    const std::uint32_t first = crossings_.first(to);
    find_all(link_.data() + first, crossings_.crossing(to), from, places_);
    for (const std::uint32_t place : places_) add(first + place);
  } else {
    crossings_.for_each_common(from, to, [&](std::uint32_t f) {
      if (link_[f] == from) add(f);
    });
  }
}

void FairShares::move_flow(std::uint32_t flow, Number from, Number to, double level) {
  State &a = state_[from], &b = state_[to];
  drop_soon(from, flow);
  mark_[flow] += b.clock - a.clock;
  link_[flow] = to;
  for_each_hop(flow, [&](Number m, double load) {
    if (m == from) {
      a.weight -= load;
      sum_[m] += load * level;
    } else {
      rows_.change(from, m, -load);
      if (m != to) sum_[m] += load * (level - a.level);
    }
    if (m != to) rows_.change(to, m, load);
  });
  --a.own;
  ++b.own;
  add_soon(to, flow);
}

/// The link q, at `position` or not in the order at all, has fallen to `level`, below links in front of it: it moves in front of them and takes over the flows that it shares with them. Gives its place.
std::uint32_t FairShares::take_over(std::uint32_t position, Number q, double level, double now) {
  if (!rows_counted_) count_rows();
  State& s = state_[q];
  passed_.clear();
  std::uint32_t j = position;
  double weight = s.weight;
  while (j > 0 && level < state_[order_[j - 1]].level) {
    const Number b = order_[j - 1];
    if (const double shared = rows_.at(b, q); shared > 0) {
      sum_[q] -= shared * state_[b].level;
      weight += shared;
      level = (s.capacity - sum_[q]) / weight;
      passed_.push_back(b);
    }
    --j;
  }
  if (s.own > 0) {
    sync(s, now);
    rows_.add(q, level - s.level, sum_);
  } else {
    s.date = now;
    soon_[q].clear();
  }
  for (const Number b : passed_) sync(state_[b], now);
  moves_.clear();
  for (const Number b : passed_) find_shared(b, q);
  for (const auto& [flow, from] : moves_) move_flow(flow, from, q, level);
  for (const Number b : passed_) {
    State& from = state_[b];
    from.inverse = from.own > 0 ? 1 / from.weight : 0;
    renew_end(b, now);
  }
  s.weight = weight;
  s.inverse = 1 / weight;
  s.level = level;
  renew_end(q, now);
  if (s.position == kUnordered) put_last(q), position = s.position;
  std::rotate(order_.begin() + j, order_.begin() + position, order_.begin() + position + 1);
  for (std::uint32_t i = j; i <= position; ++i) state_[order_[i]].position = i;
  return j;
}

/// The first link out of the order that has more to carry than it can, or kOpen.
FairShares::Number FairShares::first_overloaded() const {
  for (std::size_t w = 0; w < loose_.size(); ++w)
    for (std::uint64_t left = loose_[w]; left != 0; left &= left - 1) {
      const std::size_t q = w * 64 + static_cast<std::size_t>(std::countr_zero(left));
      if (sum_[q] > state_[q].capacity * (1 + kDead)) return static_cast<Number>(q);
    }
  return kOpen;
}

void FairShares::sweep(std::uint32_t from, double now) {
  while (true) {
    // The sum of the next link is found before the row is added, so that its level need not wait for the row.
    double next_sum = 0;
    bool has_next = false;
    for (std::uint32_t i = from; i < order_.size();) {
      const Number q = order_[i];
      State& s = state_[q];
      if (i + kAhead < order_.size()) {
        __builtin_prefetch(&state_[order_[i + kAhead]]);
        if (rows_counted_) rows_.prefetch(order_[i + kAhead]);
      }
      const double sum = has_next ? next_sum : sum_[q];
      has_next = false;
      if (s.own == 0) {
        unorder(i);
        continue;
      }
      const double level = (s.capacity - sum) * s.inverse;
      if (const double before = i > 0 ? state_[order_[i - 1]].level : 0; level < before * (1 - kDead)) {
        if (level < before * (1 - dead_)) {
          i = take_over(i, q, level, now) + 1;
          continue;
        }
        order_kept_ = true;
      }
      if (std::abs(level - s.level) > kUnchanged * level) {
        if (!rows_counted_) count_rows();
        if (i + 1 < order_.size()) {
          const Number next = order_[i + 1];
          next_sum = sum_[next] + (level - s.level) * rows_.at(q, next);
          has_next = true;
        }
        set_level(q, level, now);
      }
      ++i;
    }
    // Links with nothing to hold back, until flows that others held back ask for more than they have.
    const Number over = first_overloaded();
    if (over == kOpen) return;
    from = take_over(static_cast<std::uint32_t>(order_.size()), over, 0, now) + 1;
  }
}

/// How long an event lasts, as a share of the time since the first flow began: longer while most flows are under way, since each is then a small part of its links.
double FairShares::window() const { return window_ * std::clamp(2.0 * static_cast<double>(live_) / static_cast<double>(begun_), 0.6, 1.5); }

/// Writes down the flows that end by `window`, each with its own time.
void FairShares::collect_ends(double now, double window) {
  finishes_.clear();
  // The one that is due ends, whatever rounding says.
  const auto last_mark = [&](Number q) { return std::max(state_[q].clock + state_[q].level * (window - state_[q].date), soon_[q].least); };
  const auto end = [&](const State& s, std::uint32_t f) { finishes_.push_back({f, std::max(now, s.date + (mark_[f] - s.clock) / s.level)}); };
  if (just_filled_) {
    // Often all end at once, and then the lists of the links are never needed.
    for (std::uint32_t f = 0; f < link_.size(); ++f)
      if (const Number q = link_[f]; q != kIdle && end_[q] <= window && mark_[f] <= last_mark(q)) end(state_[q], f);
    return;
  }
  for (const Number q : order_) {
    if (end_[q] > window) continue;
    const double mark = last_mark(q);
    if (mark < soon_[q].limit) {
      for (std::size_t i = 0; i < soon_[q].count; ++i)
        if (soon_[q].mark[i] <= mark) end(state_[q], soon_[q].flow[i]);
    } else {
      for_each_own(q, [&](std::uint32_t f) {
        if (mark_[f] <= mark) end(state_[q], f);
      });
    }
  }
}

void FairShares::end_next(std::vector<FlowEnd>& ended) {
  const double now = next_end_, reach = window_ > 0 ? window() * (now - epoch_) : 0;
  collect_ends(now, now * (1 + kTie) + reach);
  ensure(!finishes_.empty(), "a flow ends at the next end");
  double last = now;
  for (const Finish& f : finishes_) last = std::max(last, f.at);
  if (window_ > 0) lengths_ += static_cast<double>(finishes_.size()) * (last - now) / now, ends_ += finishes_.size();
  ended.reserve(ended.size() + finishes_.size());
  for (const auto& [f, at] : finishes_) ended.push_back({id_[f], crossings_.pairs()[f], at});
  live_ -= finishes_.size();
  if (live_ == 0) {
    for (const auto& [f, at] : finishes_) link_[f] = kIdle;
  } else {
    just_filled_ = false;
    std::uint32_t from = kUnordered;
    std::vector<Number>& held = passed_;
    held.clear();
    for (const auto& [f, at] : finishes_) {
      const Number b = link_[f];
      State& s = state_[b];
      link_[f] = kIdle;
      count_live(f, -1);
      drop_soon(b, f);
      for_each_hop(f, [&](Number m, double load) {
        from = std::min(from, state_[m].position);
        if (m == b) {
          s.weight -= load;
          return;
        }
        if (rows_counted_) rows_.change(b, m, -load);
        sum_[m] -= load * s.level;
      });
      --s.own;
      if (held.empty() || held.back() != b) held.push_back(b);
    }
    const double renewed = now + reach / 2;
    for (const Number b : held) {
      State& s = state_[b];
      s.inverse = s.own > 0 ? 1 / s.weight : 0;
      renew_end(b, renewed);
    }
    sweep(from, renewed);
  }
  find_next_end();
}

void FairShares::find_next_end() { next_end_ = live_ > 0 ? least_of(end_.data(), end_.size()) : kNever; }

}  // namespace epsim
