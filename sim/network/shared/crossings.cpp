#include "sim/network/shared/crossings.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <numeric>
#include <tuple>

#include "base/check.h"
#include "sim/network/shared/paths.h"

namespace epsim {
namespace {

/// What is known of a link after some of the flows.
struct Seen {
  std::uint32_t flows = 0, lowest = 0, last = 0;
  std::uint32_t path = 0;    // where the path of its first flow lies among the paths kept
  std::uint64_t rulers = 0;  // bits: the links of that path which every flow so far has crossed
  std::int32_t destination = std::numeric_limits<std::int32_t>::max();  // lowest
  double least_share = std::numeric_limits<double>::infinity(), most_share = 0;
};

}  // namespace

Crossings::Crossings(const Topology& topology, std::vector<RankPair> flows, bool keep_last) : pairs_(std::move(flows)) {
  const std::span<const Link> links = topology.links();
  std::vector<Seen> seen(links.size());
  std::vector<std::int32_t> kept;
  std::size_t longest = 1;
  Paths paths(topology);
  for (std::uint32_t f = 0; f < pairs_.size(); ++f) {
    const std::span<const Paths::Hop> path = paths(pairs_[f].source, pairs_[f].destination);
    longest = std::max(longest, path.size());
    bool keep = false;
    for (std::size_t h = 0; h < path.size(); ++h) {
      Seen& s = seen[path[h].link];
      s.least_share = std::min(s.least_share, path[h].share);
      s.most_share = std::max(s.most_share, path[h].share);
      if (s.flows++ == 0) {
        keep = true;
        s.lowest = f;
        s.path = static_cast<std::uint32_t>(kept.size());
        s.rulers = (path.size() >= 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << path.size()) - 1) & (h < 64 ? ~(std::uint64_t{1} << h) : ~std::uint64_t{0});
      } else {
        for (std::uint64_t left = s.rulers; left != 0; left &= left - 1)
          if (std::none_of(path.begin(), path.end(), [l = kept[s.path + static_cast<std::uint32_t>(std::countr_zero(left))]](const Paths::Hop& hop) { return hop.link == l; })) s.rulers ^= left & -left;
      }
      s.last = f;
      s.destination = std::min(s.destination, pairs_[f].destination);
    }
    if (!keep) continue;
    for (const Paths::Hop& hop : path) kept.push_back(hop.link);
  }

  // A link that carries one share of each of its flows is as good as a narrower link that carries all of them.
  const auto one_share = [&](std::size_t l) { return seen[l].least_share == seen[l].most_share; };
  const auto capacity = [&](std::size_t l) { return one_share(l) ? links[l].bandwidth / seen[l].most_share : links[l].bandwidth; };
  std::vector<Number> number(links.size(), kNone);
  bool whole = true;
  for (std::size_t l = 0; l < links.size(); ++l) {
    const Seen& s = seen[l];
    bool binds = s.flows > 0;
    const bool keep = keep_last && topology.vertices()[static_cast<std::size_t>(links[l].to)].rank.valid();
    for (std::uint64_t left = one_share(l) && !keep ? s.rulers : 0; binds && left != 0; left &= left - 1) {
      const auto r = static_cast<std::size_t>(kept[s.path + static_cast<std::uint32_t>(std::countr_zero(left))]);
      if (one_share(r)) binds = capacity(r) > capacity(l) || (capacity(r) == capacity(l) && seen[r].flows == s.flows && r > l);
    }
    if (!binds) continue;
    ensure(original_.size() + 2 < kNone, "fewer than 65,534 links can hold flows back");
    number[l] = static_cast<Number>(original_.size());
    original_.push_back(static_cast<std::int32_t>(l));
    whole = whole && one_share(l);
  }

  // Paths are walked twice: keeping whole ones would take more memory than all else.
  path_.assign(pairs_.size() * longest, kNone);
  if (!whole) shares_.assign(path_.size(), 1);
  std::vector<bool> is_first(original_.size(), true), is_last(original_.size(), true);
  std::vector<std::int32_t> lowest_before(original_.size(), std::numeric_limits<std::int32_t>::max());
  for (std::size_t f = 0; f < pairs_.size(); ++f) {
    Number* const mine = path_.data() + f * longest;
    std::size_t h = 0;
    for (const auto& [l, share] : paths(pairs_[f].source, pairs_[f].destination)) {
      if (number[l] == kNone) continue;
      if (!whole && !one_share(static_cast<std::size_t>(l))) shares_[f * longest + h] = share;
      mine[h++] = number[l];
    }
    hops_ = std::max(hops_, h);
    for (std::size_t i = 0; i < h; ++i) {
      if (i > 0) is_first[mine[i]] = false;
      if (i + 1 < h) is_last[mine[i]] = false;
    }
    // Destinations tell which of the links between lie in front of a last link.
    for (std::size_t i = 1; i + 1 < h; ++i) lowest_before[mine[h - 1]] = std::min(lowest_before[mine[h - 1]], seen[original_[mine[i]]].destination);
  }

  // First links by flow, then those between, then last links by what lies in front of them: so the links that one link shares flows with are few runs of numbers. Those between lie in tiles of some sources by
  // some destinations: a first link shares flows with a row of them, a last one with a column.
  constexpr std::int64_t kTileSources = 2, kTileDestinations = 4;
  std::vector<std::int32_t> sources, destinations;
  const auto source = [&](Number l) { return pairs_[seen[original_[l]].lowest].source; };
  const auto destination = [&](Number l) { return seen[original_[l]].destination; };
  for (std::size_t i = 0; i < original_.size(); ++i) {
    const auto l = static_cast<Number>(i);
    if (is_first[l] || is_last[l]) continue;
    sources.push_back(source(l));
    destinations.push_back(destination(l));
  }
  for (std::vector<std::int32_t>* v : {&sources, &destinations}) {
    std::sort(v->begin(), v->end());
    v->erase(std::unique(v->begin(), v->end()), v->end());
  }
  const auto tile = [&](Number l) {
    const auto row = std::lower_bound(sources.begin(), sources.end(), source(l)) - sources.begin(), column = std::lower_bound(destinations.begin(), destinations.end(), destination(l)) - destinations.begin();
    const auto across = static_cast<std::int64_t>(destinations.size()) / kTileDestinations + 1;
    return row / kTileSources * across + column / kTileDestinations;
  };
  std::vector<Number> order(original_.size()), place(original_.size());
  std::iota(order.begin(), order.end(), Number{0});
  const auto key = [&](Number l) {
    const Seen& s = seen[original_[l]];
    const int kind = is_first[l] ? 0 : is_last[l] ? 2 : 1;
    return std::tuple(kind, kind == 0 ? static_cast<std::int64_t>(s.lowest) : kind == 1 ? tile(l) : lowest_before[l], s.destination, original_[l]);
  };
  std::sort(order.begin(), order.end(), [&](Number a, Number b) { return key(a) < key(b); });
  std::vector<std::int32_t> original;
  for (std::size_t i = 0; i < order.size(); ++i) {
    const std::int32_t l = original_[order[i]];
    place[order[i]] = static_cast<Number>(i);
    original.push_back(l);
    capacity_.push_back(capacity(static_cast<std::size_t>(l)));
    count_.push_back(seen[l].flows);
    lowest_.push_back(seen[l].lowest);
    last_.push_back(seen[l].last);
  }
  original_ = std::move(original);
  for (std::size_t f = 0; f < pairs_.size(); ++f)
    for (std::size_t h = 0; h < hops_; ++h) {
      const Number l = path_[f * longest + h];
      path_[f * hops_ + h] = l == kNone ? kNone : place[l];
      if (!shares_.empty()) shares_[f * hops_ + h] = shares_[f * longest + h];
    }
  path_.resize(pairs_.size() * hops_);
  if (!shares_.empty()) shares_.resize(path_.size());
}

void Crossings::build_lists() const {
  list_first_.assign(1, 0);
  for (std::size_t l = 0; l < links(); ++l) list_first_.push_back(list_first_.back() + (in_sequence(l) ? 0 : count_[l]));
  list_.resize(list_first_.back());
  std::vector<std::uint32_t> next(list_first_.begin(), list_first_.end() - 1);
  std::vector<bool> listed(links());
  for (std::size_t l = 0; l < links(); ++l) listed[l] = !in_sequence(l);
  for (std::uint32_t f = 0; f < pairs_.size(); ++f)
    for (const Number* p = path(f); p != path(f) + hops_ && *p != kNone; ++p)
      if (listed[*p]) list_[next[*p]++] = f;
}

}  // namespace epsim
