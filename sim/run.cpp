#include "sim/run.h"

#include <algorithm>

#include "policies/bound.h"
#include "sim/engine.h"

namespace epsim {

void route_layer(const Experiment& e, int layer, int begin, int end, Routing& routing) { route(e.source, e.router, layer, begin, end, routing); }

Plan plan_layer(const Experiment& e, int layer, Routing routing) {
  Problem problem;
  problem.experts = e.model.num_experts, problem.ranks = e.topology.ranks(), problem.nodes = e.topology.nodes();
  problem.expert_groups = e.model.expert_groups, problem.seed = e.seed;
  problem.layers = {layer};
  // Experts compute what capacity keeps, so that is what a placement balances. Limits are per source and expert: no placement changes them.
  Matrix<std::int64_t> choices = count_choices(routing), counts = choices;
  if (e.capacity.limits) {
    const Matrix<std::int64_t> limits = e.capacity.limits(counts, routing);
    for (std::size_t i = 0; i < limits.cells.size(); ++i) counts.cells[i] = std::min(counts.cells[i], limits.cells[i]);
  }
  problem.counts.push_back(std::move(counts));
  problem.topology = &e.topology;
  Placement placement = std::move(e.placement.place(problem).front());
  placement.check(e.model.num_experts);
  return make_plan(layer, std::move(routing), std::move(choices), e.capacity, std::move(placement), e.replica, e.topology);
}

LayerRun run_plan(const Experiment& e, Plan plan, Timeline::Detail detail) {
  LayerRun run;
  run.plan = std::move(plan);
  run.schedule = e.exchange.schedule(run.plan, e.topology, e.pricing);
  run.timeline = simulate(run.schedule, e.topology, e.network, e.compute, e.compute_precision, detail);
  run.lower_bound_s = lower_bound(run.schedule, e.topology, [&](const KernelCall& call) { return e.compute.kernel_seconds(e.topology.device(), call, e.compute_precision); });
  return run;
}

void run(const Experiment& e, Timeline::Detail detail, const std::function<bool(LayerRun&)>& each) {
  Routing routing;
  for (const int layer : e.layers) {
    if (routing.expert.empty()) routing = make_routing(e.source, e.model.num_experts, e.model.top_k);
    route_layer(e, layer, 0, e.topology.ranks(), routing);
    LayerRun one = run_plan(e, plan_layer(e, layer, std::move(routing)), detail);
    if (!each(one)) return;
    routing = std::move(one.plan.routing);  // the next layer's, in the same memory
  }
}

}  // namespace epsim
