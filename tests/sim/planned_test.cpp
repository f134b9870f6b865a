// What a planned layer gives, in both passes and with what home ranks add by themselves, is what the layer gives that knows no plan.
#include "sim/moe/planned.h"

#include <gtest/gtest.h>

#include <cmath>

#include <fmt/format.h>

#include "sim/experiment.h"
#include "sim/moe/reference.h"
#include "sim/mpi/gate.h"
#include "sim/mpi/layer_data.h"
#include "sim/run.h"

namespace epsim {
namespace {

void append(ExpertWeights& to, const ExpertWeights& from) {
  to.w1.insert(to.w1.end(), from.w1.begin(), from.w1.end()), to.w3.insert(to.w3.end(), from.w3.begin(), from.w3.end()), to.w2.insert(to.w2.end(), from.w2.begin(), from.w2.end());
}

void add(std::vector<float>& sum, const std::vector<float>& term) {
  sum.resize(term.size());
  for (std::size_t i = 0; i < term.size(); ++i) sum[i] += term[i];
}

void expect_near(const char* what, const std::vector<float>& got, const std::vector<float>& expected) {
  ASSERT_EQ(got.size(), expected.size()) << what;
  float most = 0;
  for (const float v : expected) most = std::max(most, std::abs(v));
  EXPECT_GT(most, 0) << what;
  for (std::size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], expected[i], 2e-5 * most) << what << "[" << i << "]";
}

/// An experiment of 8 experts and a shared one with a real gate, and its layer 0 in both forms.
struct Both {
  Experiment e;
  Plan plan;
  std::vector<float> weights;  // before any drop
  MoeLayer layer;
  LayerWeights of_layer;
  std::vector<float> x, r;

  Both(const std::string& router, const std::string& capacity) {
    const std::string yaml = fmt::format(
        "seed: 3\nmodel: {}/tests/support/models/two-of-eight.json\ncluster: {{two_tier: {{nodes: 2, ranks_per_node: 2, device: cpu}}}}\nsource: {{gate: {{tokens_per_rank: 40, skew: 1}}}}\n"
        "router: {}\ncapacity: {}\nplacement: {{eplb: {{slots: 12}}}}\nexchange: hierarchical\nnetwork: ideal\n",
        EPSIM_SOURCE_DIR, router, capacity);
    e = read_experiment(std::make_shared<SourceText>(SourceText{"both.yaml", yaml}), {}, builtin_catalogs());
    Routing routing = e.routing();
    route_layer(e, 0, 0, 0, e.topology.ranks(), routing);
    weights = routing.weight;
    plan = epsim::Run(e).plan(0, 0, std::move(routing));
    x = token_vectors(e, 0, plan.routing.tokens()), r = gradient_vectors(e, 0, 0, plan.routing.tokens());

    layer.router = e.router, layer.capacity = e.capacity;
    if (layer.capacity.overflow == Capacity::Overflow::next_best) layer.capacity.overflow = Capacity::Overflow::drop;  // the experiment's router has done it
    layer.shape = {e.execute_hidden, e.execute_ffn, e.model.num_experts, execute_pricing(e).shared_ffn};
    layer.shape.idle = e.router.idle;
    of_layer = idle_bank(e, 0).weights;
    of_layer.gate.resize(static_cast<std::size_t>(e.execute_hidden * layer.shape.columns()));
    e.source.gate(0, of_layer.gate);
    for (int expert = 0; expert < e.model.num_experts; ++expert) append(of_layer.experts, make_expert_weights(e.seed, 0, expert, e.execute_hidden, e.execute_ffn));
    of_layer.shared = make_expert_weights(e.seed, 0, kSharedExpert, e.execute_hidden, layer.shape.shared_ffn);
  }

  LayerTokens tokens() const {
    LayerTokens in{x, {}};
    in.batch.first_of_rank = plan.routing.first_token, in.batch.seed = e.seed, in.batch.training = true;
    return in;
  }
};

TEST(PlannedLayer, GivesWhatTheLayerGives) {
  std::int64_t idle = 0, dropped = 0;
  for (const char* router : {"topk", "zero_experts: {zero: 1, identity: 2, constant: 3}", "zero_experts: {zero: 2, identity: 1, constant: 5, renormalise: false, scale: 2}", "zero_experts: {identity: 8, score: sigmoid}",
                             "zero_experts: {constant: 4, score: softmax_after}"})
    for (const char* capacity : {"dropless", "megatron: {factor: 1/2}", "vmoe: {factor: 1/2}", "deepspeed: {factor: 0.5, min_capacity: 1}", "megatron: {factor: 3/4, overflow: next_best}",
                                 "tutel: {factor: 1/2, order: priority}"}) {
      const auto flow = [](std::string part) { return part.find(':') == std::string::npos ? part : "{" + part + "}"; };
      const Both both(flow(router), flow(capacity));
      SCOPED_TRACE(fmt::format("{} and {}", router, capacity));
      const Plan& plan = both.plan;
      const Experiment& e = both.e;
      const LayerForward f = forward(both.layer, both.of_layer, both.tokens());
      const LayerGradients expected = backward(both.layer, both.of_layer, both.tokens(), f, both.r);

      DropCounts drops;
      for (const Rank home : ids<Rank>(plan.ranks())) {
        const Routed of_rank = routed_of(plan, home, both.weights);
        const auto first = static_cast<std::size_t>(plan.routing.first_token[home] * plan.routing.top_k);
        for (std::size_t i = 0; i < of_rank.expert.size(); ++i) {
          ASSERT_EQ(of_rank.expert[i], f.routed.expert[first + i]) << i;
          ASSERT_EQ(of_rank.kept[i], f.routed.kept[first + i]) << i;
          ASSERT_NEAR(of_rank.weight_after[i], f.routed.weight_after[first + i], 1e-5) << i;
          idle += of_rank.expert[i] >= of_rank.experts;
          if (!f.routed.kept[first + i] && f.routed.expert[first + i] >= 0) ++drops.choices, drops.weight += double{f.routed.weight[first + i]};
        }
      }
      EXPECT_EQ(plan.drops.choices, drops.choices);
      EXPECT_NEAR(plan.drops.weight, drops.weight, 1e-3);
      dropped += plan.drops.choices;

      ExpertBank bank(e.execute_hidden);
      const AddingOrder order = adding_order(e.exchange, plan, e.topology);
      const auto load = [&](int expert) { load_expert(e, 0, expert, bank, ExpertBank::Passes::both); };
      const Reference y = reference(plan, order, true, both.x, bank, load, idle_bank(e, 0));
      expect_near("y", y.y, f.y), expect_near("y in plain order", y.y_plain, f.y);
      PlanGradients got = reference_backward(plan, order, true, both.x, both.r, bank, load, idle_bank(e, 0));
      std::vector<float> gate;
      for (const Rank home : ids<Rank>(plan.ranks())) add(gate, gate_backward(e, plan, both.weights, got.d_weight, home, of_home(plan, home, e.execute_hidden, got.x)));
      expect_near("dx", got.x, expected.x), expect_near("dgate", gate, expected.weights.gate);
      if (e.router.idle.constant > 0) expect_near("dconstant", got.constant, expected.weights.constant), expect_near("dconstant_gate", got.constant_gate, expected.weights.constant_gate);
      const FfnShape one = both.layer.shape.expert();
      for (int expert = 0; expert < e.model.num_experts; ++expert) {
        const FfnView view = view_of(expected.weights.experts, one, expert);
        const std::size_t n = got.experts[static_cast<std::size_t>(expert)].size() / 3;
        for (std::size_t i = 0; i < n; ++i) ASSERT_NEAR(got.experts[static_cast<std::size_t>(expert)][i], view.w1[i], 2e-5 * (1 + std::abs(view.w1[i])));
      }
    }
  EXPECT_GT(idle, 2000);
  EXPECT_GT(dropped, 1000);
}

}  // namespace
}  // namespace epsim
