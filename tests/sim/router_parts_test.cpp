// Every router and every capacity in a simulated experiment: the plan's counts agree, and what cannot be is refused.
#include <gmock/gmock.h>

#include <numeric>

#include "sim/run.h"
#include "tests/support/part_from_yaml.h"

namespace epsim {
namespace {

using ::testing::HasSubstr;

Experiment experiment(const std::string& more) {
  const std::string yaml =
      "model: mixtral-8x7b\nlayers: 3\ncluster: {single_switch: {ranks: 4, device: h800}}\nsource: {lognormal: {tokens_per_rank: 64, sigma: 1}}\nnetwork: ideal\nexchange: direct\n" + more;
  return read_experiment(std::make_shared<SourceText>(SourceText{"test.yaml", yaml}), {}, builtin_catalogs());
}

LayerRun play(const Experiment& e) {
  LayerRun out;
  run(e, Timeline::Detail::rank, [&](LayerRun& layer) {
    out = std::move(layer);
    return true;
  });
  return out;
}

// I1, I4, I5
TEST(RouterParts, AllRoutersAndCapacitiesWorkInASimulation) {
  const std::vector<std::string> routers = {"topk", "topk: {jitter: 0.1, noise: 0.1}", "grouped_topk: {groups: 4, groups_kept: 2, masked: zero}", "noisy_topk", "gshard: {second: mesh}", "gshard: {second: fastmoe}", "sinkhorn", "hash", "top_p",
                                            "moge: {groups: 2}", "quantile", "phimoe", "mixture_of_depths", "early_exit: {rate: 0.1}", "expert_choice", "zero_experts: {zero: 2, identity: 2}"};
  const std::vector<std::string> capacities = {"dropless", "megatron: {factor: 0.8}", "megatron: {factor: 0.8, overflow: next_best}", "megatron: {factor: 0.8, overflow: other_replica}", "megatron: {factor: 0.8, overflow: other_replica_or_next_best}", "megatron: {factor: 0.8, overflow: pad}",
                                               "megatron: {factor: 0.8, overflow: none}", "deepspeed: {factor: 0.8}", "tutel: {factor: 0.8}", "fastmoe: {factor: 0.8, gate: switch}", "megablocks",
                                               "megablocks: {form: moe, factor: 0.8}", "mesh_tf: {factor: 0.8, group: 32}", "flaxformer: {factor: 0.8, group: 48}", "vmoe: {factor: 0.8, order: priority}", "maxtext: {factor: 0.8}", "nllb"};
  for (std::size_t i = 0; i < routers.size() * capacities.size(); i += 5) {
    const std::string &router = routers[i % routers.size()], &capacity = capacities[(i / routers.size() + i) % capacities.size()];
    if (router.find("fastmoe") != std::string::npos && capacity.find("next_best") != std::string::npos) continue;
    SCOPED_TRACE(router + ", " + capacity);
    const Experiment e = experiment("router: {" + router + "}\ncapacity: {" + capacity + "}\nplacement: {replicate_top_k: {k: 1}}\n");
    const LayerRun one = play(e), again = play(e);
    const Plan& p = one.plan;
    EXPECT_EQ(p.digest(), again.plan.digest());
    const auto sum = [](const auto& v) { return std::accumulate(v.begin(), v.end(), std::int64_t{0}); };
    const std::int64_t choices = sum(p.choices.cells), computed = sum(p.copies_of_rank());
    EXPECT_GT(choices, 0);
    EXPECT_EQ(computed + p.drops.choices, choices);
    EXPECT_EQ(sum(p.copies.cells) - sum(p.dropped_on_arrival.cells), computed);
    EXPECT_EQ(sum(p.rows_of_slot()), computed + sum(p.padding));
    EXPECT_GT(one.timeline.end.ps, 0);
    const bool keeps = capacity.find("next_best") != std::string::npos || capacity.find("none") != std::string::npos || capacity == "megablocks" || capacity == "dropless";
    EXPECT_TRUE(!keeps || p.drops.choices == 0);
    EXPECT_TRUE(router != "mixture_of_depths" || choices <= 4 * 8 * 2);
  }
}

// I11
TEST(RouterParts, WhatCannotBeIsRefusedWithItsReason) {
  const auto refusal = [](const std::string& more) { return testing::input_error([&] { experiment(more); }); };
  EXPECT_THAT(refusal("router: top_p\nplacement: {exflow: {}}\nfit: 0:1\neval: 1:2\n"), HasSubstr("a token may choose fewer experts"));
  EXPECT_THAT(refusal("router: {gshard: {second: fastmoe}}\ncapacity: {megatron: {factor: 1, overflow: next_best}}\n"), HasSubstr("`overflow: next_best` needs a router"));
  EXPECT_THAT(refusal("router: {moge: {groups: 3}}\n"), HasSubstr("3 groups do not divide 8 experts"));
  EXPECT_THAT(refusal("router: base\n"), HasSubstr("this router assigns 1 expert"));
}

}  // namespace
}  // namespace epsim
