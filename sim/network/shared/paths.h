#pragma once
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "topology/topology.h"

namespace epsim {

/// Looks up the links of paths, many pairs of ranks in a row. Where a rank has one way out and paths are not chosen by pair, all ranks at the same switch share what comes after it, the *tail*, and it is looked up once for all of them.
class Paths {
 public:
  static constexpr std::int32_t kMany = -1;
  using Tail = std::uint32_t;
  struct Hop {
    std::int32_t link;
    double share;  ///< of the bytes, above 0, at most 1
  };

  explicit Paths(const Topology& topology);

  /// The first link of everything that a rank sends, or kMany where that depends on the destination.
  std::int32_t way_out(std::int32_t source) const { return out_[static_cast<std::size_t>(source)]; }
  /// The number of what comes after the way out; of a source that has one. Tails are numbered from 0 in the order in which they are first asked for.
  Tail tail(std::int32_t source, std::int32_t destination) {
    const std::int32_t row = row_[static_cast<std::size_t>(source)];
    Tail& t = tail_[static_cast<std::size_t>(row < 0 ? add_row(source) : row) * ranks_ + static_cast<std::size_t>(destination)];
    return t == kUnknown ? t = add_tail(source, destination) : t;
  }
  std::size_t tails() const { return first_.size() - 1; }
  std::span<const Hop> hops(Tail t) const { return {hops_.data() + first_[t], first_[t + 1] - first_[t]}; }

  /// The whole path of any pair, until the next call.
  std::span<const Hop> operator()(std::int32_t source, std::int32_t destination) {
    whole_.clear();
    if (way_out(source) == kMany) {
      topology_.for_each_share(Rank(source), Rank(destination), [&](std::int32_t l, double share) { whole_.push_back({l, share}); });
    } else {
      const std::span<const Hop> rest = hops(tail(source, destination));
      whole_.push_back({way_out(source), 1});
      whole_.insert(whole_.end(), rest.begin(), rest.end());
    }
    return whole_;
  }

 private:
  static constexpr Tail kUnknown = std::numeric_limits<Tail>::max();
  std::int32_t add_row(std::int32_t source);
  Tail add_tail(std::int32_t source, std::int32_t destination);

  const Topology& topology_;
  std::size_t ranks_;
  std::vector<std::int32_t> out_;             // [R]
  std::vector<std::int32_t> row_;             // [R] the row of tail_ of the switch behind the way out; -1 before it is first asked for
  std::vector<std::int32_t> row_of_vertex_;
  std::vector<Tail> tail_;                    // [rows][R]
  std::vector<std::size_t> first_;            // [tails + 1]
  std::vector<Hop> hops_;                     // of all tails
  std::vector<Hop> whole_;
};

}  // namespace epsim
