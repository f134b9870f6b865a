#pragma once
#include "policies/schedule.h"

namespace epsim {

/// Seconds a kernel call takes on its rank when nothing disturbs it. Filled in by the run loop from the compute model.
using KernelCost = std::function<double(const KernelCall&)>;

/// Seconds that no run of the schedule can beat under any network model: for each phase and rank, the earliest moment it can be complete given the bytes on each link (a rank's own ports among them; messages
/// that begin later pass later; and over all transfers of a stage), uncontended path times, path latencies and the rank's own kernels, followed through the dependencies; and for each phase, rank and link, what must still follow.
/// Reduces cost nothing here. O(messages x path + links) a transfer. Throws std::logic_error where ranks do not match.
double lower_bound(const Schedule& schedule, const Topology& topology, const KernelCost& cost);

}  // namespace epsim
