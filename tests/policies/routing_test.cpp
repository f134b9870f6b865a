#include "policies/routing.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <numeric>

namespace epsim {
namespace {

using testing::Each;
using testing::ElementsAre;

Source source(const std::string& yaml, int experts, int top_k, int ranks) {
  SourceContext c;
  c.experts = experts, c.top_k = top_k, c.ranks = ranks, c.hidden = 8, c.seed = 1;
  c.layers = c.moe_layers = {0, 1};
  Diagnostics problems;
  Source s = builtin_sources().make(parse_yaml(std::make_shared<SourceText>(SourceText{"exp.yaml", yaml})), problems, &c);
  problems.check();
  return s;
}

Router router(const std::string& yaml, int experts, int top_k) {
  Shape shape;
  shape.experts = experts, shape.top_k = top_k;
  Diagnostics problems;
  Router r = builtin_routers().make(parse_yaml(std::make_shared<SourceText>(SourceText{"exp.yaml", yaml})), problems, &shape);
  problems.check();
  return r;
}

/// Choices 0, 1, .. of a token, turned by its number.
Source ready(std::int64_t tokens, int ranks, int experts, int top_k) {
  Source s;
  s.yields = Source::Yields::choices;
  s.first_token = token_blocks(tokens, ranks);
  s.choices = [experts, top_k](int, std::int64_t first, std::int64_t count, std::span<std::uint16_t> out, std::span<float>) {
    for (std::int64_t t = 0; t < count; ++t)
      for (int j = 0; j < top_k; ++j) out[static_cast<std::size_t>(t * top_k + j)] = static_cast<std::uint16_t>((first + t + j) % experts);
  };
  return s;
}

/// Sets the number of threads for a scope.
class Threads {
 public:
  explicit Threads(const char* n) { setenv("EPSIM_THREADS", n, 1); }
  ~Threads() { unsetenv("EPSIM_THREADS"); }
  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;
};

// I5: the same choices for any number of threads, and for any split of the ranks over calls.
TEST(Routing, DoesNotDependOnThreadsOrCalls) {
  const Source s = source("lognormal: {tokens: 20011}", 64, 6, 7);
  const Router r = router("grouped_topk: {groups: 8, groups_kept: 4}", 64, 6);
  Routing one = make_routing(s, 64, 6), four = one, pieces = one;
  {
    const Threads threads("1");
    route(s, r, 0, 1, 0, 7, one);
  }
  {
    const Threads threads("4");
    route(s, r, 0, 1, 0, 7, four);
    for (int rank = 0; rank < 7; ++rank) route(s, r, 0, 1, rank, rank + 1, pieces);
  }
  EXPECT_EQ(one.expert, four.expert);
  EXPECT_EQ(one.weight, four.weight);
  EXPECT_EQ(one.expert, pieces.expert);
  EXPECT_EQ(one.weight, pieces.weight);
  Routing other = make_routing(s, 64, 6);
  route(s, r, 0, 0, 0, 7, other);
  EXPECT_NE(one.expert, other.expert) << "layers differ";
}

TEST(Routing, RoutesOnlyTheRanksThatWereAskedFor) {
  const Source s = source("uniform: {tokens: 40}", 16, 2, 4);
  Routing all = make_routing(s, 16, 2), some = all;
  some.weight.assign(some.weight.size(), -1.0F);
  const Router r = router("topk", 16, 2);
  route(s, r, 0, 0, 0, 4, all);
  route(s, r, 0, 0, 1, 3, some);
  for (std::size_t i = 0; i < some.weight.size(); ++i) EXPECT_EQ(some.weight[i], i >= 20 && i < 60 ? all.weight[i] : -1.0F) << i;
}

// I1: every token's choices are counted once.
TEST(Routing, CountsByHomeRankAndExpertWithRanksThatHaveNoTokens) {
  const Source s = ready(3, 5, 4, 2);
  Routing routing = make_routing(s, 4, 2);
  route(s, {}, 0, 0, 0, 5, routing);
  EXPECT_THAT(routing.expert, ElementsAre(0, 1, 1, 2, 2, 3));
  EXPECT_THAT(routing.weight, Each(0.5F)) << "1/k where the source has no weights";
  const Matrix<std::int64_t> counts = count_choices(routing);
  EXPECT_EQ(counts.rows, 5);
  EXPECT_THAT(counts.cells, ElementsAre(1, 1, 0, 0, 0, 1, 1, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0));
  const Source many = source("zipf: {tokens_per_rank: 3000}", 32, 4, 6);
  Routing large = make_routing(many, 32, 4);
  route(many, router("topk", 32, 4), 0, 1, 0, 6, large);
  const Matrix<std::int64_t> loads = count_choices(large);
  for (int rank = 0; rank < 6; ++rank) {
    const auto row = loads.row(rank);
    EXPECT_EQ(std::accumulate(row.begin(), row.end(), std::int64_t{0}), 3000 * 4);
  }
}

TEST(Routing, KeepsTheWeightsOfASourceThatHasThem) {
  Source s = ready(4, 2, 4, 2);
  s.has_weights = true;
  s.choices = [inner = s.choices](int layer, std::int64_t first, std::int64_t count, std::span<std::uint16_t> out, std::span<float> weights) {
    inner(layer, first, count, out, weights);
    for (std::size_t i = 0; i < weights.size(); ++i) weights[i] = static_cast<float>(first) + static_cast<float>(i);
  };
  Routing routing = make_routing(s, 4, 2);
  route(s, {}, 0, 0, 0, 2, routing);
  EXPECT_THAT(routing.weight, ElementsAre(0, 1, 2, 3, 4, 5, 6, 7));
}

}  // namespace
}  // namespace epsim
