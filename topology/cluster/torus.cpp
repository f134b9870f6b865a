#include <fmt/format.h>

#include <algorithm>

#include "topology/cluster/shared/router_links.h"

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
  const RouterLinks links = read_router_links(p, static_cast<double>(std::max<std::size_t>(1, 2 * dims.size())), "(2 x dimensions)");
  std::int64_t ranks = 1;
  for (const std::int64_t d : dims) ranks = std::min<std::int64_t>(ranks * d, kMaxRanks + 1);
  if (p.usable()) check_ranks(p, "dims", ranks);
  if (p.usable()) check_nodes(p, links, ranks);
  if (!p.usable()) return listed;

  Fabric f = links.ranks(ranks);
  for (std::int64_t r = 0; r < ranks; ++r)
    for (std::int64_t stride = 1, d = 0; d < static_cast<std::int64_t>(dims.size()); stride *= dims[static_cast<std::size_t>(d++)]) {
      const std::int64_t size = dims[static_cast<std::size_t>(d)], place = r / stride % size;
      const auto join = [&](std::int64_t to) { f.add_link(links.router(r), links.router(r + (to - place) * stride), fmt::format("dim {}", d), links.link); };
      if (size > 1) join((place + 1) % size);
      if (size > 2) join((place + size - 1) % size);  // of two there is one cable
    }
  return f.build(links.device, links.paths, p.at(), listed.summary);
}

}  // namespace epsim::parts_cluster
