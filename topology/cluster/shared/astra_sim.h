#pragma once
#include <memory>

#include "topology/cluster/shared/fabric.h"

namespace epsim {

/// A cluster from ASTRA-sim's analytical network file: YAML lists `topology` (Ring, Switch, FullyConnected), `npus_count`, `bandwidth` (GB/s of a link, powers of 1000) and `latency` (ns of a link), the
/// innermost dimension first. An NPU is a rank with a router, so that paths can turn from one dimension into the next; the ranks of the first dimension are a node. A switch is two links.
/// Throws InputError with line and column of every problem.
Fabric read_astra_sim(const std::shared_ptr<const SourceText>& source);

}  // namespace epsim
