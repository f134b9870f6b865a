#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "base/params.h"
#include "topology/faults.h"
#include "topology/topology.h"

namespace epsim {

/// A link's rate and the time of one hop over it.
struct Port {
  Bandwidth bandwidth = 0;
  Time latency;
};

/// What every shape reads besides its form: how traffic chooses among equal paths, and what is broken.
struct Paths {
  PathRule rule;
  std::vector<Fault> faults;
};
/// `routing` and `faults`.
Paths read_paths(Params& p, PathRule::Kind fallback = PathRule::Kind::dmodk);

/// The vertices and links of a cluster shape while it is built. Ranks are numbered in the order they are added.
struct Fabric {
  std::vector<Vertex> vertices;
  std::vector<Link> links;

  std::int32_t add_rank(Node node);
  std::int32_t add_switch(std::string name);
  /// A directed link, named "A -> B" unless it has a name of its own.
  void add_link(std::int32_t from, std::int32_t to, std::string_view tier, Port port, std::string name = {});
  /// A link each way.
  void add_cable(std::int32_t a, std::int32_t b, std::string_view tier, Port port);
  /// The ranks of a node, each with a full-duplex port at the node's switch. Gives the switch.
  std::int32_t add_node(Node node, std::int64_t ranks, Port port);
  /// The topology of what was added, after its faults. Throws InputError.
  Topology build(const Device& device, const Paths& paths, const Location& at, std::string_view summary);

 private:
  std::int32_t ranks_ = 0;
};

/// Next-hop tables of more ranks would not be small.
inline constexpr std::int64_t kMaxRanks = 16384;

/// Settings that several shapes read in the same words.
const Device& read_device(Params& p);
Port read_scale_up(Params& p, const Device& device);  ///< `bandwidth`, `latency`: a rank's port inside its node
/// Reports a cluster of more than kMaxRanks ranks, at `key`.
void check_ranks(Params& p, std::string_view key, std::int64_t ranks);

}  // namespace epsim
