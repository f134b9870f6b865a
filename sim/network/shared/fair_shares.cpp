#include "sim/network/shared/fair_shares.h"

#include <algorithm>
#include <limits>

#include "base/check.h"

namespace epsim {
namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();
constexpr double kTie = 1e-12;      // flows that end within this share of the clock are one event
constexpr int kRefillsToReset = 256;  // sums are kept by adding and taking away; begin them from zero this often
constexpr std::size_t kLanes = 8;

}  // namespace

FairShares::FairShares(const Topology& topology) : topology_(topology), next_end_(kNever) {}

void FairShares::settle(double now) {
  for (std::size_t i = 0; i < levels_.size(); ++i)
    for (std::size_t j = levels_[i].first; j < end_of(i); ++j) {
      double& bytes = remaining_[filled_[j]];
      bytes = std::max(0.0, bytes - levels_[i].rate * (now - levels_[i].date));
    }
  std::size_t kept = 0;
  for (std::size_t f = 0; f < flows_.size(); ++f) {
    if (f < level_of_.size() && level_of_[f] == kEnded) continue;
    flows_[kept] = flows_[f];
    remaining_[kept++] = remaining_[f];
  }
  flows_.resize(kept);
  remaining_.resize(kept);
  live_ = kept;
}

void FairShares::find_binding_links() {
  const std::span<const Link> links = topology_.links();
  std::vector<std::uint32_t> crossing(links.size());
  std::vector<std::uint32_t> hop_first{0}, hops;
  hop_first.reserve(flows_.size() + 1);
  for (const Live& f : flows_) {
    topology_.for_each_link(f.source, f.destination, [&](std::int32_t l) {
      hops.push_back(static_cast<std::uint32_t>(l));
      ++crossing[l];
    });
    hop_first.push_back(static_cast<std::uint32_t>(hops.size()));
  }
  // A link never binds where another link, no wider, carries all of its flows. Such a link is looked for among the links of its first flow; each further flow strikes out what it does not cross.
  const auto narrower = [&](std::uint32_t a, std::uint32_t b) {
    if (links[a].bandwidth != links[b].bandwidth) return links[a].bandwidth < links[b].bandwidth;
    return crossing[a] != crossing[b] ? crossing[a] > crossing[b] : a < b;
  };
  std::vector<std::vector<std::uint32_t>> rulers(links.size());
  std::vector<bool> seen(links.size());
  for (std::size_t f = 0; f < flows_.size(); ++f) {
    const std::span<const std::uint32_t> mine(hops.data() + hop_first[f], hops.data() + hop_first[f + 1]);
    for (const std::uint32_t l : mine) {
      if (!seen[l]) {
        seen[l] = true;
        std::copy_if(mine.begin(), mine.end(), std::back_inserter(rulers[l]), [&](std::uint32_t m) { return m != l && narrower(m, l); });
      } else if (!rulers[l].empty()) {
        std::erase_if(rulers[l], [&](std::uint32_t m) { return std::find(mine.begin(), mine.end(), m) == mine.end(); });
      }
    }
  }

  std::vector<std::uint32_t> number(links.size());
  capacity_.clear();
  list_first_.assign(1, 0);
  for (std::size_t l = 0; l < links.size(); ++l)
    if (seen[l] && rulers[l].empty()) {
      number[l] = static_cast<std::uint32_t>(capacity_.size());
      capacity_.push_back(links[l].bandwidth);
      list_first_.push_back(list_first_.back() + crossing[l]);
    }
  list_end_.assign(list_first_.begin(), list_first_.end() - 1);
  list_.resize(list_first_.back());
  hops_ = 0;
  for (std::size_t f = 0; f < flows_.size(); ++f)
    hops_ = std::max<std::size_t>(hops_, std::count_if(hops.begin() + hop_first[f], hops.begin() + hop_first[f + 1], [&](std::uint32_t l) { return rulers[l].empty(); }));
  path_.assign(flows_.size() * hops_, static_cast<std::uint32_t>(capacity_.size()));
  capacity_.push_back(kNever);
  for (std::size_t f = 0; f < flows_.size(); ++f) {
    std::size_t at = f * hops_;
    for (std::size_t h = hop_first[f]; h < hop_first[f + 1]; ++h)
      if (rulers[hops[h]].empty()) {
        const std::uint32_t l = number[hops[h]];
        path_[at++] = l;
        list_[list_end_[l]++] = static_cast<std::uint32_t>(f);
      }
  }
}

void FairShares::share(double now) {
  settle(now);
  find_binding_links();
  const std::size_t links = capacity_.size();
  levels_.clear();
  filled_.resize(flows_.size() + 1);  // + 1: filling writes one beyond before it counts
  filled_count_ = 0;
  touched_.resize(links + 1);
  level_of_.assign(flows_.size(), kOpen);
  used_.assign(links, 0);
  count_.assign(links, 0);
  share_.assign((links + kLanes - 1) / kLanes * kLanes, kNever);
  open_.assign(links, 0);
  for (std::size_t l = 0; l + 1 < links; ++l) open_[l] = list_end_[l] - list_first_[l];
  refill(0, now);
}

void FairShares::open_from(std::size_t level, double now) {
  std::uint32_t *const count = count_.data(), *const touched = touched_.data();
  for (std::size_t i = level; i < levels_.size(); ++i) {
    const Level v = levels_[i];
    const double sent = v.rate * (now - v.date);
    std::size_t touches = 0;
    for (std::size_t j = v.first; j < end_of(i); ++j) {
      const std::uint32_t f = filled_[j];
      touches = count_path(f, touches);
      if (level_of_[f] == kEnded) {
        for (std::size_t h = f * hops_; h < (f + 1) * hops_; ++h) --open_[path_[h]];
      } else {
        remaining_[f] = std::max(0.0, remaining_[f] - sent);
        level_of_[f] = kOpen;
      }
    }
    // The very product that filling added, so that most of the rounding goes with it.
    for (std::size_t k = 0; k < touches; ++k) {
      const std::uint32_t l = touched[k];
      used_[l] -= count[l] * v.rate;
      open_[l] += count[l];
      count[l] = 0;
    }
  }
  if (level < levels_.size()) {
    filled_count_ = levels_[level].first;
    levels_.resize(level);
  }
  if (level == 0) std::fill(used_.begin(), used_.end(), 0.0);
}

std::size_t FairShares::count_path(std::uint32_t flow, std::size_t touches) {
  std::uint32_t *const count = count_.data(), *const touched = touched_.data();
  const std::uint32_t* const path = path_.data() + flow * hops_;
  for (std::size_t h = 0; h < hops_; ++h) {
    touched[touches] = path[h];
    touches += count[path[h]]++ == 0;
  }
  return touches;
}

std::size_t FairShares::lowest_share() const {
  // Eight running minima, so that the compiler can use vectors; the lowest number wins a tie.
  double lowest[kLanes];
  std::fill(lowest, lowest + kLanes, kNever);
  const double* s = share_.data();
  for (std::size_t i = 0; i < share_.size(); i += kLanes)
    for (std::size_t k = 0; k < kLanes; ++k) lowest[k] = s[i + k] < lowest[k] ? s[i + k] : lowest[k];
  const double share = *std::min_element(lowest, lowest + kLanes);
  if (share == kNever) return list_end_.size();
  std::size_t l = 0;
  while (s[l] != share) ++l;
  return l;
}

void FairShares::refill(std::size_t level, double now) {
  if (++refills_ % kRefillsToReset == 0) level = 0;
  open_from(level, now);
  for (std::size_t l = 0; l < list_end_.size(); ++l) share_[l] = open_[l] ? (capacity_[l] - used_[l]) / open_[l] : kNever;

  std::uint32_t *const count = count_.data(), *const list = list_.data(), *const filled = filled_.data(), *const touched = touched_.data();
  std::int32_t* const level_of = level_of_.data();
  for (std::size_t l; (l = lowest_share()) < list_end_.size();) {
    const auto number = static_cast<std::int32_t>(levels_.size());
    // Levels ascend; only rounding could say otherwise.
    const double rate = levels_.empty() ? share_[l] : std::max(share_[l], levels_.back().rate);
    // Which flows are open looks random to a branch predictor: write all, count some.
    std::uint32_t kept = list_first_[l];
    std::size_t next = filled_count_;
    for (std::uint32_t j = kept, end = list_end_[l]; j < end; ++j) {
      const std::uint32_t f = list[j];
      list[kept] = f;
      kept += level_of[f] != kEnded;
      filled[next] = f;
      next += level_of[f] == kOpen;
    }
    list_end_[l] = kept;
    double least = kNever;
    std::size_t touches = 0;
    for (std::size_t j = filled_count_; j < next; ++j) {
      const std::uint32_t f = filled[j];
      level_of[f] = number;
      least = std::min(least, remaining_[f]);
      touches = count_path(f, touches);
    }
    levels_.push_back({rate, now, now + least / rate, static_cast<std::uint32_t>(filled_count_)});
    filled_count_ = next;
    for (std::size_t k = 0; k < touches; ++k) {
      const std::uint32_t m = touched[k];
      used_[m] += count[m] * rate;
      open_[m] -= count[m];
      count[m] = 0;
      share_[m] = open_[m] ? (capacity_[m] - used_[m]) / open_[m] : kNever;
    }
  }

  next_end_ = kNever;
  for (const Level& v : levels_) next_end_ = std::min(next_end_, v.first_end);
}

void FairShares::end_next(std::vector<Ended>& ended) {
  const double now = next_end_, window = now * (1 + kTie);
  std::size_t first = levels_.size();
  for (std::size_t i = 0; i < levels_.size(); ++i) {
    if (levels_[i].first_end > window) continue;
    first = std::min(first, i);
    for (std::size_t j = levels_[i].first; j < end_of(i); ++j) {
      const std::uint32_t f = filled_[j];
      const double at = levels_[i].date + remaining_[f] / levels_[i].rate;
      if (at > window) continue;
      level_of_[f] = kEnded;
      --live_;
      ended.push_back({flows_[f].id, flows_[f].source, flows_[f].destination, at});
    }
  }
  ensure(first < levels_.size(), "a flow ends at the next end");
  if (live_ == 0) {
    flows_.clear();
    remaining_.clear();
    level_of_.clear();
    levels_.clear();
    filled_count_ = 0;
    next_end_ = kNever;
  } else {
    refill(first, now);
  }
}

}  // namespace epsim
