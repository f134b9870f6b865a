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

namespace epsim {

/// A directed link of the graph.
struct Link {
  std::string name;               ///< unique, such as "uplink of node 3" or "rank 5 -> nvswitch 0"
  std::string tier;               ///< links of one tier are peers of each other in comparisons, such as "nvlink", "uplink", "rail", "spine"
  std::int32_t from = 0, to = 0;  ///< vertices
  Bandwidth bandwidth = 0;        ///< bytes/s
  Time latency;
};

/// A rank or a switch.
struct Vertex {
  std::string name;
  Rank rank;  ///< invalid for a switch
  Node node;  ///< of a rank
};

/// The machine: ranks grouped in nodes, switches, directed links, and for every vertex the next hop towards every rank. Has no time in it; faults are other
/// topologies. Paths have the fewest hops and never pass through a third rank; among k equal next hops the destination chooses (D-mod-k): number (node + place
/// in its node) mod k. Counting so spreads the ranks of one node as well as the equal places of several nodes, which is what one leaf switch of a rail serves.
class Topology {
 public:
  Topology() = default;
  /// Builds next-hop tables. Throws InputError at `at` where ranks or nodes are not numbered from 0 without gaps, a bandwidth is not above 0, a link's name is
  /// not unique, a pair of ranks has no path, or the tables would pass 1 GiB.
  Topology(std::vector<Vertex> vertices, std::vector<Link> links, Device device, Location at);

  int ranks() const { return static_cast<int>(vertex_of_rank_.size()); }
  int nodes() const { return static_cast<int>(ranks_of_node_.size()); }
  Node node_of(Rank r) const { return node_of_rank_[r]; }
  int local_index(Rank r) const { return local_index_[r]; }                   ///< position of a rank in its node
  std::span<const Rank> ranks_of(Node n) const { return ranks_of_node_[n]; }  ///< ascending
  std::span<const Link> links() const { return links_; }
  std::span<const Vertex> vertices() const { return vertices_; }
  const Device& device() const { return device_; }

  /// Calls visit(link index) for each link of the path from s to d, in order; nothing for s == d.
  template <class Visit>
  void for_each_link(Rank s, Rank d, Visit&& visit) const {
    if (s == d) return;
    std::int32_t v = vertex_of_rank_[s];
    const std::int32_t end = vertex_of_rank_[d];
    while (v != end) {
      const std::int32_t link = out_links_[static_cast<std::size_t>(first_out_[v] + port_[static_cast<std::size_t>(v) * vertex_of_rank_.size() + d])];
      visit(link);
      v = links_[link].to;
    }
  }
  /// Calls visit(link index, share) for each link that bytes from s to d cross, in an order in which every link comes after those before it on a path; nothing for
  /// s == d. `share` (double, above 0, at most 1) is the part of the bytes that crosses the link: 1 on a single path.
  template <class Visit>
  void for_each_share(Rank s, Rank d, Visit&& visit) const {
    for_each_link(s, d, [&](std::int32_t link) { visit(link, 1.0); });
  }
  Time latency(Rank s, Rank d) const;         ///< sum over the path
  Bandwidth bandwidth(Rank s, Rank d) const;  ///< smallest on the path; infinite for s == d

  std::string_view summary;  ///< of the cluster shape, for listings

 private:
  void fill_ports(const Location& at);

  std::vector<Vertex> vertices_;
  std::vector<Link> links_;
  Device device_{};
  std::vector<std::int32_t> vertex_of_rank_;
  std::vector<Node> node_of_rank_;
  std::vector<int> local_index_;
  std::vector<std::vector<Rank>> ranks_of_node_;
  std::vector<std::int32_t> out_links_;  // link indices grouped by from-vertex
  std::vector<std::int32_t> first_out_;  // [V + 1]
  std::vector<std::uint16_t> port_;      // [V][R]: which of a vertex's out-links leads towards the rank
};

using ClusterCatalog = Catalog<Topology>;
ClusterCatalog builtin_clusters();

}  // namespace epsim
