// The capacities of the frameworks, by the numbers that their own arithmetic gives.
#include <gmock/gmock.h>

#include <cmath>
#include <map>
#include <set>
#include <tuple>

#include "base/rng.h"
#include "policies/routed.h"
#include "tests/support/part_from_yaml.h"

namespace epsim {
namespace {

using ::testing::HasSubstr;
using testing::input_error;
using testing::part_from_yaml;

Shape shape_of(int experts, int top_k) {
  Shape s;
  s.experts = experts, s.top_k = top_k, s.ranks = s.nodes = 1;
  return s;
}

std::int64_t size(const std::string& yaml, std::int64_t tokens, int experts, int top_k, std::int64_t most = 0) {
  const Shape shape = shape_of(experts, top_k);
  return part_from_yaml(builtin_capacities(), yaml, &shape).size({tokens, top_k, experts, most});
}

// What each framework's own formula gives for tokens, experts, k and factor. 750 x 1.1 is above 825 in double precision, and 825 in single.
TEST(CapacityRules, RoundAsTheFrameworks) {
  struct Row {
    std::int64_t tokens;
    int experts, top_k;
    std::string factor;
    std::int64_t megatron, deepspeed, tutel, megablocks, megablocks_ep, mesh, flax, vmoe, maxtext, fastmoe;
  };
  for (const Row& r : {Row{1000, 64, 2, "1.25", 40, 40, 40, 39, 78, 19, 20, 40, 40, 39}, Row{100, 64, 2, "1.0", 4, 4, 4, 3, 6, 4, 4, 4, 4, 3}, Row{4096, 256, 8, "1.25", 160, 160, 160, 160, 1280, 20, 20, 160, 160, 160},
                       Row{30, 64, 2, "1.0", 1, 4, 2, 17, 1, 4, 4, 4, 1, 0}, Row{1000, 8, 6, "1.1", 826, 825, 822, 825, 4950, 137, 138, 828, 825, 825}}) {
    SCOPED_TRACE(r.tokens);
    const auto of = [&](const std::string& name, const std::string& more = "") { return size(name + ": {factor: " + r.factor + more + "}", r.tokens, r.experts, r.top_k, 17); };
    EXPECT_EQ(of("megatron"), r.megatron);
    EXPECT_EQ(of("deepspeed"), r.deepspeed);
    EXPECT_EQ(of("tutel"), r.tutel);
    EXPECT_EQ(of("megablocks", ", form: moe"), r.megablocks) << "0 means that nothing is dropped: the largest count, here 17";
    EXPECT_EQ(of("megablocks", ", form: moe_ep"), r.megablocks_ep);
    EXPECT_EQ(of("mesh_tf"), r.mesh);
    EXPECT_EQ(of("flaxformer"), r.flax);
    EXPECT_EQ(of("vmoe"), r.vmoe);
    EXPECT_EQ(of("maxtext"), r.maxtext);
    EXPECT_EQ(of("fastmoe"), r.fastmoe);
  }
}

TEST(CapacityRules, ArithmeticIsAChoice) {
  EXPECT_EQ(size("megatron: {factor: 1.1, arithmetic: float32}", 1000, 8, 6), 825);
  EXPECT_EQ(size("megatron: {factor: 1.1, arithmetic: exact}", 1000, 8, 6), 825);
  EXPECT_EQ(size("deepspeed: {factor: 1.2}", 100, 8, 1), 16) << "12.5 x 1.2 is above 15 in single precision";
  EXPECT_EQ(size("deepspeed: {factor: 1.2, arithmetic: exact}", 100, 8, 1), 15);
  EXPECT_EQ(size("flaxformer: {factor: 1, min_capacity: 0}", 20, 8, 1), 2) << "2.5 goes to the even neighbour";
  EXPECT_EQ(size("flaxformer: {factor: 1, min_capacity: 0, arithmetic: exact}", 28, 8, 1), 4) << "3.5 goes to the even neighbour";
  EXPECT_EQ(size("vmoe: {factor: 0.5, rounding: round, multiple: 1}", 20, 4, 1), 2) << "2.5 goes to the even neighbour";
  EXPECT_EQ(size("tutel: {limit: needed, alignment: 8}", 100, 8, 2, 33), 40);
  EXPECT_EQ(size("deepspeed: {drop_tokens: false}", 100, 8, 2, 33), 33);
  EXPECT_EQ(size("fastmoe: {gate: switch, factor: 1.2}", 100, 8, 1), 15);
  EXPECT_EQ(size("fastmoe: {gate: dc, factor: 1.2}", 100, 8, 1), 120);
  EXPECT_EQ(size("maxtext: {factor: 1.1, form: older}", 1000, 64, 2), 34);
  EXPECT_EQ(size("nllb", 100, 16, 2), 14);
}

TEST(CapacityRules, RefuseWhatTheyCannotDo) {
  const Shape shape = shape_of(8, 2);
  const auto error = [&](const std::string& yaml) { return input_error([&] { part_from_yaml(builtin_capacities(), yaml, &shape); }); };
  EXPECT_THAT(error("megablocks: {factor: 1}"), HasSubstr("`dmoe` drops nothing"));
  EXPECT_THAT(error("megablocks: {form: moe}"), HasSubstr("a capacity needs `factor`"));
  EXPECT_THAT(error("tutel: {limit: needed, factor: 1}"), HasSubstr("there is no factor"));
  EXPECT_THAT(error("mesh_tf: {factor: 1, overflow: other_replica}"), HasSubstr("take `group: 0`"));
  EXPECT_THAT(error("fastmoe: {gate: switch, factor: 1, overflow: other_replica}"), HasSubstr("says nothing about replicas"));
  EXPECT_THAT(error("vmoe: {factor: 1, order: probability}"), HasSubstr("`order` has no value `probability`"));
}

std::vector<float> random_logits(std::int64_t tokens, int experts, std::uint64_t seed) {
  std::vector<float> logits;
  Rng rng(seed, Stream::test);
  for (std::int64_t i = 0; i < tokens * experts; ++i) logits.push_back(static_cast<float>(rng.normal() + (i % experts < 3 ? 1 : 0)));
  return logits;
}

// I1, I4: over the whole catalogue, with two ranks of unequal size.
TEST(CapacityRules, NoExpertIsOverCapacityAndChoicesAreKeptOrDropped) {
  const Shape shape = shape_of(12, 2);
  for (const std::string router_yaml : {"topk", "grouped_topk: {groups: 4, groups_kept: 2}", "noisy_topk", "gshard: {second: mesh}", "gshard: {second: fastmoe}", "gshard: {second: gumbel}", "sinkhorn", "hash",
                                        "top_p", "moge: {groups: 2}", "quantile", "phimoe", "mixture_of_depths: {fraction: 0.5}", "early_exit: {rate: 0.5}", "expert_choice", "zero_experts: {zero: 2, identity: 2}"})
    for (const std::string capacity_yaml :
         {"dropless", "megatron: {factor: 0.5}", "megatron: {factor: 0.5, overflow: next_best}", "megatron: {factor: 0.5, overflow: none}", "deepspeed: {factor: 0.5}", "deepspeed: {factor: 0.5, order: random}",
          "tutel: {factor: 0.5}", "tutel: {factor: 0.5, order: priority}", "fastmoe: {factor: 0.5}", "fastmoe: {factor: 0.5, gate: switch}", "megablocks", "megablocks: {form: moe, factor: 0.5}",
          "mesh_tf: {factor: 0.5, group: 16}", "flaxformer: {factor: 0.5, group: 16}", "vmoe: {factor: 0.5}", "maxtext: {factor: 0.5}", "nllb"}) {
      if (router_yaml == "gshard: {second: fastmoe}" && capacity_yaml.find("next_best") != std::string::npos) continue;
      SCOPED_TRACE(router_yaml + ", " + capacity_yaml);
      const Router router = part_from_yaml(builtin_routers(), router_yaml, &shape);
      const Capacity capacity = part_from_yaml(builtin_capacities(), capacity_yaml, &shape);
      GateBatch batch;
      batch.experts = 12 + router.idle.count(), batch.tokens = 80, batch.training = true;
      const std::vector<float> logits = random_logits(80, batch.experts, 3);
      const std::vector<std::int64_t> ranks = {0, 48, 80};
      batch.logits = logits, batch.first_of_rank = ranks;
      const Routed r = route_batch(router, capacity, batch);
      const std::int64_t step = capacity.scope == Capacity::Scope::group ? capacity.group : 1000;
      std::map<std::tuple<std::int64_t, std::int64_t, int>, std::int64_t> kept;
      std::int64_t sum = 0;
      for (std::int64_t t = 0; t < 80; ++t) {
        std::set<int> mine;
        for (int i = 0; i < r.top_k; ++i) {
          const auto at = static_cast<std::size_t>(t * r.top_k + i);
          if (r.expert[at] < 0) {
            EXPECT_EQ(r.weight[at], 0);
            EXPECT_EQ(r.kept[at], 0);
            continue;
          }
          EXPECT_TRUE(mine.insert(r.expert[at]).second) << "no expert twice";
          EXPECT_TRUE(r.kept[at] || r.weight_after[at] == 0);
          sum += r.expert[at] < r.experts;
          const std::int64_t rank = t >= 48, inside = t - (rank ? 48 : 0);
          if (r.kept[at] && r.expert[at] < r.experts) ++kept[{capacity.scope == Capacity::Scope::batch ? 0 : rank, inside / step, r.expert[at]}];
        }
      }
      std::int64_t counted = 0;
      for (const std::int64_t n : r.choices) counted += n;
      EXPECT_EQ(counted, sum);
      if (!capacity.limits || capacity.overflow == Capacity::Overflow::none) continue;
      for (const auto& [key, n] : kept) {
        const std::int64_t block = capacity.scope == Capacity::Scope::batch ? 0 : std::get<0>(key) * (step < 1000 ? 3 : 1) + std::get<1>(key);
        EXPECT_LE(n, r.capacity[static_cast<std::size_t>(block)]);
      }
    }
}

TEST(Routers, ChooseAsTheirPapersSay) {
  Shape shape = shape_of(4, 1);
  GateBatch batch;
  const auto route = [&](const std::string& yaml, const std::vector<float>& logits) {
    const Router router = part_from_yaml(builtin_routers(), yaml, &shape);
    batch.experts = shape.experts + router.idle.count(), batch.tokens = static_cast<std::int64_t>(logits.size()) / batch.experts, batch.logits = logits;
    return route_batch(router, {}, batch);
  };
  batch.training = true;
  // BASE: every token likes expert 0 best; two tokens each, and the sum of scores is largest when tokens 0 and 1 have it.
  shape.experts = 2;
  EXPECT_THAT(route("base", {9, 0, 8, 0, 2, 1, 2, 1.5F}).expert, ::testing::ElementsAre(0, 0, 1, 1));
  // Top-p: probabilities 0.5, 0.3, 0.2 with p = 0.6: two experts; the one that passes p is taken.
  shape.experts = 3;
  EXPECT_THAT(route("top_p: {p: 0.6}", {std::log(0.5F), std::log(0.3F), std::log(0.2F)}).expert, ::testing::ElementsAre(0, 1, -1));
  // MoE++: a zero expert's weight is 0 and the other's 1.
  shape.experts = 2, shape.top_k = 2;
  const Routed zero = route("zero_experts: {zero: 1}", {1, 0, 2});
  EXPECT_THAT(zero.expert, ::testing::ElementsAre(2, 0));
  EXPECT_THAT(zero.weight, ::testing::ElementsAre(0, 1));
  // MoGE: one of each half.
  shape.experts = 4;
  EXPECT_THAT(route("moge: {groups: 2}", {3, 2, 0, 1}).expert, ::testing::ElementsAre(0, 3));
  // Mixture of depths: a quarter of four tokens enters.
  shape.experts = 2, shape.top_k = 1;
  EXPECT_THAT(route("mixture_of_depths: {fraction: 0.25}", {1, 0, 0, 5, 2, 0, 0, 0}).expert, ::testing::ElementsAre(-1, 1, -1, -1));
  // Hash: equal ids go to equal experts.
  const std::vector<std::int64_t> ids = {7, 7, 7, 7};
  batch.token_ids = ids;
  shape.experts = 4, shape.top_k = 2;
  const Routed hashed = route("hash", std::vector<float>(16, 0.0F));
  for (std::size_t i = 2; i < 8; ++i) EXPECT_EQ(hashed.expert[i], hashed.expert[i - 2]);
  EXPECT_NE(hashed.expert[0], hashed.expert[1]);
}

// transformers' own masking: with scores below 0 the experts of masked groups, at 0, come first.
TEST(Routers, MaskedGroupsAtZeroBeatNegativeScores) {
  const Shape shape = shape_of(4, 1);
  const std::vector<float> logits = {1, 0, 0, 0}, bias = {-5, -5, -9, -9};
  GateBatch batch;
  batch.experts = 4, batch.tokens = 1, batch.logits = logits, batch.bias = bias;
  EXPECT_EQ(route_batch(part_from_yaml(builtin_routers(), "grouped_topk: {groups: 2, groups_kept: 1, masked: zero}", &shape), {}, batch).expert[0], 2);
  EXPECT_EQ(route_batch(part_from_yaml(builtin_routers(), "grouped_topk: {groups: 2, groups_kept: 1}", &shape), {}, batch).expert[0], 0);
}

}  // namespace
}  // namespace epsim
