#include "policies/optimum.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <optional>

#include "policies/load_bound.h"
#include "sim/engine.h"
#include "tests/support/network_rig.h"
#include "tests/support/random_case.h"
#include "tests/support/schedules.h"

namespace epsim {
namespace {

using testing::part_from_yaml;
using testing::RandomCase;

/// Seconds that the busiest link of a stage is busy.
double busiest(const Schedule& schedule, const Topology& topology, Stage stage) {
  std::vector<double> busy(topology.links().size());
  for (const Phase& phase : schedule.phases)
    if (phase.kind == Phase::Kind::transfer && phase.stage == stage)
      for (const Rank s : ids<Rank>(schedule.ranks))
        for (const RowTable::Entry& e : phase.rows.from(s))
          topology.for_each_share(s, e.destination, [&](std::int32_t l, double share) {
            busy[static_cast<std::size_t>(l)] += static_cast<double>(e.rows * phase.row_bytes) * share / topology.links()[static_cast<std::size_t>(l)].bandwidth;
          });
  return busy.empty() ? 0 : *std::ranges::max_element(busy);
}

/// What any placement with the slots of this plan meets; `anywhere`: any rank may compute a token's shared expert.
Demand demand_of(const Plan& plan, const Exchange& exchange, const Topology& topology, const Pricing& pricing, const ComputeModel& compute, bool anywhere = false) {
  const Device& device = topology.device();
  Demand d;
  d.kept = Matrix<std::int64_t>(plan.ranks(), plan.routing.experts);
  for (std::int64_t r = 0; r < d.kept.rows; ++r)
    for (const Slot s : ids<Slot>(plan.placement.slots())) d.kept(r, plan.placement.expert_of_slot[static_cast<std::size_t>(s)]) += plan.copies(r, s);
  for (const Rank r : ids<Rank>(plan.ranks())) d.slots.push_back(plan.placement.first_slot[r + 1] - plan.placement.first_slot[r]);
  d.top_k = plan.routing.top_k;
  d.together = Matrix<std::int64_t>(plan.routing.experts, plan.routing.experts);
  for (std::int64_t t = 0; t < plan.routing.tokens(); ++t)
    for (std::int64_t i = t * d.top_k; i < (t + 1) * d.top_k; ++i)
      for (std::int64_t j = t * d.top_k; j < (t + 1) * d.top_k; ++j)
        if (i != j && plan.slot[static_cast<std::size_t>(i)] >= 0 && plan.slot[static_cast<std::size_t>(j)] >= 0)
          ++d.together(plan.routing.expert[static_cast<std::size_t>(i)], plan.routing.expert[static_cast<std::size_t>(j)]);
  if (plan.routing.tokens() % 2 == 1) d.together = {};
  d.tokens_with.resize(static_cast<std::size_t>(d.top_k) + 1);
  for (std::int64_t t = 0; t < plan.routing.tokens(); ++t)
    ++d.tokens_with[static_cast<std::size_t>(std::count_if(plan.slot.begin() + t * d.top_k, plan.slot.begin() + (t + 1) * d.top_k, [](auto slot) { return slot >= 0; }))];
  d.dispatch_row_for = exchange.dispatch_row_for, d.combine_row_for = exchange.combine_row_for;
  d.dispatch_row = pricing.dispatch_row(), d.combine_row = pricing.combine_row();
  const auto seconds = [=](std::int64_t rows, std::int64_t ffn) { return compute.kernel_seconds(device, expert_call(pricing, Rank(0), Slot(0), rows, ffn), Precision::bf16); };
  d.expert_seconds = [=](std::int64_t rows) { return seconds(rows, pricing.expert_ffn); };
  if (anywhere && plan.routing.tokens() > 0) d.shared_anywhere_s = seconds(plan.routing.tokens(), pricing.shared_ffn);
  for (const Rank r : ids<Rank>(anywhere ? 0 : plan.ranks()))
    d.shared_seconds.push_back(pricing.shared_ffn > 0 ? seconds(plan.routing.first_token[r + 1] - plan.routing.first_token[r], pricing.shared_ffn) : 0);
  const Schedule schedule = exchange.schedule(plan, topology, pricing);
  d.experts_wait = experts_wait(schedule), d.hops_wait = hops_wait(schedule);
  return d;
}

/// Placements into the same slots: the case's own, random ones, and one that gives each rank what its own tokens want most, which stresses what a rank can keep.
std::vector<Placement> placements_like(const Plan& plan, const Demand& demand, Rng& rng) {
  const auto experts = static_cast<std::size_t>(plan.routing.experts), slots = plan.placement.expert_of_slot.size();
  std::vector<Placement> all{plan.placement};
  for (int i = 0; i < 3; ++i) {
    std::vector<std::uint16_t> of_slot(slots);
    std::vector<std::uint32_t> order(slots);
    rng.permutation(order);
    for (std::size_t s = 0; s < slots; ++s) of_slot[order[s]] = static_cast<std::uint16_t>(s < experts ? s : rng.below(experts));
    all.push_back(Placement::from_experts(std::move(of_slot), plan.placement.first_slot, plan.routing.experts));
  }
  std::vector<std::uint16_t> local;
  std::vector<int> count(experts);
  for (std::int64_t r = 0; r < plan.ranks(); ++r) {
    std::vector<std::uint16_t> wanted(experts);
    std::iota(wanted.begin(), wanted.end(), std::uint16_t{0});
    std::ranges::stable_sort(wanted, std::greater(), [&](std::uint16_t e) { return demand.kept(r, e); });
    for (std::int32_t s = 0; s < demand.slots[static_cast<std::size_t>(r)]; ++s) local.push_back(wanted[static_cast<std::size_t>(s) % experts]), ++count[local.back()];
  }
  for (std::size_t e = 0; e < experts; ++e)  // everyone needs a slot
    for (std::size_t s = slots; s-- > 0 && count[e] == 0;)
      if (count[local[s]] > 1) --count[local[s]], local[s] = static_cast<std::uint16_t>(e), ++count[e];
  all.push_back(Placement::from_experts(std::move(local), plan.placement.first_slot, plan.routing.experts));
  return all;
}

// Two ranks that compute half of what the other's tokens want, in chunks: entering, computing and leaving go beside each other, so their sum bounds nothing; without chunks it does.
TEST(OptimumProperty, ChunksOverlapWhatARankDoesInTurn) {
  const Topology t = testing::star(2, 1e9, Time{10'000});
  ComputeModel compute = testing::nanoseconds();
  compute.reduce_seconds = [](const Device&, double) { return 0.0; };
  Pricing pricing;
  pricing.hidden = 8, pricing.expert_ffn = 4;
  Routing routing;
  routing.experts = 2, routing.top_k = 1, routing.first_token = {0, 1000, 2000};
  for (int i = 0; i < 2000; ++i) routing.expert.push_back(static_cast<std::uint16_t>(i % 2)), routing.weight.push_back(1);
  const Plan plan = make_plan(0, routing, Capacity{}, Placement::from_experts({0, 1}, {0, 1, 2}, 2), part_from_yaml(builtin_replica_rules(), "round_robin", static_cast<const Shape*>(nullptr)), t);
  for (const int chunks : {1, 8}) {
    const Exchange exchange = part_from_yaml(builtin_exchanges(), "direct: {chunks: " + std::to_string(chunks) + "}", static_cast<const Shape*>(nullptr));
    const OptimumBounds bounds = optimum_bounds(demand_of(plan, exchange, t, pricing, compute), t, cuts_of(t, exchange));
    const double end = simulate(exchange.schedule(plan, t, pricing), t, testing::network_named("ideal"), compute, Precision::bf16).end.seconds();
    EXPECT_GE(end, bounds.layer_s.value) << chunks << " chunks: " << bounds.layer_s.because;
    EXPECT_GE(bounds.layer_s.value, (chunks == 1 ? 1 - 1e-7 : 0.9) * end) << chunks << " chunks: " << bounds.layer_s.because;
  }
}

/// A layer of five experts on a star of four ranks, where a call takes 1 us however many rows it has, a link 10 ns and a row of 16 bytes 16 ns more.
struct FiveExperts {
  Certificate bound;
  double end = 0;
  FiveExperts(const std::vector<int>& choices, const Placement& placement) {
    const Topology t = testing::star(4, 1e9, Time{10'000});
    Pricing pricing;
    pricing.hidden = 8, pricing.expert_ffn = 4;
    ComputeModel compute = testing::nanoseconds();
    compute.kernel_seconds = [](const Device&, const KernelCall&, Precision) { return 1e-6; };
    compute.reduce_seconds = [](const Device&, double) { return 0.0; };
    Routing routing;
    routing.experts = 5, routing.top_k = 1;
    for (std::int64_t r = 0; r <= 4; ++r) routing.first_token.push_back(r * static_cast<std::int64_t>(choices.size()) / 4);
    routing.expert.assign(choices.begin(), choices.end()), routing.weight.assign(choices.size(), 1);
    const Exchange exchange = part_from_yaml(builtin_exchanges(), "direct", static_cast<const Shape*>(nullptr));
    const Plan plan = make_plan(0, routing, Capacity{}, placement, part_from_yaml(builtin_replica_rules(), "nearest", static_cast<const Shape*>(nullptr)), t);
    bound = optimum_bounds(demand_of(plan, exchange, t, pricing, compute), t, cuts_of(t, exchange)).layer_s;
    end = simulate(exchange.schedule(plan, t, pricing), t, testing::network_named("ideal"), compute, Precision::bf16).end.seconds();
  }
};

// All four ranks want all five: whatever lies where, some rank makes two calls, waits for the rows of three others and sends as many back; for both of its experts, where none is replicated. Spare slots spare it
// neither the calls nor a wait, as a replica costs a call more.
TEST(OptimumProperty, SpareSlotsSpareNeitherCallsNorWaits) {
  const std::vector<int> choices{0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1, 2, 3, 4};
  const auto check = [&](const Placement& placement, double rows) {
    const FiveExperts layer(choices, placement);
    EXPECT_EQ(layer.bound.because, "calls and waits");
    EXPECT_NEAR(layer.bound.value, 2e-6 + 2 * (20e-9 + rows * 16e-9), 1e-12) << "two links and the rows each way";
    EXPECT_GE(layer.end, layer.bound.value);
  };
  check(Placement::from_experts({0, 1, 2, 3, 4}, {0, 2, 3, 4, 5}, 5), 6);
  check(Placement::from_experts({0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1}, {0, 3, 6, 9, 12}, 5), 3);
}

// One expert, a slot of it on either of two ranks. Dealt in turn, either slot gets half of what both ranks want, wherever it is, and the bound is the layer's time; of one token each, either slot gets that of one rank, and nothing need travel.
TEST(OptimumProperty, SlotsServeWhatIsDealtToThem) {
  const Topology t = testing::star(2, 1e9, Time{10'000});
  ComputeModel compute = testing::nanoseconds();
  compute.kernel_seconds = [](const Device&, const KernelCall& call, Precision) { return 1e-9 * static_cast<double>(call.rows); };
  compute.reduce_seconds = [](const Device&, double) { return 0.0; };
  Pricing pricing;
  pricing.hidden = 8, pricing.expert_ffn = 4;
  const Exchange exchange = part_from_yaml(builtin_exchanges(), "direct", static_cast<const Shape*>(nullptr));
  const ReplicaRule rule = part_from_yaml(builtin_replica_rules(), "round_robin", static_cast<const Shape*>(nullptr));
  for (const std::int64_t tokens : {1, 100}) {
    Routing routing;
    routing.experts = 1, routing.top_k = 1, routing.first_token = {0, tokens, 2 * tokens};
    routing.expert.assign(static_cast<std::size_t>(2 * tokens), 0), routing.weight.assign(static_cast<std::size_t>(2 * tokens), 1);
    const Plan plan = make_plan(0, routing, Capacity{}, Placement::from_experts({0, 0}, {0, 1, 2}, 1), rule, t);
    Demand demand = demand_of(plan, exchange, t, pricing, compute);
    const double with_any_rule = optimum_bounds(demand, t, cuts_of(t, exchange)).layer_s.value;
    demand.in_turn = true;
    const double bound = optimum_bounds(demand, t, cuts_of(t, exchange)).layer_s.value;
    const double end = simulate(exchange.schedule(plan, t, pricing), t, testing::network_named("ideal"), compute, Precision::bf16).end.seconds();
    EXPECT_NEAR(end, tokens == 1 ? 1e-9 : 100e-9 + 2 * (20e-9 + 50 * 16e-9), 1e-12);
    EXPECT_NEAR(bound, end, 1e-12) << tokens;
    EXPECT_NEAR(with_any_rule, 1e-9 * static_cast<double>(tokens), 1e-12) << "each rank keeps its own";
  }
}

// Of four experts on two ranks one is wanted by a hundred tokens: beside it lies one of the others, that ten want each.
TEST(OptimumProperty, AHeavyExpertHasCompany) {
  const Topology t = testing::star(2, 1e15);
  ComputeModel compute = testing::nanoseconds();
  compute.kernel_seconds = [](const Device&, const KernelCall& call, Precision) { return 1e-6 * static_cast<double>(call.rows); };
  compute.reduce_seconds = [](const Device&, double) { return 0.0; };
  Pricing pricing;
  pricing.hidden = 8, pricing.expert_ffn = 4;
  Routing routing;
  routing.experts = 4, routing.top_k = 1, routing.first_token = {0, 65, 130};
  for (int i = 0; i < 130; ++i) routing.expert.push_back(static_cast<std::uint16_t>(i % 13 < 10 ? 0 : i % 13 - 9)), routing.weight.push_back(1);
  const Plan plan = make_plan(0, routing, Capacity{}, Placement::from_experts({0, 1, 2, 3}, {0, 2, 4}, 4), part_from_yaml(builtin_replica_rules(), "round_robin", static_cast<const Shape*>(nullptr)), t);
  const Exchange exchange = part_from_yaml(builtin_exchanges(), "direct", static_cast<const Shape*>(nullptr));
  const Certificate bound = optimum_bounds(demand_of(plan, exchange, t, pricing, compute), t, cuts_of(t, exchange)).layer_s;
  EXPECT_EQ(bound.because, "company");
  EXPECT_NEAR(bound.value, 110e-6, 1e-9);
}

// Three of five experts are wanted at home only, where they wait for nothing: the rank with two calls may be one of these.
TEST(OptimumProperty, ARankWithMostCallsNeedNotBeTheOneThatWaits) {
  const FiveExperts layer({0, 1, 3, 4, 2, 2, 3, 4, 3, 4, 3, 4, 3, 4, 3, 4}, Placement::from_experts({0, 1, 2, 3, 4}, {0, 2, 3, 4, 5}, 5));
  EXPECT_NEAR(layer.end, 2e-6, 1e-12);
  EXPECT_NEAR(layer.bound.value, 2e-6, 1e-12) << layer.bound.because;
}

// Six experts, each wanted by many tokens of three ranks beside each other and by one token far away: the far one is under way for longer, but while the others' rows still come in.
TEST(OptimumProperty, ALongWayIsTravelledWhileOtherRowsComeIn) {
  const Topology t = testing::tree(2, 3, 1e9, 1e9, Time{10'000'000});
  ComputeModel compute = testing::nanoseconds();
  compute.kernel_seconds = [](const Device&, const KernelCall&, Precision) { return 1e-6; };
  compute.reduce_seconds = [](const Device&, double) { return 0.0; };
  Pricing pricing;
  pricing.hidden = 8, pricing.expert_ffn = 4;
  Routing routing;
  routing.experts = 6, routing.top_k = 1, routing.first_token = {0};
  for (std::uint16_t r = 0; r < 6; ++r) {
    for (std::uint16_t e = 0; e < 3; ++e) routing.expert.insert(routing.expert.end(), 1000, static_cast<std::uint16_t>(r / 3 * 3 + e));
    routing.expert.push_back(static_cast<std::uint16_t>((r + 3) % 6));
    routing.first_token.push_back(static_cast<std::int64_t>(routing.expert.size()));
  }
  routing.weight.assign(routing.expert.size(), 1);
  const Plan plan = make_plan(0, routing, Capacity{}, Placement::from_experts({0, 1, 2, 3, 4, 5}, {0, 1, 2, 3, 4, 5, 6}, 6), part_from_yaml(builtin_replica_rules(), "round_robin", static_cast<const Shape*>(nullptr)), t);
  const Exchange exchange = part_from_yaml(builtin_exchanges(), "direct", static_cast<const Shape*>(nullptr));
  const Certificate bound = optimum_bounds(demand_of(plan, exchange, t, pricing, compute), t, cuts_of(t, exchange)).layer_s;
  const double end = simulate(exchange.schedule(plan, t, pricing), t, testing::network_named("fair"), compute, Precision::bf16).end.seconds();
  EXPECT_GE(end, bound.value) << bound.because;
  EXPECT_NEAR(bound.value, 1e-6 + 2 * (20e-6 + 2000 * 16e-9), 1e-6) << bound.because << ": the near ranks' rows and the two links they cross, both ways";
}

// I6 for all placements at once: no placement, replica rule, exchange or network beats the bounds that were made without looking at the placement.
TEST(OptimumProperty, NoPlacementBeatsTheBounds) {
  const ComputeModel compute = part_from_yaml(builtin_computes(), "roofline");
  const std::vector<std::string> rules = builtin_replica_rules().names();
  double load = 0, dispatch = 0, combine = 0, layer = 0, shared = 0;
  std::map<std::string_view, int> bound_by;
  for (std::uint64_t seed = 0; seed < 2000; ++seed) {
    RandomCase c(seed);
    const bool shares = seed % 4 == 1;  // and so does `waterfill`, whatever the placement
    if (shares) c.share("waterfill: {min_tokens: 0}");
    Capacity as_kept;
    as_kept.limits = [&c](const Matrix<std::int64_t>&, const Routing&) { return c.plan.limits; };
    Pricing pricing = c.pricing();
    if (seed % 3 == 0) pricing.hidden = 4096;      // bytes count
    if (seed % 5 == 0) pricing.expert_ffn = 4096;  // computing counts
    if (seed % 7 == 0) pricing.combine = Precision::fp8;
    const std::string& name = testing::exchange_variants()[seed % testing::exchange_variants().size()];
    const Exchange exchange = c.exchange(name);
    if (seed % 11 == 0 && pricing.shared_ffn > 0) pricing.shared_ffn = 65536;  // little else counts
    Demand demand = demand_of(c.plan, exchange, c.topology, pricing, compute, shares);
    const MachineCuts cuts = cuts_of(c.topology, exchange);
    const OptimumBounds with_any_rule = optimum_bounds(demand, c.topology, cuts);
    demand.in_turn = true;
    const OptimumBounds in_turn = optimum_bounds(demand, c.topology, cuts);
    Rng rng(seed, Stream::test, 44);
    for (const Placement& placement : placements_like(c.plan, demand, rng)) {
      const std::string& rule_name = rules[rng.below(rules.size())];
      SCOPED_TRACE(name + ", " + rule_name + ", case " + std::to_string(seed));
      const ReplicaRule rule = part_from_yaml(builtin_replica_rules(), rule_name, static_cast<const Shape*>(nullptr));
      const OptimumBounds& bounds = rule.in_turn ? in_turn : with_any_rule;
      ASSERT_GE(in_turn.layer_s.value, with_any_rule.layer_s.value) << in_turn.layer_s.because << " after " << with_any_rule.layer_s.because;
      Plan plan = make_plan(3, c.plan.routing, as_kept, placement, rule, c.topology);
      if (shares) settle_shared_expert(plan, part_from_yaml(builtin_shared_expert_rules(), "waterfill: {min_tokens: 0}", static_cast<const Shape*>(nullptr)), c.topology);
      const Schedule schedule = exchange.schedule(plan, c.topology, pricing);
      const auto fullest = static_cast<double>(std::ranges::max(plan.copies_of_rank()));
      ASSERT_GE(fullest, bounds.load.value) << bounds.load.because;
      const double dispatched = busiest(schedule, c.topology, Stage::dispatch), combined = busiest(schedule, c.topology, Stage::combine);
      ASSERT_GE(dispatched, bounds.dispatch_s.value) << bounds.dispatch_s.because;
      ASSERT_GE(combined, bounds.combine_s.value) << bounds.combine_s.because;
      const char* network = rng.below(2) ? "ideal" : "fair";
      const double end = simulate(schedule, c.topology, testing::network_named(network), compute, Precision::bf16).end.seconds();
      ASSERT_GE(end, bounds.layer_s.value) << network << ": " << bounds.layer_s.because;
      if (end > 0) layer = std::max(layer, bounds.layer_s.value / end);
      if (end > 0 && shares) shared = std::max(shared, bounds.layer_s.value / end);
      if (fullest > 0) load = std::max(load, bounds.load.value / fullest);
      if (dispatched > 0) dispatch = std::max(dispatch, bounds.dispatch_s.value / dispatched);
      if (combined > 0) combine = std::max(combine, bounds.combine_s.value / combined);
    }
    ++bound_by[with_any_rule.layer_s.because], ++bound_by[with_any_rule.dispatch_s.because];
  }
  EXPECT_EQ(load, 1) << "some placement meets it";
  EXPECT_GT(dispatch, 0.99);
  EXPECT_GT(combine, 0.99);
  EXPECT_GT(layer, 0.9);
  EXPECT_GT(shared, 0.9);
  for (const char* because : {"busiest rank", "computing", "all in turn", "calls and waits", "company", "home rank", "home node", "serving ranks", "serving nodes"}) EXPECT_GT(bound_by[because], 0) << because << " never bound anything";
}

// Slots that may stay empty: of few experts every set that a rank could hold, or many of these. Each expert is a call of much the same length, so that what decides is who computes one more, and which are split.
TEST(OptimumProperty, NoPlacementWithSlotsToSpareBeatsTheBounds) {
  const ReplicaRule rule = part_from_yaml(builtin_replica_rules(), "round_robin", static_cast<const Shape*>(nullptr));
  std::map<std::string_view, int> bound_by;
  double closest = 0, mean = 0;
  int cases = 0;
  for (std::uint64_t seed = 0; seed < 150; ++seed) {
    Rng rng(seed, Stream::test, 46);
    const auto pick = [&](int low, int high) { return low + static_cast<int>(rng.below(static_cast<std::uint64_t>(high - low + 1))); };
    const int ranks = pick(2, 4), room = pick(2, 3), experts = std::min(ranks * room - 1, pick(ranks, 2 * ranks)), k = pick(1, 2);
    const Topology t = testing::star(ranks, 1e9, Time{pick(0, 1) * 200'000});
    ComputeModel compute = testing::nanoseconds();
    const double call_s = 1e-6 * pick(0, 3), row_s = 1e-9 * pick(1, 40);
    compute.kernel_seconds = [=](const Device&, const KernelCall& call, Precision) { return call_s + row_s * static_cast<double>(call.rows); };
    compute.reduce_seconds = [](const Device&, double) { return 0.0; };
    Pricing pricing;
    pricing.hidden = seed % 3 == 0 ? 8 : 64, pricing.expert_ffn = 4;
    Routing routing;
    routing.experts = experts, routing.top_k = k, routing.first_token = {0};
    const double skew = rng.uniform() * 2;
    for (int r = 0; r < ranks; ++r) routing.first_token.push_back(routing.first_token.back() + pick(1, 40));
    for (std::int64_t token = 0; token < routing.tokens(); ++token) {
      const int first = static_cast<int>(std::pow(rng.uniform(), 1 + skew) * experts);
      for (int i = 0; i < k; ++i) routing.expert.push_back(static_cast<std::uint16_t>((first + i * pick(1, experts - 1)) % experts));
      if (k == 2 && routing.expert.end()[-1] == routing.expert.end()[-2]) routing.expert.back() = static_cast<std::uint16_t>((routing.expert.back() + 1) % experts);
    }
    routing.weight.assign(routing.expert.size(), 1);
    const Exchange exchange = part_from_yaml(builtin_exchanges(), seed % 4 == 3 ? "direct: {dedup: rank}" : "direct", static_cast<const Shape*>(nullptr));
    const MachineCuts cuts = cuts_of(t, exchange);
    SCOPED_TRACE("case " + std::to_string(seed));
    std::vector<std::vector<std::uint16_t>> sets = {{}};  // that a rank could hold, an expert once or more often
    for (int e = 0; e < experts; ++e)
      for (std::size_t i = 0; i < sets.size(); ++i)
        if (static_cast<int>(sets[i].size()) < room && (sets[i].empty() || sets[i].back() < e || (seed % 2 == 0 && sets[i].back() == e))) {
          std::vector<std::uint16_t> more = sets[i];
          more.push_back(static_cast<std::uint16_t>(e));
          sets.push_back(std::move(more));
        }
    std::optional<OptimumBounds> bounds;
    double least = 1e9;
    const auto all = static_cast<std::int64_t>(std::pow(sets.size(), ranks));
    const bool each = all <= 1000;
    for (std::int64_t i = 0; i < (each ? all : 1000); ++i) {
      std::vector<std::uint16_t> of_slot;
      std::vector<std::int32_t> first_slot = {0};
      std::int64_t code = each ? i : static_cast<std::int64_t>(rng.below(static_cast<std::uint64_t>(all)));
      std::vector<bool> there(static_cast<std::size_t>(experts));
      for (int r = 0; r < ranks; ++r, code /= static_cast<std::int64_t>(sets.size())) {
        for (const std::uint16_t e : sets[static_cast<std::size_t>(code) % sets.size()]) of_slot.push_back(e), there[e] = true;
        first_slot.push_back(static_cast<std::int32_t>(of_slot.size()));
      }
      if (std::ranges::find(there, false) != there.end()) continue;
      const Plan plan = make_plan(0, routing, Capacity{}, Placement::from_experts(std::move(of_slot), std::move(first_slot), experts), rule, t);
      if (!bounds) {
        Demand demand = demand_of(plan, exchange, t, pricing, compute);
        demand.in_turn = true;
        demand.slots.assign(static_cast<std::size_t>(ranks), room);
        bounds = optimum_bounds(demand, t, cuts);
      }
      const double end = simulate(exchange.schedule(plan, t, pricing), t, testing::network_named(rng.below(2) ? "ideal" : "fair"), compute, Precision::bf16).end.seconds();
      ASSERT_GE(end, bounds->layer_s.value) << bounds->layer_s.because;
      least = std::min(least, end);
    }
    if (!bounds) continue;
    ++bound_by[bounds->layer_s.because];
    closest = std::max(closest, bounds->layer_s.value / least), mean += bounds->layer_s.value / least, ++cases;
  }
  EXPECT_GT(closest, 0.9999) << "some placement meets it";
  EXPECT_GT(mean / cases, 0.81) << "of the quickest that was tried";
  for (const char* because : {"all in turn", "calls and waits", "company", "configurations"}) EXPECT_GT(bound_by[because], 0) << because << " never bound anything";
}

// The same where tokens cross to a node once, for machines and layers on which what they share decides: as many slots on each rank, some experts that most tokens want, groups that are wanted together, and all placements where there are few.
TEST(OptimumProperty, NoPlacementSharesMoreRowsThanTheBoundsAllow) {
  const ComputeModel compute = part_from_yaml(builtin_computes(), "roofline");
  const ReplicaRule rule = part_from_yaml(builtin_replica_rules(), "round_robin", static_cast<const Shape*>(nullptr));
  std::map<std::string_view, int> bound_by;
  std::map<std::string_view, double> closest;
  for (std::uint64_t seed = 0; seed < 600; ++seed) {
    Rng rng(seed, Stream::test, 45);
    const auto pick = [&](int low, int high) { return low + static_cast<int>(rng.below(static_cast<std::uint64_t>(high - low + 1))); };
    const int nodes = pick(2, 4), per_node = pick(1, 4), ranks = nodes * per_node, each = pick(1, 3), slots = ranks * each, experts = std::max(2, slots - pick(0, seed % 3 == 0 ? 3 : 0)), k = std::min(experts, pick(1, 5));
    const Topology t = seed % 4 == 0 ? testing::uneven_nodes(ranks, nodes, rng)
                                     : part_from_yaml(builtin_clusters(), fmt::format("{{rail_fat_tree: {{nodes: {}, ranks_per_node: {}, device: h100}}}}", nodes, per_node));
    Routing routing;
    routing.experts = experts, routing.top_k = k, routing.first_token = {0};
    const int tokens = pick(1, seed % 5 == 0 ? 400 : 40), group = pick(1, k);
    const double skew = rng.uniform() * 3;
    for (int r = 0; r < ranks; ++r) routing.first_token.push_back(routing.first_token.back() + (rng.below(8) == 0 ? 0 : tokens));
    for (std::int64_t token = 0; token < routing.tokens(); ++token) {
      std::vector<std::uint16_t> chosen;
      while (static_cast<int>(chosen.size()) < k) {  // a group of neighbours, the low ones more often
        const auto first = static_cast<int>(std::pow(rng.uniform(), 1 + skew) * experts);
        for (int i = first; i < first + group && static_cast<int>(chosen.size()) < k; ++i)
          if (const auto e = static_cast<std::uint16_t>(i % experts); std::ranges::find(chosen, e) == chosen.end()) chosen.push_back(e);
      }
      routing.expert.insert(routing.expert.end(), chosen.begin(), chosen.end());
    }
    routing.weight.assign(routing.expert.size(), 1);
    Pricing pricing;
    pricing.hidden = seed % 3 == 0 ? 256 : 8192, pricing.expert_ffn = seed % 2 == 0 ? 8 : 1024;
    const char* const name = seed % 5 == 1 ? "hierarchical: {reduce_in_node: false}" : seed % 5 == 2 ? "direct: {dedup: rank}" : seed % 5 == 3 ? "hierarchical: {chunks: 4}" : "hierarchical";
    SCOPED_TRACE(name + (", case " + std::to_string(seed)));
    const Exchange exchange = part_from_yaml(builtin_exchanges(), name, static_cast<const Shape*>(nullptr));
    std::vector<std::int32_t> first_slot;
    for (int r = 0; r <= ranks; ++r) first_slot.push_back(r * each);
    std::vector<std::uint16_t> of_slot;
    for (int i = 0; i < slots; ++i) of_slot.push_back(static_cast<std::uint16_t>(i < experts ? i : pick(0, experts - 1)));
    const MachineCuts cuts = cuts_of(t, exchange);
    std::optional<OptimumBounds> bounds;
    int left = slots <= 4 ? 24 : 12;
    std::ranges::sort(of_slot);  // neighbours together, and then all orders of few slots, or some of many
    do {
      const Plan plan = make_plan(0, routing, Capacity{}, Placement::from_experts(std::vector(of_slot), first_slot, experts), rule, t);
      if (!bounds) {
        Demand demand = demand_of(plan, exchange, t, pricing, compute);
        demand.together = Matrix<std::int64_t>(experts, experts);
        for (std::int64_t i = 0; i < routing.tokens() * k; ++i)
          for (std::int64_t j = i / k * k; j < i / k * k + k; ++j)
            if (i != j) ++demand.together(routing.expert[static_cast<std::size_t>(i)], routing.expert[static_cast<std::size_t>(j)]);
        demand.in_turn = true;
        bounds = optimum_bounds(demand, t, cuts);
        ++bound_by[bounds->layer_s.because];
      }
      const Schedule schedule = exchange.schedule(plan, t, pricing);
      const char* const network = rng.below(2) ? "ideal" : "fair";
      const double end = simulate(schedule, t, testing::network_named(network), compute, Precision::bf16).end.seconds();
      ASSERT_GE(end, bounds->layer_s.value) << network << ": " << bounds->layer_s.because;
      if (end > 0) closest[bounds->layer_s.because] = std::max(closest[bounds->layer_s.because], bounds->layer_s.value / end);
      if (slots > 4)
        for (std::size_t i = of_slot.size(); i-- > 1;) std::swap(of_slot[i], of_slot[rng.below(i + 1)]);
    } while (--left > 0 && (slots > 4 || std::ranges::next_permutation(of_slot).found));
  }
  for (const char* because : {"company", "calls and waits", "crossing in turn", "configurations"}) EXPECT_GT(bound_by[because], 0) << because << " never bound anything";
  EXPECT_GT(closest["company"], 0.9);
}

}  // namespace
}  // namespace epsim
