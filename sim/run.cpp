#include "sim/run.h"

#include <algorithm>
#include <chrono>

#include "policies/bound.h"
#include "policies/migration.h"
#include "policies/routed.h"
#include "sim/compressed.h"
#include "sim/engine.h"

namespace epsim {
namespace {

using Statistics = Rebalance::Statistics;

/// Copies that experts compute: what capacity keeps, for that is what a placement balances.
Matrix<std::int64_t> kept_copies(const Experiment& e, const Routing& routing, Matrix<std::int64_t> counts) {
  return kept_choices(e.capacity, routing, std::move(counts));
}

/// max/mean of the rank loads where each expert's load splits evenly over its replicas, over ranks that have slots.
double max_over_mean(const Placement& placement, const std::vector<std::int64_t>& loads) {
  double most = 0, sum = 0, ranks = 0;
  for (std::size_t r = 0; r + 1 < placement.first_slot.size(); ++r) {
    double load = 0;
    for (std::int32_t s = placement.first_slot[r]; s < placement.first_slot[r + 1]; ++s) {
      const std::size_t e = placement.expert_of_slot[static_cast<std::size_t>(s)];
      load += static_cast<double>(loads[e]) / static_cast<double>(placement.slots_of_expert[e].size());
    }
    most = std::max(most, load), sum += load;
    ranks += placement.first_slot[r + 1] > placement.first_slot[r];
  }
  return sum > 0 ? most * ranks / sum : 1;
}

/// The parts for the ranks that are up, on their machine.
struct Parts {
  const Topology& topology;  ///< that exchanges and replica rules see
  const Topology& placing;   ///< that placements see
  const Capacity& capacity;
  const PlacementPolicy& placement;
  const ReplicaRule& replica;
  const Exchange& exchange;
};

Parts parts_of(const Experiment& e, const Era& era) {
  if (const Survivors* s = era.survivors.get()) return {s->topology, s->placing, s->capacity, s->placement, s->replica, s->exchange};
  return {e.topology, e.topology, e.capacity, e.placement, e.replica, e.exchange};
}

Problem problem_of(const Experiment& e, const Era& era) {
  Problem p;
  const Parts parts = parts_of(e, era);
  p.experts = e.model.num_experts, p.ranks = parts.placing.ranks(), p.nodes = parts.placing.nodes();
  p.expert_groups = e.model.expert_groups, p.seed = e.seed;
  p.topology = &parts.placing;
  p.pricing = e.pricing;
  p.speed = era.speeds;
  if (era.survivors && !p.speed.empty()) {
    p.speed.clear();
    for (const Rank r : era.survivors->up) p.speed.push_back(era.speeds[r]);
  }
  p.expert_seconds = [&e](std::int64_t rows) {
    return e.compute.kernel_seconds(e.topology.device(), expert_call(e.pricing, Rank(0), Slot(0), rows, e.pricing.expert_ffn), e.compute_precision);
  };
  return p;
}

/// The schedule of a plan of the ranks that are up, on the whole machine.
Schedule schedule_of(const Experiment& e, const Era& era, const Plan& plan) {
  const Parts parts = parts_of(e, era);
  Schedule schedule = parts.exchange.schedule(plan, parts.topology, e.pricing);
  return era.survivors ? on_whole_machine(std::move(schedule), *era.survivors) : schedule;
}

double simulated_seconds(const Experiment& e, const Era& era, const Plan& plan) {
  return simulate(schedule_of(e, era, plan), e.topology, e.network, at_speeds(e.compute, era.speeds), e.compute_precision).end.seconds();
}

Plan plan_of(const Experiment& e, const Era& era, int layer, Routing routing, Placement placement) {
  const Parts parts = parts_of(e, era);
  if (era.survivors) placement = among_survivors(std::move(placement), *era.survivors);
  Plan plan = make_plan(layer, std::move(routing), parts.capacity, std::move(placement), parts.replica, parts.topology);
  settle_shared_expert(plan, e.shared_expert, parts.topology);
  return plan;
}

/// As if all experts were alike.
LayerHistory all_alike(const Experiment& e) {
  LayerHistory even;
  Matrix<std::int64_t> ones(e.topology.ranks(), e.model.num_experts);
  std::ranges::fill(ones.cells, 1);
  even.add(std::move(ones), nullptr);
  return even;
}

void route_by(const Experiment& e, const Router& router, int batch, int layer, int begin, int end, Routing& routing) {
  if (!e.compressed) return route(e.source, router, batch, layer, begin, end, routing, e.seed);
  e.compressed->layer(layer);  // decided now, and by all threads: not within a part of the routing
  routing.experts = e.compressed->columns();
  route(e.source, router, batch, layer, begin, end, routing, e.seed);
  routing.experts = e.model.num_experts;
  const bool all = e.source.yields == Source::Yields::scores && router.scope == Router::Scope::batch;  // such a router settles the tokens of all ranks
  compress(*e.compressed, layer, all ? 0 : begin, all ? routing.ranks() : end, routing);
}

/// Seconds in which every rank has read from its host what it restores.
double restoring_seconds(const Migration& m, Bytes expert_bytes, const Changes& changes) {
  std::vector<std::int64_t> experts;
  for (const Restore& r : m.restores) {
    experts.resize(std::max(experts.size(), static_cast<std::size_t>(r.to) + 1));
    ++experts[r.to];
  }
  return experts.empty() ? 0 : static_cast<double>(*std::ranges::max_element(experts) * expert_bytes) / changes.restore;
}

}  // namespace

void route_layer(const Experiment& e, int batch, int layer, int begin, int end, Routing& routing) { route_by(e, e.router, batch, layer, begin, end, routing); }

bool chooses_after_placing(const Experiment& e) { return e.capacity.chooses_again() && e.capacity.by_replica(); }

Routing choose_again(const Experiment& e, int batch, int layer, const Placement& placement) {
  std::vector<std::int64_t> replicas;
  for (const std::vector<Slot>& slots : placement.slots_of_expert) replicas.push_back(static_cast<std::int64_t>(slots.size()));
  const Router router = next_best(e.router, e.capacity, std::move(replicas));
  Routing routing = make_routing(e.source, e.model.num_experts, e.model.top_k, router, e.capacity.order == Capacity::Order::priority);
  route_by(e, router, batch, layer, 0, e.topology.ranks(), routing);
  return routing;
}

LayerRun run_plan(const Experiment& e, Plan plan, Timeline::Detail detail, const Era& era) {
  LayerRun run;
  const ComputeModel compute = at_speeds(e.compute, era.speeds);
  run.schedule = schedule_of(e, era, plan);
  run.plan = era.survivors ? on_whole_machine(std::move(plan), *era.survivors) : std::move(plan);
  run.timeline = simulate(run.schedule, e.topology, e.network, compute, e.compute_precision, detail);
  run.lower_bound_s = lower_bound(run.schedule, e.topology, [&](const KernelCall& call) { return compute.kernel_seconds(e.topology.device(), call, e.compute_precision); });
  run.speeds = era.speeds, run.ranks_up = era.ranks_up(e.topology.ranks());
  return run;
}

Run::Run(const Experiment& experiment)
    : experiment_(experiment), histories_(experiment.layers.size()), placements_(experiment.layers.size()), relocations_(experiment.layers.size()), foresight_(experiment.layers.size()) {}

void Run::see(std::size_t layer, std::shared_ptr<const Routing> routing) {
  Matrix<std::int64_t> counts = kept_copies(experiment_, *routing, count_choices(*routing));
  if (experiment_.rebalance.statistics == Statistics::predicted) foresight_.see(layer, *routing);
  remember(layer, std::move(counts), experiment_.placement.sees == PlacementPolicy::Sees::tokens ? std::move(routing) : nullptr);
}

void Run::remember(std::size_t layer, Matrix<std::int64_t> kept, std::shared_ptr<const Routing> tokens) {
  const Rebalance& rule = experiment_.rebalance;
  LayerHistory& history = histories_[layer];
  if (rule.statistics == Statistics::ema) history.fade(rule.decay);
  history.add(std::move(kept), std::move(tokens));
  if (rule.statistics == Statistics::window || rule.statistics == Statistics::predicted) history.keep(static_cast<std::size_t>(rule.window));
  if (rule.statistics == Statistics::lagged) history.keep(static_cast<std::size_t>(rule.lag));
}

std::vector<Placement> Run::place(const std::vector<std::size_t>& layers, const std::vector<const LayerHistory*>& histories) {
  const Experiment& e = experiment_;
  const Survivors* s = era_.survivors.get();
  Problem problem = problem_of(e, era_);
  for (std::size_t i = 0; i < layers.size(); ++i) {
    histories[i]->tell(e.layers[layers[i]], problem);
    const InForce& of_layer = placements_[layers[i]];
    if (of_layer.now.slots() > 0 && !of_layer.other_ranks) problem.previous.push_back(s ? among_survivors(of_layer.now, *s) : of_layer.now);
  }
  if (s) {
    for (Matrix<std::int64_t>& counts : problem.counts) counts = rehomed(counts, *s, e.changes.tokens);
    for (auto& of_layer : problem.tokens)
      for (std::shared_ptr<const Routing>& batch : of_layer) batch = std::make_shared<const Routing>(rehomed(*batch, *s, e.changes.tokens));
  }
  const Parts parts = parts_of(e, era_);
  if (!problem.tokens.empty())
    problem.batch_seconds = [this, &e, &parts, numbers = problem.layers](std::size_t l, const Routing& batch, const Placement& placement) {
      Plan plan = make_plan(numbers[l], batch, parts.capacity, placement, parts.replica, parts.topology);
      settle_shared_expert(plan, e.shared_expert, parts.topology);
      return simulated_seconds(e, era_, plan);
    };
  const auto begin = std::chrono::steady_clock::now();
  std::vector<Placement> placed = parts.placement.place(problem);
  placing_s_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  ensure(placed.size() == layers.size(), "a placement policy answers for all layers");
  for (Placement& p : placed) {
    p.check(e.model.num_experts);
    if (s) p = on_whole_machine(std::move(p), *s);
  }
  return placed;
}

void Run::change(std::size_t layer, Placement placement) {
  const Experiment& e = experiment_;
  InForce& of_layer = placements_[layer];
  Relocation& what = relocations_[layer];
  const bool other_ranks = std::exchange(of_layer.other_ranks, false);
  if (of_layer.now.slots() == 0) {  // the first: nothing moves
    of_layer.now = std::move(placement);
    return;
  }
  what.decided = true;
  if (other_ranks && era_.survivors) of_layer.now = what_is_left(of_layer.now, *era_.survivors);
  const Migration moved = migration(of_layer.now, placement, e.topology);
  what.changed_slots = moved.changed_slots, what.moved_experts = static_cast<std::int64_t>(moved.moves.size()), what.peers = moved.peers;
  what.bytes = what.moved_experts * e.pricing.expert_bytes;
  what.restored_experts = static_cast<std::int64_t>(moved.restores.size()), what.restored_bytes = what.restored_experts * e.pricing.expert_bytes;
  const bool moves = !moved.moves.empty() || !moved.restores.empty();
  // What is left of a placement can only be used while weights travel if no expert is missing.
  if (e.rebalance.moving == Rebalance::Moving::overlapped && moves && moved.restores.empty()) {
    of_layer.coming = std::move(placement);
    return;
  }
  if (e.rebalance.moving != Rebalance::Moving::free && moves) {
    const Schedule weights = migration_schedule(moved, e.topology.ranks(), e.pricing.expert_bytes);
    const double between_ranks = simulate(weights, e.topology, e.network, e.compute, e.compute_precision).end.seconds();
    what.moving_s = what.waited_s = std::max(between_ranks, restoring_seconds(moved, e.pricing.expert_bytes, e.changes));
    if (!other_ranks) of_layer.before = std::move(of_layer.now), of_layer.paid_s = what.waited_s;
  }
  of_layer.now = std::move(placement);
}

void Run::begin_batch(int batch) {
  const Era& era = experiment_.era(batch);
  const bool other_ranks = era.batch == batch && era.other_ranks;
  era_ = era;
  for (std::size_t l = 0; l < placements_.size(); ++l) {
    InForce& of_layer = placements_[l];
    relocations_[l] = {};
    of_layer.before = {};
    if (of_layer.coming.slots() > 0) of_layer.before = std::exchange(of_layer.now, std::exchange(of_layer.coming, {}));
    if (!other_ranks) continue;
    of_layer.other_ranks = true, of_layer.before = {};
  }
  batch_ = batch;
}

void Run::decide(int batch) {
  const Experiment& e = experiment_;
  const Rebalance& rule = e.rebalance;
  const LayerHistory even = all_alike(e);
  std::vector<std::size_t> layers;
  std::vector<const LayerHistory*> histories;
  std::vector<LayerHistory> lagged(e.layers.size());
  const bool first = placements_.front().now.slots() == 0;
  if (first || placements_.front().other_ranks) {
    // All layers, from what was seen.
    for (std::size_t l = 0; l < e.layers.size(); ++l) {
      layers.push_back(l);
      histories.push_back(histories_[l].batches() > 0 ? &histories_[l] : &even);
      if (rule.statistics == Statistics::lagged && histories_[l].batches() > 0) lagged[l] = histories_[l].oldest(), histories.back() = &lagged[l];
    }
  } else {
    if (rule.statistics == Statistics::fit || (batch - e.eval.first) % rule.every != 0) return;
    const std::size_t most = rule.layers_per_batch == 0 ? e.layers.size() : std::min(e.layers.size(), static_cast<std::size_t>(rule.layers_per_batch));
    for (std::size_t i = 0; i < most; ++i) {
      const std::size_t l = next_layer_;
      next_layer_ = (next_layer_ + 1) % e.layers.size();
      if (histories_[l].batches() == 0 || (rule.statistics == Statistics::lagged && histories_[l].batches() < static_cast<std::size_t>(rule.lag))) continue;
      const LayerHistory* history = &histories_[l];
      if (rule.statistics == Statistics::lagged) lagged[l] = history->oldest(), history = &lagged[l];
      if (max_over_mean(placements_[l].now, history->loads()) <= rule.threshold) continue;
      layers.push_back(l), histories.push_back(history);
    }
  }
  if (layers.empty()) return;
  std::vector<Placement> placed = place(layers, histories);
  for (std::size_t i = 0; i < layers.size(); ++i) change(layers[i], std::move(placed[i]));
}

LayerHistory Run::shown_now(std::size_t layer, const Routing& routing, Matrix<std::int64_t> kept) const {
  const Experiment& e = experiment_;
  LayerHistory shown;
  if (e.rebalance.statistics == Statistics::exact) {
    shown.add(std::move(kept), e.placement.sees == PlacementPolicy::Sees::tokens ? std::make_shared<const Routing>(routing) : nullptr);
    return shown;
  }
  Matrix<std::int64_t> foretold = foresight_.of(layer);
  if (foretold.cells.empty()) return histories_[layer].batches() > 0 ? histories_[layer] : all_alike(e);
  // Capacity of groups hangs on which tokens they hold, and that nobody foretells.
  if (e.capacity.scope != Capacity::Scope::group) foretold = kept_copies(e, routing, std::move(foretold));
  shown.add(std::move(foretold), nullptr);
  return shown;
}

Plan Run::plan(int batch, std::size_t layer, Routing routing) {
  const Experiment& e = experiment_;
  const bool begins = batch_ != batch;
  if (begins) begin_batch(batch);
  Matrix<std::int64_t> choices = count_choices(routing);
  const auto tokens = [&] { return e.placement.sees == PlacementPolicy::Sees::tokens ? std::make_shared<const Routing>(routing) : nullptr; };
  InForce& of_layer = placements_[layer];
  if (e.rebalance.in_turn()) {
    Matrix<std::int64_t> kept = kept_copies(e, routing, choices);
    if (of_layer.now.slots() == 0 || of_layer.other_ranks || (batch - e.eval.first) % e.rebalance.every == 0) {
      const LayerHistory shown = shown_now(layer, routing, kept);
      change(layer, std::move(place({layer}, {&shown}).front()));
    }
    if (e.rebalance.statistics == Statistics::predicted) foresight_.see(layer, routing), remember(layer, std::move(kept), nullptr);
  } else {
    if (begins) decide(batch);
    if (e.rebalance.statistics != Statistics::fit) remember(layer, kept_copies(e, routing, choices), tokens());
  }
  if (chooses_after_placing(e)) routing = choose_again(e, batch, e.layers[layer], of_layer.now), choices = count_choices(routing);
  if (era_.survivors) return plan_of(e, era_, e.layers[layer], rehomed(routing, *era_.survivors, e.changes.tokens), of_layer.now);
  Plan plan = make_plan(e.layers[layer], std::move(routing), std::move(choices), e.capacity, of_layer.now, e.replica, e.topology);
  settle_shared_expert(plan, e.shared_expert, e.topology);
  return plan;
}

LayerRun Run::play(int batch, std::size_t layer, Routing routing, Timeline::Detail detail) {
  const Experiment& e = experiment_;
  const std::vector<std::int64_t> homes = routing.first_token;
  Plan planned = plan(batch, layer, std::move(routing));
  InForce& of_layer = placements_[layer];
  Relocation& what = relocations_[layer];
  what.paid = of_layer.before.slots() > 0;
  double unmoved_s = 0;
  if (what.paid) {
    Routing unmoved = chooses_after_placing(e) ? choose_again(e, batch, e.layers[layer], of_layer.before) : planned.routing;
    if (chooses_after_placing(e) && era_.survivors) unmoved = rehomed(unmoved, *era_.survivors, e.changes.tokens);
    unmoved_s = simulated_seconds(e, era_, plan_of(e, era_, e.layers[layer], std::move(unmoved), of_layer.before));
  }
  LayerRun run = run_plan(e, std::move(planned), detail, era_);
  run.batch = batch;
  if (what.paid) what.paid_s = of_layer.paid_s, what.gained_s = unmoved_s - run.timeline.end.seconds();
  if (of_layer.coming.slots() > 0) {
    const Schedule weights = migration_schedule(migration(of_layer.now, of_layer.coming, e.topology), e.topology.ranks(), e.pricing.expert_bytes);
    const std::unique_ptr<Network> network = e.network.make(e.topology);
    const ComputeModel compute = at_speeds(e.compute, era_.speeds);
    Engine engine(e.topology, *network, compute, e.compute_precision, detail);
    engine.add(run.schedule), engine.add(weights);
    std::vector<Timeline> both = engine.run();
    what.moving_s = both[1].end.seconds();
    what.slowed_s = both[0].end.seconds() - run.timeline.end.seconds();
    of_layer.paid_s = std::max(0.0, what.slowed_s);
    run.timeline = std::move(both[0]);
  }
  run.relocation = what;
  if (era_.survivors)
    for (const Rank r : ids<Rank>(e.topology.ranks()))
      if (!std::ranges::binary_search(era_.survivors->up, r)) (e.changes.tokens == Changes::Tokens::lost ? run.lost_tokens : run.rehomed_tokens) += homes[r + 1] - homes[r];
  return run;
}

void fit(const Experiment& e, const std::vector<Run*>& runs) {
  for (int batch = e.fit.first; batch < e.fit.last; ++batch)
    for (std::size_t l = 0; l < e.layers.size(); ++l) {
      const auto routing = std::make_shared<Routing>(e.routing());
      route_layer(e, batch, e.layers[l], 0, e.topology.ranks(), *routing);
      for (Run* run : runs) run->see(l, routing);
    }
}

void run(const Experiment& e, Timeline::Detail detail, const std::function<bool(LayerRun&)>& each) {
  Run runs(e);
  fit(e, {&runs});
  Routing routing;
  for (int batch = e.eval.first; batch < e.eval.last; ++batch)
    for (std::size_t l = 0; l < e.layers.size(); ++l) {
      if (routing.expert.empty() || e.era(batch).survivors || chooses_after_placing(e)) routing = e.routing();
      route_layer(e, batch, e.layers[l], 0, e.topology.ranks(), routing);
      LayerRun one = runs.play(batch, l, std::move(routing), detail);
      if (!each(one)) return;
      if (!e.era(batch).survivors) routing = std::move(one.plan.routing);  // the next layer's, in the same memory
    }
}

}  // namespace epsim
