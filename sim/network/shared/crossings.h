#pragma once
#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "sim/network/network.h"

namespace epsim {

/// Which links can hold a set of flows back, and which flows cross them. A link never does where another link, no wider, carries all of its flows: such links are left out. The others are numbered anew,
/// so that those with common flows stand close together.
class Crossings {
 public:
  using Number = std::uint16_t;
  static constexpr Number kNone = 0xffff;

  Crossings() = default;
  /// With `keep_last`, links into ranks are never left out. Throws std::logic_error where more than 65,534 links can bind.
  Crossings(const Topology& topology, std::vector<RankPair> flows, bool keep_last = false);

  std::size_t flows() const { return pairs_.size(); }
  std::span<const RankPair> pairs() const { return pairs_; }  ///< [flows]
  std::size_t links() const { return capacity_.size(); }
  std::size_t hops() const { return hops_; }  ///< most links of a flow
  double capacity(std::size_t link) const { return capacity_[link]; }  ///< bytes/s; of a link that carries one share of each of its flows, over that share
  std::int32_t link_of_topology(std::size_t link) const { return original_[link]; }
  std::uint32_t crossing(std::size_t link) const { return count_[link]; }  ///< flows
  /// Links of a flow in the order of its path, ended by kNone where there are fewer than hops().
  const Number* path(std::size_t flow) const { return path_.data() + flow * hops_; }
  /// The share of a flow's bytes that each link of its path carries, by which its part of the link's capacity counts; null where all are 1.
  const double* shares(std::size_t flow) const { return shares_.empty() ? nullptr : shares_.data() + flow * hops_; }

  /// Whether the flows of a link are first(link), first(link) + 1, ...
  bool in_sequence(std::size_t link) const { return last_[link] - lowest_[link] + 1 == count_[link]; }
  std::uint32_t first(std::size_t link) const { return lowest_[link]; }
  /// Flows that cross a link which is not in_sequence, ascending. The first call builds all such lists.
  std::span<const std::uint32_t> list(std::size_t link) const {
    if (list_first_.empty()) build_lists();
    return {list_.data() + list_first_[link], list_.data() + list_first_[link + 1]};
  }
  /// Calls visit(flow) for the flows of a link, ascending.
  template <class Visit>
  void for_each(std::size_t link, Visit&& visit) const {
    if (in_sequence(link)) {
      for (std::uint32_t f = first(link), end = f + count_[link]; f < end; ++f) visit(f);
    } else {
      for (const std::uint32_t f : list(link)) visit(f);
    }
  }

  /// Calls visit(flow) for the flows that cross both links, ascending.
  template <class Visit>
  void for_each_common(std::size_t a, std::size_t b, Visit&& visit) const {
    if (in_sequence(a) && in_sequence(b)) {
      for (std::uint32_t f = std::max(first(a), first(b)), end = std::min(first(a) + count_[a], first(b) + count_[b]); f < end; ++f) visit(f);
    } else if (in_sequence(a) || in_sequence(b)) {
      if (in_sequence(b)) std::swap(a, b);
      const std::span<const std::uint32_t> flows = list(b);
      for (auto f = std::lower_bound(flows.begin(), flows.end(), first(a)); f != flows.end() && *f < first(a) + count_[a]; ++f) visit(*f);
    } else {
      // Each list leaps to where the other is.
      const std::span<const std::uint32_t> of_a = list(a), of_b = list(b);
      auto i = of_a.begin(), j = of_b.begin();
      while (i != of_a.end() && j != of_b.end()) {
        if (*i < *j) {
          i = leap(i, of_a.end(), *j);
        } else if (*j < *i) {
          j = leap(j, of_b.end(), *i);
        } else {
          visit(*i);
          ++i, ++j;
        }
      }
    }
  }

 private:
  /// The first place from `at` on that is not below `flow`: found in steps that double, so that near places are found fast.
  template <class Iterator>
  static Iterator leap(Iterator at, Iterator end, std::uint32_t flow) {
    for (std::ptrdiff_t step = 1; end - at > step; step *= 2) {
      if (!(at[step] < flow)) return std::lower_bound(at, at + step, flow);
      at += step;
    }
    return std::lower_bound(at, end, flow);
  }
  void build_lists() const;

  std::size_t hops_ = 0;
  std::vector<RankPair> pairs_;
  std::vector<double> capacity_;
  std::vector<std::int32_t> original_;
  std::vector<Number> path_;    // [flows][hops]
  std::vector<double> shares_;  // [flows][hops]; empty where all are 1
  std::vector<std::uint32_t> count_, lowest_, last_;  // [links]
  mutable std::vector<std::uint32_t> list_first_, list_;  // built when first asked for
};

}  // namespace epsim
