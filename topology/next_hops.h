#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "base/check.h"
#include "base/ids.h"

namespace epsim {

struct Vertex;
struct Link;

/// For every vertex and destination rank the links that begin a path of least cost. Paths never pass through a third rank, so costs are kept between switches only: from each switch to each switch
/// that has a link to a rank. That takes 4 bytes a pair; each distinct set of links of a switch is kept once.
class NextHops {
 public:
  NextHops() = default;
  /// `vertex_of_rank` [R]; links join two vertices and cost at least 1. Throws InputError at `at` where a pair of ranks has no path or the tables would pass 1 GiB.
  NextHops(std::span<const Vertex> vertices, std::span<const Link> links, std::span<const std::int32_t> vertex_of_rank, const Location& at);

  /// The links, ascending, that lead from a vertex towards `d`; the vertex is on a path to it. May use `scratch`.
  std::span<const std::int32_t> operator()(std::int32_t vertex, Rank d, std::vector<std::int32_t>& scratch) const {
    const std::int32_t s = switch_of_vertex_[static_cast<std::size_t>(vertex)];
    if (s < 0) {
      const std::size_t r = static_cast<std::size_t>(~s);
      if (first_out_[r + 1] - first_out_[r] == 1 && direct_.empty()) return {&out_[first_out_[r]].link, 1};
      return from_rank(~s, d, scratch);
    }
    const std::size_t first = first_in_[static_cast<std::size_t>(d)];
    if (first_in_[static_cast<std::size_t>(d) + 1] - first != 1) return from_switch(s, d, scratch);
    const std::size_t cell = cell_of(s, in_[first].end);
    return cost_[cell] == 0 ? std::span(&in_[first].link, 1) : set(s, cell);
  }
  std::size_t bytes() const;  ///< of memory that the tables take

 private:
  static constexpr std::uint16_t kNone = 0xffff;
  /// A link between a rank and a switch; `end` is the switch, or its attachment number for a link into a rank.
  struct Port {
    std::int32_t link = 0, end = 0, cost = 0;
  };
  /// A link between two ranks.
  struct Direct {
    std::int32_t from = 0, link = 0, cost = 0;
  };

  std::size_t cell_of(std::int32_t s, std::int32_t attached) const { return static_cast<std::size_t>(s) * attached_ + static_cast<std::size_t>(attached); }
  std::span<const std::int32_t> set(std::int32_t s, std::size_t cell) const {
    const std::size_t i = first_set_[static_cast<std::size_t>(s)] + set_[cell];
    return {&members_[first_member_[i]], first_member_[i + 1] - first_member_[i]};
  }
  std::span<const Port> ports_in(std::int32_t rank) const;
  std::span<const Port> ports_out(std::int32_t rank) const;
  std::span<const Direct> direct(std::int32_t from, std::int32_t to) const;
  std::int32_t cost_from_switch(std::int32_t s, std::int32_t rank) const;  // kUnreached where there is no path
  std::span<const std::int32_t> from_switch(std::int32_t s, Rank d, std::vector<std::int32_t>& scratch) const;
  std::span<const std::int32_t> from_rank(std::int32_t rank, Rank d, std::vector<std::int32_t>& scratch) const;
  void collect_sets(std::span<const Link> links);
  void check_all_pairs(const Location& at) const;

  std::size_t attached_ = 0;                         // A: how many switches have a link to a rank
  std::vector<std::int32_t> switch_of_vertex_;       // [V]; ~rank for a rank
  std::vector<std::size_t> first_in_, first_out_;    // [R + 1]
  std::vector<Port> in_, out_;                       // links between switches and each rank
  std::vector<std::size_t> first_direct_;            // [R + 1]
  std::vector<Direct> direct_;                       // links from ranks to each rank, ascending by origin
  std::vector<std::uint16_t> cost_, set_;            // [switches][A]: least cost, and which set of links begins the paths
  std::vector<std::size_t> first_set_;               // [switches]
  std::vector<std::size_t> first_member_;            // [sets + 1]
  std::vector<std::int32_t> members_;                // link indices, ascending in a set
};

}  // namespace epsim
