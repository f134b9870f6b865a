#include <fmt/format.h>

#include "topology/cluster/shared/router_links.h"

namespace epsim::parts_cluster {

Topology hypercube(Params& p) {
  Topology listed;
  listed.summary = "2^n ranks with a router each; routers whose numbers differ in one bit are joined. Paths turn the lowest differing bit first.";
  const std::int64_t n = p.integer("dimensions", "n of 2^n ranks", {}, 0, 14);
  const RouterLinks links = read_router_links(p, static_cast<double>(n > 0 ? n : 1), "dimensions");
  const std::int64_t ranks = std::int64_t{1} << n;
  if (p.usable()) check_nodes(p, links, ranks);
  if (!p.usable()) return listed;

  Fabric f = links.ranks(ranks);
  for (std::int64_t r = 0; r < ranks; ++r)
    for (std::int64_t bit = 0; bit < n; ++bit) f.add_link(links.router(r), links.router(r ^ (std::int64_t{1} << bit)), fmt::format("dim {}", bit), links.link);
  return f.build(links.device, links.paths, p.at(), listed.summary);
}

}  // namespace epsim::parts_cluster
