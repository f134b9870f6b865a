#pragma once
#include "topology/cluster/shared/fabric.h"

namespace epsim {

/// What machines have in common whose ranks have a router each, joined to those of its neighbours.
struct RouterLinks {
  std::int64_t per_node;  ///< neighbouring ranks that count as one node
  const Device& device;
  Port link, inject;  ///< between routers, and between a rank and its router
  Paths paths;        ///< by default those that turn one dimension after the other

  /// The machine without links between routers: rank r's is vertex `router(r)`.
  Fabric ranks(std::int64_t count) const;
  static std::int32_t router(std::int64_t rank) { return static_cast<std::int32_t>(2 * rank + 1); }
};

/// Reads them; a router's links, `ways` of them (`in_words` of the settings), share the device's scale-up rate.
RouterLinks read_router_links(Params& p, double ways, std::string_view in_words);
/// Refuses a number of ranks that are no whole nodes.
void check_nodes(Params& p, const RouterLinks& links, std::int64_t ranks);

}  // namespace epsim
