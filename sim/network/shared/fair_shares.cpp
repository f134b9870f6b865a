#include "sim/network/shared/fair_shares.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <utility>

#include "base/check.h"
#include "base/vectorise.h"

namespace epsim {
namespace {

constexpr double kDead = 1e-12;      // links within this share of a level are not put in another order: rounding would do it for ever
constexpr double kUnchanged = 1e-15;  // a level within this share of what it was is what it was
constexpr std::uint32_t kAhead = 3;   // links that a sweep asks for before their turn
constexpr double kWindow = 4;        // of the tolerance: so found by trying all-to-alls of random sizes

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

FairShares::FairShares(const Topology& topology, double tolerance, Curve incast)
    : topology_(topology), window_(kWindow * tolerance), dead_(std::max(kDead, kWindow * tolerance / 3)), incast_(std::move(incast)), next_end_(kNever) {}

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
  soon_[q].add(flow, mark_[flow]);
  renew_end(q, now);
  return s.position;
}

void FairShares::renew_end(Number q, double now) {
  State& s = state_[q];
  if (s.own == 0) {
    end_[q] = kNever;
    return;
  }
  if (soon_[q].empty()) soon_[q].refill([&](auto visit) { for_each_own(q, [&](std::uint32_t f) { visit(f, mark_[f]); }); });
  s.least = soon_[q].least();
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
  soon_[from].drop(flow);
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
  soon_[to].add(flow, mark_[flow]);
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
  const auto last_mark = [&](Number q) { return std::max(state_[q].clock + state_[q].level * (window - state_[q].date), soon_[q].least()); };
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
    if (mark < soon_[q].limit()) {
      soon_[q].for_each([&](std::uint32_t f, double own) {
        if (own <= mark) end(state_[q], f);
      });
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
      soon_[b].drop(f);
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

void FairShares::find_next_end() { next_end_ = live_ > 0 ? end_.least() : kNever; }

}  // namespace epsim
