#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/catalog.h"
#include "base/ids.h"
#include "base/units.h"
#include "topology/device.h"
#include "topology/next_hops.h"

namespace epsim {

/// A directed link of the graph.
struct Link {
  std::string name;               ///< unique, such as "uplink of node 3" or "rank 5 -> nvswitch 0"
  std::string tier;               ///< links of one tier are peers of each other in comparisons, such as "nvlink", "uplink", "rail", "spine"
  std::int32_t from = 0, to = 0;  ///< vertices
  Bandwidth bandwidth = 0;        ///< bytes/s
  Time latency;
  std::int32_t cost = 1;          ///< paths have the least sum of costs; above 1 for a link that shapes take only where they must
};

/// A rank or a switch.
struct Vertex {
  std::string name;
  Rank rank;  ///< invalid for a switch
  Node node;  ///< of a rank
};

/// Which next hop traffic takes where several begin a path of least cost.
struct PathRule {
  enum class Kind {
    dmodk,   ///< the destination chooses: its number is read digit by digit
    first,   ///< always the first
    ecmp,    ///< a hash of the pair of ranks, the vertex and the seed chooses
    spread,  ///< all of them, in equal parts (adaptive routing or packet spraying, at its best)
  };
  Kind kind = Kind::dmodk;
  std::uint64_t seed = 0;  ///< of ecmp
};

/// The machine: ranks grouped in nodes, switches, directed links, and for every vertex the next hops towards every rank. Has no time in it; faults are other topologies. Paths have the least sum of
/// link costs (the fewest links, unless a shape says otherwise) and never pass through a third rank.
/// D-mod-k: a destination's number is node + place in its node, and each choice among k next hops takes the lowest digit in base k of what the choices before it on the path have left; a bundle of k parallel links is no such choice, it takes the number mod k. So in a tree
/// every up-link of every tier carries a residue class of destinations of its own (Zahavi, "D-Mod-K routing providing non-blocking traffic for shift permutations on real life fat trees", 2010);
/// counting node + place spreads the ranks of one node as well as the equal places of several nodes, which is what one leaf switch of a rail serves.
class Topology {
 public:
  Topology() = default;
  /// Builds next-hop tables. Throws InputError at `at` where ranks or nodes are not numbered from 0 without gaps, a bandwidth is not above 0, a link's name is
  /// not unique, a pair of ranks has no path, or the tables would pass 1 GiB.
  Topology(std::vector<Vertex> vertices, std::vector<Link> links, Device device, Location at, PathRule rule = {});

  int ranks() const { return static_cast<int>(vertex_of_rank_.size()); }
  int nodes() const { return static_cast<int>(ranks_of_node_.size()); }
  Node node_of(Rank r) const { return node_of_rank_[r]; }
  int local_index(Rank r) const { return local_index_[r]; }                   ///< position of a rank in its node
  std::span<const Rank> ranks_of(Node n) const { return ranks_of_node_[n]; }  ///< ascending
  std::span<const Link> links() const { return links_; }
  std::span<const Vertex> vertices() const { return vertices_; }
  const Device& device() const { return device_; }
  PathRule path_rule() const { return rule_; }
  const NextHops& next_hops() const { return next_hops_; }

  /// Calls visit(link index) for each link that a byte from s to d may cross, each once and after all links before it on any path; nothing for s == d.
  template <class Visit>
  void for_each_link(Rank s, Rank d, Visit&& visit) const {
    for_each_share(s, d, [&](std::int32_t link, double) { visit(link); });
  }
  /// Calls visit(link index, share) for the same links in the same order. `share` (double, above 0, at most 1) is the part of the bytes from s to d that crosses the link: 1 on a single path.
  template <class Visit>
  void for_each_share(Rank s, Rank d, Visit&& visit) const {
    if (s == d) return;
    if (rule_.kind == PathRule::Kind::spread) {
      for (const LinkShare& l : spread(s, d)) visit(l.link, l.share);
      return;
    }
    const std::int32_t end = vertex_of_rank_[d];
    std::vector<std::int32_t> scratch;
    auto digits = static_cast<std::uint32_t>(node_of_rank_[d] + local_index_[d]);
    for (std::int32_t v = vertex_of_rank_[s]; v != end;) {
      const std::span<const std::int32_t> next = next_hops_(v, d, scratch);
      const std::int32_t link = next.size() == 1 ? next[0] : next[choose(next, digits, s, d, v)];
      visit(link, 1.0);
      v = links_[static_cast<std::size_t>(link)].to;
    }
  }
  Time latency(Rank s, Rank d) const;         ///< sum over the path; of several paths the longest's
  Bandwidth bandwidth(Rank s, Rank d) const;  ///< bytes/s between the two while all else is silent: the least bandwidth / share of a link; infinite for s == d

  std::string_view summary;  ///< of the cluster shape, for listings

 private:
  struct LinkShare {
    std::int32_t link = 0;
    double share = 0;
  };
  std::vector<LinkShare> spread(Rank s, Rank d) const;
  /// Which of several next hops at a vertex; takes a digit away.
  std::size_t choose(std::span<const std::int32_t> next, std::uint32_t& digits, Rank s, Rank d, std::int32_t vertex) const {
    if (rule_.kind == PathRule::Kind::first) return 0;
    if (rule_.kind == PathRule::Kind::ecmp) return hashed(next.size(), s, d, vertex);
    const auto k = static_cast<std::uint32_t>(next.size());
    if (is_bundle(next)) return static_cast<std::uint32_t>(node_of_rank_[d] + local_index_[d]) % k;
    const std::uint32_t digit = digits % k;
    digits /= k;
    return digit;
  }
  bool is_bundle(std::span<const std::int32_t> next) const {
    const auto to = [&](std::int32_t l) { return links_[static_cast<std::size_t>(l)].to; };
    if (to(next.front()) != to(next.back())) return false;
    for (const std::int32_t l : next)
      if (to(l) != to(next.front())) return false;
    return true;
  }
  std::size_t hashed(std::size_t k, Rank s, Rank d, std::int32_t vertex) const;

  std::vector<Vertex> vertices_;
  std::vector<Link> links_;
  Device device_{};
  PathRule rule_;
  std::vector<std::int32_t> vertex_of_rank_;
  std::vector<Node> node_of_rank_;
  std::vector<int> local_index_;
  std::vector<std::vector<Rank>> ranks_of_node_;
  NextHops next_hops_;
};

using ClusterCatalog = Catalog<Topology>;
ClusterCatalog builtin_clusters();

}  // namespace epsim
