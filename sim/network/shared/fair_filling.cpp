// The rates of FairShares from nothing, and what its sweeps need then.
#include <algorithm>

#include "sim/network/shared/fair_shares.h"

namespace epsim {

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
  for (double lowest; (lowest = share.least()) < kNever;) {
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
  for (Soonest& soon : soon_) soon.clear();
  for (std::uint32_t f = 0; f < link_.size(); ++f)
    if (link_[f] != kIdle) soon_[link_[f]].add(f, mark_[f]);
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

}  // namespace epsim
