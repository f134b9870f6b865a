#pragma once
#include "policies/schedule.h"

namespace epsim {

/// Seconds a kernel call takes on its rank when nothing disturbs it. Filled in by the run loop from the compute model.
using KernelCost = std::function<double(const KernelCall&)>;

/// A time that no run of the schedule can beat: for each phase and rank, the earliest moment it can be complete given the bytes on each rank's own links, the bytes on the
/// busiest link, uncontended path times, path latencies and the rank's own kernels; followed through the dependencies. Reduces cost nothing here.
double lower_bound(const Schedule& schedule, const Topology& topology, const KernelCost& cost);

}  // namespace epsim
