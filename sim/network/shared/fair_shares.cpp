#include "sim/network/shared/fair_shares.h"

#include <algorithm>
#include <limits>

#include "base/check.h"
#include "base/vectorise.h"

namespace epsim {
namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();
constexpr double kTie = 1e-12;       // flows that end within this share of the clock are one event
constexpr double kDead = 1e-12;      // links within this share of a level are not put in another order: rounding would do it for ever
constexpr double kUnchanged = 1e-15;
constexpr std::size_t kFewPassed = 4;
constexpr std::size_t kLanes = Lanes::kLanes;

/// The least of a whole number of blocks.
EPSIM_VECTORISE double least_of(const double* values, std::size_t count) {
  double lowest[kLanes];
  std::fill(lowest, lowest + kLanes, kNever);
  for (std::size_t i = 0; i < count; i += kLanes)
    for (std::size_t k = 0; k < kLanes; ++k) lowest[k] = values[i + k] < lowest[k] ? values[i + k] : lowest[k];
  return *std::min_element(lowest, lowest + kLanes);
}

/// Appends the places where `values` is `wanted`.
EPSIM_VECTORISE void find_all(const std::uint16_t* values, std::size_t count, std::uint16_t wanted, std::vector<std::uint32_t>& places) {
  constexpr std::size_t kChunk = 64;
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

FairShares::FairShares(const Topology& topology) : topology_(topology), next_end_(kNever) {}

void FairShares::add(std::int64_t id, Rank source, Rank destination, double bytes, std::uint16_t weight) {
  if (weight != 1 && weight_.empty()) weight_.assign(id_.size(), 1);
  id_.push_back(id);
  pair_.push_back({source, destination});
  mark_.push_back(bytes);
  link_.push_back(kOpen);
  if (!weight_.empty()) weight_.push_back(weight);
}

void FairShares::share(double now) {
  if (staged_ == id_.size()) return;
  rebuild(now);
}

void FairShares::rebuild(double now) {
  std::size_t kept = 0;
  for (std::size_t f = 0; f < id_.size(); ++f) {
    if (link_[f] == kEnded) continue;
    double bytes = mark_[f] / (f < staged_ ? 1 : weight(static_cast<std::uint32_t>(f)));
    if (f < staged_) {
      State& s = state_[link_[f]];
      if (s.date != now) sync(s, now);
      bytes = std::max(0.0, bytes - s.clock);
    }
    id_[kept] = id_[f];
    pair_[kept] = pair_[f];
    mark_[kept] = bytes;
    if (!weight_.empty()) weight_[kept] = weight_[f];
    ++kept;
  }
  id_.resize(kept);
  pair_.resize(kept);
  mark_.resize(kept);
  if (!weight_.empty()) weight_.resize(kept);
  link_.assign(kept, kOpen);
  staged_ = live_ = kept;
  crossings_ = Crossings(topology_, pair_);
  has_rows_ = false;
  fill(now);
}

template <class Visit>
void FairShares::for_each_own(Number q, Visit visit) const {
  crossings_.for_each(q, [&](std::uint32_t f) {
    if (link_[f] == q) visit(f);
  });
}

/// Progressive filling from nothing.
void FairShares::fill(double now) {
  const std::size_t links = crossings_.links(), hops = crossings_.hops();
  state_.assign(links, {});
  sum_.assign(links, 0);
  end_.assign(links, kNever);
  soon_.resize(links);
  order_.clear();
  std::vector<double> open(links);
  Lanes share;
  share.assign(links, kNever);
  if (weight_.empty()) {
    for (std::size_t l = 0; l < links; ++l) open[l] = crossings_.crossing(l);
  } else {
    for (std::uint32_t f = 0; f < link_.size(); ++f)
      for (const Number *p = crossings_.path(f), *e = p + hops; p != e && *p != Crossings::kNone; ++p) open[*p] += weight(f);
  }
  for (std::size_t l = 0; l < links; ++l) {
    state_[l].capacity = crossings_.capacity(l);
    state_[l].level = kNever;
    state_[l].date = now;
    share[l] = state_[l].capacity / open[l];
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
      const Number *const path = crossings_.path(f), *const end = path + hops;
      int highest = -1;
      for (const Number* p = path; p != end && *p != Crossings::kNone; ++p)
        if (is_tied[*p]) highest = std::max<int>(highest, *p);
      if (highest < 0) return;
      const auto l = static_cast<Number>(highest);
      const double w = weight(f);
      link_[f] = l;
      state_[l].weight += w;
      ++state_[l].own;
      for (const Number* p = path; p != end && *p != Crossings::kNone; ++p) {
        if (taken[*p] == 0) touched.push_back(*p);
        taken[*p] += w;
      }
    };
    if (crossing >= link_.size()) {
      for (std::uint32_t f = 0; f < link_.size(); ++f) take(f);
    } else {
      for (const Number l : tied) {
        if (!crossings_.in_sequence(l) && !crossings_.has_lists()) crossings_.build_lists();
        crossings_.for_each(l, take);
      }
    }
    for (const Number l : tied) {
      State& s = state_[l];
      is_tied[l] = false;
      share[l] = kNever;
      if (s.own == 0) continue;
      s.level = level;
      s.inverse = 1 / s.weight;
      s.position = static_cast<std::uint32_t>(order_.size());
      order_.push_back(l);
      sum_[l] -= s.weight * level;  // what follows adds all that was taken
    }
    for (const Number m : touched) {
      open[m] -= taken[m];
      sum_[m] += taken[m] * level;
      if (share[m] != kNever) share[m] = open[m] > 0 ? (state_[m].capacity - sum_[m]) / open[m] : kNever;
      taken[m] = 0;
    }
  }
  for (Soon& soon : soon_) {
    soon.count = 0;
    soon.limit = soon.least = kNever;
  }
  for (std::uint32_t f = 0; f < link_.size(); ++f) add_soon(link_[f], f);
  for (const Number q : order_) renew_end(q, now);
  next_end_ = least_of(end_.data(), end_.size());
}

void FairShares::build_rows() {
  if (!crossings_.has_lists()) crossings_.build_lists();
  const std::size_t hops = crossings_.hops();
  rows_ = ShareRows(crossings_.links(), [&](auto visit) {
    for (std::uint32_t f = 0; f < link_.size(); ++f) {
      if (link_[f] == kEnded) continue;
      const Number *const path = crossings_.path(f), *end = std::find(path, path + hops, Crossings::kNone);
      for (const Number* p = path; p != end; ++p)
        for (const Number* o = path; o != end; ++o)
          if (p != o) visit(*p, *o, weight(f));
    }
  });
  for (std::uint32_t f = 0; f < link_.size(); ++f) {
    if (link_[f] == kEnded) continue;
    for (const Number *p = crossings_.path(f), *e = p + hops; p != e && *p != Crossings::kNone; ++p)
      if (*p != link_[f]) rows_.change(link_[f], *p, weight(f));
  }
  has_rows_ = true;
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
  end_[q] = std::max(now, s.date + (soon_[q].least - s.clock) / s.level);
}

void FairShares::set_level(Number q, double level, double now) {
  State& s = state_[q];
  sync(s, now);
  rows_.add(q, level - s.level, sum_);
  s.level = level;
  end_[q] = std::max(now, now + (soon_[q].least - s.clock) / level);
}

/// Takes a link that has lost all its own flows out of the order.
void FairShares::unorder(std::uint32_t position) {
  State& s = state_[order_[position]];
  s.position = kUnordered;
  s.level = kNever;
  s.weight = 0;
  end_[order_[position]] = kNever;
  order_.erase(order_.begin() + position);
  for (std::uint32_t i = position; i < order_.size(); ++i) place(i);
}

template <class Visit>
void FairShares::for_each_shared(Number held_by, Number crossing, Visit visit) {
  // Whichever of the two has its flows in sequence can be searched fast.
  shared_.clear();
  const std::size_t hops = crossings_.hops();
  if (crossings_.in_sequence(crossing)) {
    const std::uint32_t first = crossings_.first(crossing);
    find_all(link_.data() + first, crossings_.crossing(crossing), held_by, shared_);
    for (std::uint32_t& f : shared_) f += first;
  } else if (crossings_.in_sequence(held_by)) {
    const std::uint32_t first = crossings_.first(held_by);
    find_all(crossings_.path(first), crossings_.crossing(held_by) * hops, crossing, shared_);
    for (std::uint32_t& f : shared_) f = first + static_cast<std::uint32_t>(f / hops);
    std::erase_if(shared_, [&](std::uint32_t f) { return link_[f] != held_by; });
  } else if (crossings_.crossing(crossing) <= crossings_.crossing(held_by)) {
    for (const std::uint32_t f : crossings_.list(crossing))
      if (link_[f] == held_by) shared_.push_back(f);
  } else {
    for (const std::uint32_t f : crossings_.list(held_by)) {
      const Number* const path = crossings_.path(f);
      if (link_[f] == held_by && std::find(path, path + hops, crossing) != path + hops) shared_.push_back(f);
    }
  }
  for (const std::uint32_t f : shared_) visit(f);
}

void FairShares::move_flow(std::uint32_t flow, Number from, Number to, double level) {
  State &a = state_[from], &b = state_[to];
  const double w = weight(flow);
  drop_soon(from, flow);
  mark_[flow] += b.clock - a.clock;
  link_[flow] = to;
  for (const Number *p = crossings_.path(flow), *e = p + crossings_.hops(); p != e && *p != Crossings::kNone; ++p) {
    if (*p != from) rows_.change(from, *p, -w);
    if (*p != to) rows_.change(to, *p, w);
    if (*p == from)
      sum_[*p] += w * level;
    else if (*p != to)
      sum_[*p] += w * (level - a.level);
  }
  a.weight -= w;
  --a.own;
  ++b.own;
  add_soon(to, flow);
}

/// The link q, at `position` or not in the order at all, has fallen to `level`, below links in front of it: it moves in front of them and takes over the flows that it shares with them. Gives its place.
std::uint32_t FairShares::take_over(std::uint32_t position, Number q, double level, double now) {
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
    soon_[q].count = 0;
    soon_[q].limit = soon_[q].least = kNever;
  }
  for (const Number b : passed_) sync(state_[b], now);
  if (passed_.size() <= kFewPassed) {
    for (const Number b : passed_) for_each_shared(b, q, [&](std::uint32_t f) { move_flow(f, b, q, level); });
  } else {
    // All the flows of q are fewer than the searches for each link would look at. Those of links that were not passed are of links in front.
    crossings_.for_each(q, [&](std::uint32_t f) {
      const Number b = link_[f];
      if (b < kEnded && b != q && state_[b].position >= j) move_flow(f, b, q, level);
    });
  }
  for (const Number b : passed_) {
    State& from = state_[b];
    from.inverse = from.own > 0 ? 1 / from.weight : 0;
    renew_end(b, now);
  }
  s.weight = weight;
  s.inverse = 1 / weight;
  s.level = level;
  renew_end(q, now);
  if (s.position == kUnordered) order_.push_back(q), position = static_cast<std::uint32_t>(order_.size() - 1);
  std::rotate(order_.begin() + j, order_.begin() + position, order_.begin() + position + 1);
  for (std::uint32_t i = j; i <= position; ++i) place(i);
  return j;
}

void FairShares::sweep(std::uint32_t from, double now) {
  while (true) {
    // The sum of the next link is found before the row is added, so that its level need not wait for the row.
    double next_sum = 0;
    bool has_next = false;
    for (std::uint32_t i = from; i < order_.size();) {
      const Number q = order_[i];
      State& s = state_[q];
      const double sum = has_next ? next_sum : sum_[q];
      has_next = false;
      if (s.own == 0) {
        unorder(i);
        continue;
      }
      const double level = (s.capacity - sum) * s.inverse;
      if (i > 0 && level < state_[order_[i - 1]].level * (1 - kDead)) {
        i = take_over(i, q, level, now) + 1;
        continue;
      }
      if (std::abs(level - s.level) > kUnchanged * level) {
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
    std::size_t over = 0;
    while (over < state_.size() && !(state_[over].position == kUnordered && sum_[over] > state_[over].capacity * (1 + kDead))) ++over;
    if (over == state_.size()) return;
    from = take_over(static_cast<std::uint32_t>(order_.size()), static_cast<Number>(over), 0, now) + 1;
  }
}

void FairShares::end_next(std::vector<Ended>& ended) {
  const double now = next_end_, window = now * (1 + kTie);
  finishes_.clear();
  const auto reached = [&](const State& q) { return q.clock + q.level * (window - q.date); };
  const auto end = [&](const State& q, std::uint32_t f) { finishes_.push_back({f, std::max(now, q.date + (mark_[f] - q.clock) / q.level)}); };
  if (!has_rows_) {
    for (std::uint32_t f = 0; f < link_.size(); ++f)
      if (const Number q = link_[f]; end_[q] <= window && mark_[f] <= std::max(reached(state_[q]), soon_[q].least)) end(state_[q], f);
  } else {
    for (std::size_t q = 0; q < state_.size(); ++q) {
      if (end_[q] > window) continue;
      const double mark = std::max(reached(state_[q]), soon_[q].least);  // the one that is due ends, whatever rounding says
      if (mark < soon_[q].limit) {
        for (std::size_t i = 0; i < soon_[q].count; ++i)
          if (soon_[q].mark[i] <= mark) end(state_[q], soon_[q].flow[i]);
      } else {
        for_each_own(static_cast<Number>(q), [&](std::uint32_t f) {
          if (mark_[f] <= mark) end(state_[q], f);
        });
      }
    }
  }
  ensure(!finishes_.empty(), "a flow ends at the next end");
  for (const Finish& f : finishes_) ended.push_back({id_[f.flow], Rank(pair_[f.flow].source), Rank(pair_[f.flow].destination), f.at});
  if (finishes_.size() == live_) {
    id_.clear();
    pair_.clear();
    mark_.clear();
    weight_.clear();
    link_.clear();
    staged_ = live_ = 0;
    next_end_ = kNever;
    return;
  }
  if (!has_rows_) build_rows();
  live_ -= finishes_.size();
  std::uint32_t from = kUnordered;
  std::vector<Number>& held = passed_;
  held.clear();
  for (const auto& [f, at] : finishes_) {
    const Number b = link_[f];
    State& s = state_[b];
    const double w = weight(f);
    link_[f] = kEnded;
    drop_soon(b, f);
    for (const Number *p = crossings_.path(f), *e = p + crossings_.hops(); p != e && *p != Crossings::kNone; ++p) {
      from = std::min(from, state_[*p].position);
      if (*p == b) continue;
      rows_.change(b, *p, -w);
      sum_[*p] -= w * s.level;
    }
    s.weight -= w;
    --s.own;
    if (held.empty() || held.back() != b) held.push_back(b);
  }
  for (const Number b : held) {
    State& s = state_[b];
    s.inverse = s.own > 0 ? 1 / s.weight : 0;
    renew_end(b, now);
  }
  sweep(from, now);
  next_end_ = least_of(end_.data(), end_.size());
}

}  // namespace epsim
