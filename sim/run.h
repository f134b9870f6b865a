#pragma once
#include <functional>

#include "sim/experiment.h"
#include "sim/timeline.h"

namespace epsim {

/// One simulated layer: who went where, what each rank did, and when.
struct LayerRun {
  Plan plan;
  Schedule schedule;
  Timeline timeline;
  double lower_bound_s = 0;
};

/// Routes one layer of the experiment for home ranks [begin, end).
void route_layer(const Experiment& experiment, int layer, int begin, int end, Routing& routing);
/// Settles one routed layer: placement, capacity and replicas.
Plan plan_layer(const Experiment& experiment, int layer, Routing routing);
/// Lowers and simulates one planned layer.
LayerRun run_plan(const Experiment& experiment, Plan plan, Timeline::Detail detail);
/// All layers of the experiment in order, one at a time in memory. `each` may move from its argument; returning false stops.
void run(const Experiment& experiment, Timeline::Detail detail, const std::function<bool(LayerRun&)>& each);

}  // namespace epsim
