#pragma once
#include <memory>

#include "topology/cluster/shared/fabric.h"

namespace epsim {

/// A fat tree from an htsim `.topo` file: `Nodes`, `Tiers` (2 or 3) and `Podsize`, then for each `Tier i` its `Downlink_speed_Gbps`, `Radix_Down`, `Radix_Up` (not of the top), `Downlink_Latency_ns`,
/// `Bundle` (parallel links to each switch below; default 1) and `Switch_Latency_ns` (added to links that leave the switch; default 0). Queue sizes and `Oversubscribed` are passed over.
/// A node is a rank. Throws InputError with line and column of every problem.
Fabric read_htsim(const std::shared_ptr<const SourceText>& source);

}  // namespace epsim
