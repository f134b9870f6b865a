#include <fmt/format.h>

#include <algorithm>

#include "topology/cluster/shared/fabric.h"

namespace epsim::parts_cluster {
namespace {

std::vector<std::int64_t> read_dims(Params& p) {
  std::vector<std::int64_t> dims;
  p.custom("dims", "a list of 1 to 4 integers", "", "ranks along each dimension, such as [4, 4, 4]; rank 1 is next to rank 0 in the first", [&](const Setting& value, Diagnostics& problems) {
    for (const Setting& item : value.items) {
      const auto size = item.is_scalar() ? parse_integer(item.text) : std::nullopt;
      if (!size || *size < 1 || *size > kMaxRanks) return problems.add(item.at, fmt::format("a dimension must be an integer from 1 to {}", kMaxRanks));
      dims.push_back(*size);
    }
    if (dims.empty() || dims.size() > 4) problems.add(value.at, "`dims` must be a list of 1 to 4 integers");
  });
  if (!p.listing() && !p.has("dims")) p.error("dims", "cluster `torus` needs `dims` (a list of 1 to 4 integers)");
  return dims;
}

}  // namespace

Topology torus(Params& p) {
  Topology listed;
  listed.summary = "Ranks with a router each on a grid of 1 to 4 dimensions whose ends are joined; paths run through routers, one dimension after the other.";
  const std::vector<std::int64_t> dims = read_dims(p);
  const std::int64_t per_node = p.integer("ranks_per_node", "neighbouring ranks that count as one node", 1, 1, kMaxRanks);
  const Device& device = read_device(p);
  const auto ways = static_cast<double>(std::max<std::size_t>(1, 2 * dims.size()));
  const Port link = {p.bandwidth("bandwidth", "rate of a link to a neighbour, one direction", device.scale_up_bandwidth.value / ways, "the device's scale-up rate / (2 x dimensions)"),
                     p.time("latency", "time of one hop to a neighbour", time_from_seconds(device.scale_up_latency.value), "the device's scale-up latency")};
  const Port inject = {p.bandwidth("injection", "rate between a rank and its router, one direction", link.bandwidth * ways, "2 x dimensions x bandwidth, which never binds"), Time{}};
  const Paths paths = read_paths(p, PathRule::Kind::first);
  std::int64_t ranks = 1;
  for (const std::int64_t d : dims) ranks = std::min<std::int64_t>(ranks * d, kMaxRanks + 1);
  if (p.usable()) check_ranks(p, "dims", ranks);
  if (p.usable() && ranks % per_node != 0) p.error("ranks_per_node", fmt::format("{} ranks are no whole number of nodes of {}", ranks, per_node));
  if (!p.usable()) return listed;

  Fabric f;
  for (std::int64_t r = 0; r < ranks; ++r) {
    const std::int32_t rank = f.add_rank(Node(r / per_node));
    f.add_cable(rank, f.add_switch(fmt::format("router {}", r)), "injection", inject);
  }
  for (std::int64_t r = 0; r < ranks; ++r)
    for (std::int64_t stride = 1, d = 0; d < static_cast<std::int64_t>(dims.size()); stride *= dims[static_cast<std::size_t>(d++)]) {
      const std::int64_t size = dims[static_cast<std::size_t>(d)], place = r / stride % size;
      const auto join = [&](std::int64_t to) { f.add_link(static_cast<std::int32_t>(2 * r + 1), static_cast<std::int32_t>(2 * (r + (to - place) * stride) + 1), fmt::format("dim {}", d), link); };
      if (size > 1) join((place + 1) % size);
      if (size > 2) join((place + size - 1) % size);  // of two there is one cable
    }
  return f.build(device, paths, p.at(), listed.summary);
}

}  // namespace epsim::parts_cluster
