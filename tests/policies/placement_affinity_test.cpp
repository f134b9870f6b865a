// Policies that place by what single tokens chose: exflow, grace, graph_partition.
#include <gmock/gmock.h>

#include <algorithm>
#include <functional>
#include <set>

#include "base/rng.h"
#include "policies/placement/shared/remote_rows.h"
#include "tests/support/placed.h"

namespace epsim {
namespace {

using ::testing::AnyOf;
using ::testing::Each;
using ::testing::ElementsAre;
using testing::experts_of_ranks;
using ::testing::HasSubstr;
using testing::input_error;
using testing::loads_of_ranks;
using testing::placed;
using ::testing::SizeIs;
using ::testing::UnorderedElementsAre;

/// Choices of one token.
using Token = std::vector<int>;

/// A layer's routing: tokens in order, as evenly on ranks as they go.
std::shared_ptr<const Routing> routing_of(const std::vector<Token>& tokens, int experts, int ranks) {
  Routing r;
  r.experts = experts, r.top_k = static_cast<int>(tokens.front().size());
  for (int i = 0; i <= ranks; ++i) r.first_token.push_back(static_cast<std::int64_t>(tokens.size()) * i / ranks);
  for (const Token& t : tokens)
    for (const int e : t) r.expert.push_back(static_cast<std::uint16_t>(e)), r.weight.push_back(1.0F / static_cast<float>(t.size()));
  return std::make_shared<const Routing>(std::move(r));
}

Problem problem_of_tokens(const std::vector<std::vector<Token>>& layers, int experts, int ranks, int nodes = 1) {
  Problem p;
  p.experts = experts, p.ranks = ranks, p.nodes = nodes;
  for (const std::vector<Token>& tokens : layers) {
    p.layers.push_back(static_cast<int>(p.layers.size()));
    p.tokens.push_back({routing_of(tokens, experts, ranks)});
    p.counts.push_back(count_choices(*p.tokens.back().front()));
  }
  return p;
}

/// Moves of tokens between ranks from layer to layer: 1 inside a node of `per_node` ranks, 2 between nodes.
int moves(const std::vector<Placement>& p, const std::vector<std::vector<Token>>& layers, int per_node) {
  int cost = 0;
  for (std::size_t l = 0; l + 1 < layers.size(); ++l)
    for (std::size_t t = 0; t < layers[l].size(); ++t)
      for (const int a : layers[l][t])
        for (const int b : layers[l + 1][t]) {
          const Rank ra = p[l].rank_of(p[l].slots_of_expert[static_cast<std::size_t>(a)][0]),
                     rb = p[l + 1].rank_of(p[l + 1].slots_of_expert[static_cast<std::size_t>(b)][0]);
          cost += ra == rb ? 0 : ra / per_node == rb / per_node ? 1 : 2;
        }
  return cost;
}

TEST(ExFlow, FollowsTokensThroughTheLayers) {
  // Tokens of expert e of a layer go to 5e + 3 mod 12 of the next, so 3 experts a rank can follow each other with no move at all.
  std::vector<std::vector<Token>> layers(5);
  for (int e = 0; e < 12; ++e)
    for (int l = 0, at = e; l < 5; ++l, at = (5 * at + 3) % 12) layers[static_cast<std::size_t>(l)].push_back({at});
  const std::vector<Placement> p = placed("exflow", problem_of_tokens(layers, 12, 4, 2));
  EXPECT_EQ(moves(p, layers, 2), 0);
  for (const Placement& one : p) EXPECT_THAT(one.first_slot, ElementsAre(0, 3, 6, 9, 12));
}

TEST(ExFlow, PrefersRanksOfTheSameNodeWhereRanksAreFull) {
  // All four experts of layer 1 get tokens of 0 and 1, which fill ranks 0 and 1 of node 0 (or node 1): those with most tokens of both belong to their node.
  std::vector<std::vector<Token>> layers(2);
  const auto add = [&](int a, int b, int times) {
    for (int i = 0; i < times; ++i) layers[0].push_back({a}), layers[1].push_back({b});
  };
  add(0, 2, 5), add(0, 3, 4), add(1, 2, 4), add(1, 3, 5), add(2, 0, 3), add(3, 1, 3);
  const std::vector<Placement> p = placed("exflow", problem_of_tokens(layers, 4, 4, 2));
  EXPECT_EQ(moves(p, layers, 2), 8) << "4 and 4 move inside their node";
}

TEST(ExFlow, IsNearTheLeastMovesOfAllPlacements) {
  const std::vector<std::vector<int>> halves = {{0, 0, 1, 1}, {0, 1, 0, 1}, {0, 1, 1, 0}, {1, 0, 0, 1}, {1, 0, 1, 0}, {1, 1, 0, 0}};
  int sum = 0, optimal = 0;
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    Rng rng(seed, Stream::test);
    std::vector<std::vector<Token>> layers(4);
    for (int t = 0; t < 30; ++t)
      for (std::vector<Token>& layer : layers) layer.push_back({static_cast<int>(rng.below(4))});
    int least = 1 << 30;
    for (int i = 0; i < 6 * 6 * 6 * 6; ++i) {
      int cost = 0;
      for (int l = 0, code = i; l < 3; ++l, code /= 6)
        for (std::size_t t = 0; t < 30; ++t) {
          const std::vector<int>&now = halves[static_cast<std::size_t>(code % 6)], &next = halves[static_cast<std::size_t>(code / 6 % 6)];
          cost += now[static_cast<std::size_t>(layers[static_cast<std::size_t>(l)][t][0])] !=
                  next[static_cast<std::size_t>(layers[static_cast<std::size_t>(l) + 1][t][0])];
        }
      least = std::min(least, cost);
    }
    const int ours = moves(placed("exflow", problem_of_tokens(layers, 4, 2)), layers, 2);
    EXPECT_GE(ours, least) << seed;
    sum += ours, optimal += least;
  }
  EXPECT_LE(sum, optimal * 105 / 100);
}

TEST(ExFlow, CountsEveryPairOfChoices) {
  // Both experts of a pair go to both of the next: a pair on each rank, in each layer.
  std::vector<std::vector<Token>> layers(2);
  for (int i = 0; i < 3; ++i) layers[0].push_back({0, 3}), layers[1].push_back({1, 2}), layers[0].push_back({1, 2}), layers[1].push_back({3, 0});
  const std::vector<Placement> p = placed("exflow", problem_of_tokens(layers, 4, 2));
  EXPECT_EQ(moves(p, layers, 2), 0);
}

TEST(ExFlow, HasNothingToGainFromOneLayer) {
  EXPECT_EQ(placed("exflow", problem_of_tokens({{{3}, {2}}}, 4, 2))[0].expert_of_slot, (std::vector<std::uint16_t>{0, 1, 2, 3}));
}

/// Tokens of `cliques` sets of experts: expert e is in set e mod `cliques`, and every token chooses two of a set. Tokens of set c live in the c-th block.
std::vector<Token> clique_tokens(int cliques, int size) {
  std::vector<Token> tokens;
  for (int c = 0; c < cliques; ++c)
    for (int a = 0; a < size; ++a)
      for (int b = 0; b < a; ++b) tokens.push_back({a * cliques + c, b * cliques + c});
  return tokens;
}

TEST(Grace, GroupsExpertsThatAreChosenTogether) {
  const Placement p = placed("grace: {assign: none}", problem_of_tokens({clique_tokens(4, 5)}, 20, 4))[0];
  std::set<std::vector<int>> groups;
  for (std::vector<int> g : experts_of_ranks(p)) groups.insert(g);
  EXPECT_THAT(groups,
              UnorderedElementsAre(ElementsAre(0, 4, 8, 12, 16), ElementsAre(1, 5, 9, 13, 17), ElementsAre(2, 6, 10, 14, 18), ElementsAre(3, 7, 11, 15, 19)));
}

TEST(Grace, BringsGroupsToTheirTokens) {
  for (const std::string assign : {"total", "bottleneck"}) {
    const Placement p = placed("grace: {assign: " + assign + "}", problem_of_tokens({clique_tokens(4, 5)}, 20, 4))[0];
    for (int r = 0; r < 4; ++r) EXPECT_THAT(experts_of_ranks(p)[static_cast<std::size_t>(r)], ElementsAre(r, r + 4, r + 8, r + 12, r + 16)) << assign;
  }
}

TEST(Grace, KeepsMostTokensOnTheirRank) {
  // Three ranks of 12 tokens and three experts, each a group of its own.
  std::vector<Token> tokens;
  const auto add = [&](int e, int times) {
    for (int i = 0; i < times; ++i) tokens.push_back({e});
  };
  add(0, 6), add(1, 6), add(1, 5), add(2, 7), add(0, 8), add(2, 4);
  const Problem problem = problem_of_tokens({tokens}, 3, 3);
  ASSERT_EQ(problem.counts[0].cells, (std::vector<std::int64_t>{6, 6, 0, 0, 5, 7, 8, 0, 4}));
  EXPECT_EQ(experts_of_ranks(placed("grace", problem)[0]), (std::vector<std::vector<int>>{{1}, {2}, {0}})) << "6 + 7 + 8 tokens stay";
  EXPECT_EQ(experts_of_ranks(placed("grace: {assign: none}", problem)[0]), (std::vector<std::vector<int>>{{0}, {1}, {2}}));
}

TEST(Grace, TakesTheLeastBottleneckBeforeTheTotal) {
  // Rank 0 has 10 tokens for expert 0 and 9 for 1; rank 1 has 9 for 0 and 1 for 1. At home: 0 and 1 leave 9 + 9, at most max(9, 9) at a rank; the other way 10
  // + 1 leave, but 10 enter and leave one rank.
  std::vector<Token> tokens;
  for (int i = 0; i < 10; ++i) tokens.push_back({0});
  for (int i = 0; i < 9; ++i) tokens.push_back({1});
  for (int i = 0; i < 9; ++i) tokens.push_back({0});
  for (int i = 0; i < 1; ++i) tokens.push_back({1});
  Problem problem = problem_of_tokens({tokens}, 2, 2);
  Routing r = *problem.tokens[0][0];
  r.first_token = {0, 19, 29};
  problem.tokens[0][0] = std::make_shared<const Routing>(r);
  problem.counts[0] = count_choices(r);
  EXPECT_EQ(experts_of_ranks(placed("grace: {assign: total}", problem)[0]), (std::vector<std::vector<int>>{{1}, {0}}));
  EXPECT_EQ(experts_of_ranks(placed("grace: {assign: bottleneck}", problem)[0]), (std::vector<std::vector<int>>{{0}, {1}}));
}

TEST(Grace, LimitsTheSizesOfGroups) {
  // Sets of 6, 2, 2 and 2 experts on 4 ranks.
  std::vector<Token> tokens;
  const auto clique = [&](int first, int size, int times) {
    for (int i = 0; i < times; ++i)
      for (int a = 0; a < size; ++a)
        for (int b = 0; b < a; ++b) tokens.push_back({first + a, first + b});
  };
  clique(0, 6, 2), clique(6, 2, 9), clique(8, 2, 9), clique(10, 2, 9);
  const Problem problem = problem_of_tokens({tokens}, 12, 4);
  const auto sizes = [&](const std::string& settings) {
    std::vector<std::size_t> out;
    for (const std::vector<int>& g : experts_of_ranks(placed("grace: {assign: none" + settings + "}", problem)[0])) out.push_back(g.size());
    std::ranges::sort(out);
    return out;
  };
  EXPECT_THAT(sizes(""), ElementsAre(3, 3, 3, 3));
  EXPECT_THAT(sizes(", equal_experts: false, ratio: 1"), ElementsAre(2, 2, 2, 6));
  EXPECT_THAT(sizes(", equal_experts: false, ratio: 0.5"), ElementsAre(2, 2, 3, 5)) << "3 and 2 more";
  EXPECT_THAT(sizes(", equal_experts: false"), ElementsAre(2, 2, 4, 4)) << "3 and at least 1 more";
}

/// Tokens of two choices, drawn so that experts near each other are chosen together by the homes near them.
Problem drawn_tokens(std::uint64_t seed, int experts, int ranks) {
  Rng rng(seed, Stream::test);
  std::vector<Token> tokens;
  for (int t = 0; t < 40 * ranks; ++t) {
    const int a = rng.below(2) == 0 ? t / 40 * experts / ranks : static_cast<int>(rng.below(static_cast<std::uint32_t>(experts)));
    tokens.push_back({a, (a + 1 + static_cast<int>(rng.below(static_cast<std::uint32_t>(experts - 1) / 2 + 1))) % experts});
  }
  for (Token& t : tokens)
    if (t[0] == t[1]) t[1] = (t[1] + 1) % experts;
  return problem_of_tokens({tokens}, experts, ranks);
}

/// The rows between ranks, token by token: {into the busiest, out of the busiest, of the busiest pair, all}.
std::vector<std::int64_t> rows_counted(const Problem& p, const std::vector<Rank>& rank) {
  const Routing& r = *p.tokens[0][0];
  Matrix<std::int64_t> rows(p.ranks, p.ranks);
  for (const Rank home : ids<Rank>(p.ranks))
    for (std::int64_t t = r.first_token[home]; t < r.first_token[home + 1]; ++t) {
      std::set<std::int32_t> to;
      for (std::int64_t i = t * r.top_k; i < (t + 1) * r.top_k; ++i) to.insert(rank[r.expert[static_cast<std::size_t>(i)]]);
      for (const std::int32_t b : to) rows(home, b) += b != home;
    }
  std::vector<std::int64_t> in(static_cast<std::size_t>(p.ranks)), out(in);
  std::int64_t pair = 0, all = 0;
  for (std::int64_t a = 0; a < p.ranks; ++a)
    for (std::int64_t b = 0; b < p.ranks; ++b) {
      const std::int64_t n = rows(a, b);
      out[static_cast<std::size_t>(a)] += n, in[static_cast<std::size_t>(b)] += n, all += n, pair = std::max(pair, n);
    }
  return {std::ranges::max(in), std::ranges::max(out), pair, all};
}

RemoteRows::Cost cost_counted(const Problem& p, const std::vector<Rank>& rank, RemoteRows::Order order) {
  const std::vector<std::int64_t> n = rows_counted(p, rank);
  return order == RemoteRows::Order::all ? RemoteRows::Cost{n[3], n[0], n[2]} : RemoteRows::Cost{std::max(n[0], n[1]), n[2], n[3]};
}

TEST(RemoteRows, AreKeptUpWhileExpertsMove) {
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    const Problem p = drawn_tokens(seed, 9, 4);
    std::vector<Rank> rank;
    for (int e = 0; e < 9; ++e) rank.push_back(Rank(e % 4));
    RemoteRows rows(p, 0, rank);
    Rng rng(seed, Stream::test, 1);
    for (int i = 0; i < 30; ++i) {
      const auto e = static_cast<std::size_t>(rng.below(9));
      const auto affinity = rows.affinity(static_cast<int>(e));
      const std::int64_t before = rows_counted(p, rank)[3];
      const Rank from = rank[e], to(static_cast<std::int32_t>(rng.below(4)));
      rank[e] = to;
      rows.move(static_cast<int>(e), to);
      for (const RemoteRows::Order order : {RemoteRows::Order::all, RemoteRows::Order::busiest}) EXPECT_EQ(rows.cost(order), cost_counted(p, rank, order));
      EXPECT_EQ(before - rows_counted(p, rank)[3], affinity[static_cast<std::size_t>(to)] - affinity[static_cast<std::size_t>(from)]);
    }
  }
}

TEST(Grace, ChangesUntilNoneMakesItsAimLess) {
  int fewer = 0;
  for (std::uint64_t seed = 0; seed < 30; ++seed)
    for (const RemoteRows::Order order : {RemoteRows::Order::all, RemoteRows::Order::busiest}) {
      const Problem p = drawn_tokens(seed, 8, 4);
      const auto ranks_of = [&](const std::string& more) {
        const Placement placed_by = placed("grace: {assign: " + std::string(order == RemoteRows::Order::all ? "total" : "bottleneck") + more + "}", p)[0];
        std::vector<Rank> rank(8);
        for (const Slot s : ids<Slot>(8)) rank[placed_by.expert_of_slot[s]] = placed_by.rank_of(s);
        return rank;
      };
      const RemoteRows::Cost first = cost_counted(p, ranks_of(""), order), one = cost_counted(p, ranks_of(", changes: 1"), order);
      std::vector<Rank> rank = ranks_of(", changes: 1000");
      const RemoteRows::Cost last = cost_counted(p, rank, order);
      EXPECT_LE(one, first);
      EXPECT_LE(last, one);
      fewer += last < first;
      for (std::size_t a = 0; a < 8; ++a)
        for (std::size_t b = 0; b < a; ++b) {
          std::swap(rank[a], rank[b]);
          const RemoteRows::Cost swapped = cost_counted(p, rank, order);
          EXPECT_TRUE(order == RemoteRows::Order::all ? swapped.first >= last.first : last <= swapped) << seed << ": " << a << " and " << b;
          std::swap(rank[a], rank[b]);
        }
      for (const Rank r : ids<Rank>(4)) EXPECT_EQ(std::ranges::count(rank, r), 2);
    }
  EXPECT_GT(fewer, 30);
}

TEST(Grace, CopiesWhatARanksOwnTokensChooseMost) {
  const Problem p = drawn_tokens(3, 9, 3);
  const Placement without = placed("grace", p)[0], with = placed("grace: {copies: 2}", p)[0];
  for (const Rank r : ids<Rank>(3)) {
    std::vector<int> own(without.expert_of_slot.begin() + without.first_slot[r], without.expert_of_slot.begin() + without.first_slot[r + 1]);
    std::vector<int> all(with.expert_of_slot.begin() + with.first_slot[r], with.expert_of_slot.begin() + with.first_slot[r + 1]);
    ASSERT_THAT(all, SizeIs(5));
    EXPECT_TRUE(std::ranges::equal(own, std::span(all).first(3)));
    std::int64_t least = std::min(p.counts[0](r, all[3]), p.counts[0](r, all[4]));
    for (int e = 0; e < 9; ++e)
      EXPECT_TRUE(std::ranges::find(all, e) != all.end() || least >= p.counts[0](r, e));
  }
  EXPECT_THAT(placed("grace: {copies: 8}", p)[0].expert_of_slot, SizeIs(27)) << "all experts everywhere, and none twice on a rank";
}

TEST(GraphPartition, KeepsCliquesTogetherAndOnTheirNodes) {
  // Four sets of 5, of which 0 and 1, and 2 and 3, have a weak bond.
  const std::vector<Token> once = clique_tokens(4, 5);
  std::vector<Token> tokens;
  for (int i = 0; i < 4; ++i) tokens.insert(tokens.end(), once.begin(), once.end());
  for (const int a : {0, 4, 8}) tokens.push_back({a, a + 2}), tokens.push_back({a + 1, a + 3});
  const Placement p = placed("graph_partition", problem_of_tokens({tokens}, 20, 4, 2))[0];
  std::vector<std::set<int>> sets;
  for (const std::vector<int>& experts : experts_of_ranks(p)) {
    std::set<int> of;
    for (const int e : experts) of.insert(e % 4);
    ASSERT_EQ(of.size(), 1U);
    sets.push_back(of);
  }
  EXPECT_THAT((std::set<int>{*sets[0].begin(), *sets[1].begin()}), AnyOf(ElementsAre(0, 2), ElementsAre(1, 3))) << "bound sets share a node";
}

TEST(GraphPartition, BalancesLoadsOrExpertsToo) {
  // Expert 0 is in every token, so it is half of the load.
  std::vector<Token> tokens;
  for (int i = 0; i < 70; ++i) tokens.push_back({0, 1 + i % 7});
  const Problem problem = problem_of_tokens({tokens}, 8, 2);
  const Placement by_load = placed("graph_partition", problem)[0];
  EXPECT_THAT(loads_of_ranks(by_load, problem.loads(0)), UnorderedElementsAre(70, 70));
  EXPECT_THAT(experts_of_ranks(by_load), ::testing::Contains(ElementsAre(0))) << "and alone on its rank";
  const Placement both = placed("graph_partition: {balance: both, imbalance: 1.6}", problem)[0];
  EXPECT_THAT(experts_of_ranks(both), Each(SizeIs(::testing::Ge(2U))));
}

// I11
TEST(AffinityPlacements, RefuseBadSettings) {
  const Problem problem = problem_of_tokens({{{0, 1}}}, 4, 2);
  EXPECT_THAT(input_error([&] { placed("exflow: {node_cost: 0.5}", problem); }), HasSubstr("test.yaml:1:21: error: `node_cost` must be from 1"));
  EXPECT_THAT(input_error([&] { placed("grace: {ratio: 0.2}", problem); }), HasSubstr("`ratio` has no use where `equal_experts` is true"));
  EXPECT_THAT(input_error([&] { placed("grace: {assign: least}", problem); }), HasSubstr("`assign` has no value `least`; known: total, bottleneck, none"));
  EXPECT_THAT(input_error([&] { placed("graph_partition: {imbalance: 1}", problem); }), HasSubstr("`imbalance` must be"));
}

TEST(AffinityPlacements, AskForTokens) {
  for (const char* name : {"exflow", "grace", "graph_partition"})
    EXPECT_EQ(testing::part_from_yaml(builtin_placements(), name, static_cast<const Shape*>(nullptr)).sees, PlacementPolicy::Sees::tokens) << name;
}

}  // namespace
}  // namespace epsim
