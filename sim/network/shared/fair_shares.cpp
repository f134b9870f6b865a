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
  for (std::size_t i = 0; i < levels_.size(); ++i) {
    const std::size_t end = i + 1 < levels_.size() ? levels_[i + 1].first : filled_.size();
    for (std::size_t j = levels_[i].first; j < end; ++j) {
      Live& f = flows_[filled_[j]];
      f.remaining = std::max(0.0, f.remaining - levels_[i].rate * (now - levels_[i].date));
    }
  }
  std::size_t kept = 0;
  for (std::size_t f = 0; f < flows_.size(); ++f)
    if (f >= level_of_.size() || level_of_[f] != kEnded) flows_[kept++] = flows_[f];
  flows_.resize(kept);
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
  path_first_.assign(1, 0);
  path_.clear();
  for (std::size_t f = 0; f < flows_.size(); ++f) {
    for (std::size_t h = hop_first[f]; h < hop_first[f + 1]; ++h)
      if (rulers[hops[h]].empty()) {
        const std::uint32_t l = number[hops[h]];
        path_.push_back(l);
        list_[list_end_[l]++] = static_cast<std::uint32_t>(f);
      }
    path_first_.push_back(static_cast<std::uint32_t>(path_.size()));
  }
}

void FairShares::share(double now) {
  settle(now);
  find_binding_links();
  const std::size_t links = capacity_.size();
  levels_.clear();
  filled_.clear();
  level_of_.assign(flows_.size(), kOpen);
  end_.assign(flows_.size(), kNever);
  used_.assign(links, 0);
  count_.assign(links, 0);
  share_.assign((links + kLanes - 1) / kLanes * kLanes, kNever);
  open_.resize(links);
  for (std::size_t l = 0; l < links; ++l) open_[l] = list_end_[l] - list_first_[l];
  refill(0, now);
}

void FairShares::open_from(std::size_t level, double now) {
  for (std::size_t i = level; i < levels_.size(); ++i) {
    const Level& v = levels_[i];
    const std::size_t end = i + 1 < levels_.size() ? levels_[i + 1].first : filled_.size();
    for (std::size_t j = v.first; j < end; ++j) {
      const std::uint32_t f = filled_[j];
      for (const std::uint32_t l : path(f))
        if (count_[l]++ == 0) touched_.push_back(l);
      if (level_of_[f] == kEnded) continue;
      flows_[f].remaining = std::max(0.0, flows_[f].remaining - v.rate * (now - v.date));
      level_of_[f] = kOpen;
      for (const std::uint32_t l : path(f)) ++open_[l];
    }
    // The very product that filling added, so that most of the rounding goes with it.
    for (const std::uint32_t l : touched_) {
      used_[l] -= count_[l] * v.rate;
      count_[l] = 0;
    }
    touched_.clear();
  }
  if (level < levels_.size()) {
    filled_.resize(levels_[level].first);
    levels_.resize(level);
  }
  if (level == 0) std::fill(used_.begin(), used_.end(), 0.0);
}

std::size_t FairShares::lowest_share() const {
  // Eight running minima, so that the compiler can use vectors; the lowest number wins a tie.
  double lowest[kLanes];
  std::fill(lowest, lowest + kLanes, kNever);
  const double* s = share_.data();
  for (std::size_t i = 0; i < share_.size(); i += kLanes)
    for (std::size_t k = 0; k < kLanes; ++k) lowest[k] = s[i + k] < lowest[k] ? s[i + k] : lowest[k];
  const double share = *std::min_element(lowest, lowest + kLanes);
  if (share == kNever) return capacity_.size();
  std::size_t l = 0;
  while (s[l] != share) ++l;
  return l;
}

void FairShares::refill(std::size_t level, double now) {
  if (++refills_ % kRefillsToReset == 0) level = 0;
  open_from(level, now);
  for (std::size_t l = 0; l < capacity_.size(); ++l) share_[l] = open_[l] ? (capacity_[l] - used_[l]) / open_[l] : kNever;

  for (std::size_t l; (l = lowest_share()) < capacity_.size();) {
    const auto number = static_cast<std::int32_t>(levels_.size());
    // Levels ascend; only rounding could say otherwise.
    const double rate = levels_.empty() ? share_[l] : std::max(share_[l], levels_.back().rate);
    Level v{rate, now, kNever, static_cast<std::uint32_t>(filled_.size())};
    std::uint32_t kept = list_first_[l];
    for (std::uint32_t j = list_first_[l]; j < list_end_[l]; ++j) {
      const std::uint32_t f = list_[j];
      if (level_of_[f] == kEnded) continue;
      list_[kept++] = f;
      if (level_of_[f] != kOpen) continue;
      level_of_[f] = number;
      filled_.push_back(f);
      end_[f] = now + flows_[f].remaining / rate;
      v.first_end = std::min(v.first_end, end_[f]);
      for (const std::uint32_t m : path(f))
        if (count_[m]++ == 0) touched_.push_back(m);
    }
    list_end_[l] = kept;
    levels_.push_back(v);
    for (const std::uint32_t m : touched_) {
      used_[m] += count_[m] * rate;
      open_[m] -= count_[m];
      count_[m] = 0;
      share_[m] = open_[m] ? (capacity_[m] - used_[m]) / open_[m] : kNever;
    }
    touched_.clear();
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
    const std::size_t end = i + 1 < levels_.size() ? levels_[i + 1].first : filled_.size();
    for (std::size_t j = levels_[i].first; j < end; ++j) {
      const std::uint32_t f = filled_[j];
      if (end_[f] > window) continue;
      level_of_[f] = kEnded;
      --live_;
      ended.push_back({flows_[f].id, flows_[f].source, flows_[f].destination, end_[f]});
    }
  }
  ensure(first < levels_.size(), "a flow ends at the next end");
  if (live_ == 0) {
    flows_.clear();
    level_of_.clear();
    levels_.clear();
    filled_.clear();
    next_end_ = kNever;
  } else {
    refill(first, now);
  }
}

}  // namespace epsim
