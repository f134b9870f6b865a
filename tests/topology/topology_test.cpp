#include "topology/topology.h"

#include <fmt/format.h>
#include <gmock/gmock.h>

#include <cstdlib>
#include <deque>

#include "base/rng.h"
#include "tests/topology/make.h"

namespace epsim {
namespace {

using testing::HasSubstr;

Vertex rank_vertex(int r, int node) { return {fmt::format("r{}", r), Rank(r), Node(node)}; }
Vertex switch_vertex(int s) { return {fmt::format("s{}", s), {}, {}}; }
Link link(int from, int to, Bandwidth rate = 1e9) { return {fmt::format("{}-{}", from, to), "t", from, to, rate, Time{1000}}; }

std::string complaint(std::vector<Vertex> vertices, std::vector<Link> links) {
  try {
    Topology(std::move(vertices), std::move(links), *find_device("cpu"), {text("", "cluster.xml"), 0, 0});
  } catch (const InputError& e) {
    return e.what();
  }
  return {};
}

/// Fewest links from s to d through switches only, found by hand.
int hops_by_hand(const Topology& t, std::int32_t s, std::int32_t d) {
  std::vector<int> hops(t.vertices().size(), -1);
  std::deque<std::int32_t> queue = {s};
  hops[static_cast<std::size_t>(s)] = 0;
  while (!queue.empty()) {
    const std::int32_t v = queue.front();
    queue.pop_front();
    if (v != s && t.vertices()[static_cast<std::size_t>(v)].rank.valid()) continue;
    for (const Link& l : t.links())
      if (l.from == v && hops[static_cast<std::size_t>(l.to)] < 0)
        hops[static_cast<std::size_t>(l.to)] = hops[static_cast<std::size_t>(v)] + 1, queue.push_back(l.to);
  }
  return hops[static_cast<std::size_t>(d)];
}

TEST(Topology, PathsAreShortestOnRandomGraphs) {
  for (std::uint64_t run = 0; run < 50; ++run) {
    Rng rng(run, Stream::test);
    const int ranks = 2 + static_cast<int>(rng.below(10)), switches = 1 + static_cast<int>(rng.below(8));
    std::vector<Vertex> vertices;
    for (int r = 0; r < ranks; ++r) vertices.push_back(rank_vertex(r, r / 2));
    for (int s = 0; s < switches; ++s) vertices.push_back(switch_vertex(s));
    std::vector<Link> links;
    const auto join = [&](std::uint64_t a, std::uint64_t b) {
      for (const auto& [from, to] : {std::pair{a, b}, std::pair{b, a}}) {
        links.push_back(link(static_cast<int>(from), static_cast<int>(to)));
        links.back().name += fmt::format(" {}", links.size());
      }
    };
    for (int v = 0; v < ranks + switches; ++v)  // every vertex to a switch before it, or to the first
      if (v != ranks)
        join(static_cast<std::uint64_t>(v), static_cast<std::uint64_t>(ranks) + (v < ranks ? rng.below(static_cast<std::uint64_t>(switches))
                                                                                           : rng.below(static_cast<std::uint64_t>(v - ranks))));
    for (int i = 0; i < 12; ++i)
      if (const auto a = rng.below(vertices.size()), b = rng.below(vertices.size()); a != b) join(a, b);
    const Topology t(vertices, links, *find_device("cpu"), {});
    for (int s = 0; s < ranks; ++s)
      for (int d = 0; d < ranks; ++d) {
        int hops = 0;
        std::int32_t at = s;
        t.for_each_link(Rank(s), Rank(d), [&](std::int32_t i) {
          const Link& l = t.links()[static_cast<std::size_t>(i)];
          EXPECT_EQ(l.from, at);
          at = l.to, ++hops;
          EXPECT_TRUE(at == d || !t.vertices()[static_cast<std::size_t>(at)].rank.valid()) << "a path passes through a rank";
        });
        EXPECT_EQ(at, d);
        EXPECT_EQ(hops, hops_by_hand(t, s, d));
        EXPECT_EQ(t.latency(Rank(s), Rank(d)).ps, 1000 * hops);
      }
  }
}

TEST(Topology, PathsNeverPassThroughARank) {
  // 0 - 1 - 2 in a row would be shortest, but a rank does not forward.
  std::vector<Link> links;
  for (const auto& [a, b] : {std::pair{0, 1}, {1, 2}, {0, 3}, {3, 4}, {4, 2}}) links.push_back(link(a, b)), links.push_back(link(b, a));
  const Topology t({rank_vertex(0, 0), rank_vertex(1, 0), rank_vertex(2, 0), switch_vertex(0), switch_vertex(1)}, links, *find_device("cpu"), {});
  EXPECT_EQ(path(t, 0, 1), std::vector<std::string>{"0-1"});
  EXPECT_EQ(path(t, 0, 2), (std::vector<std::string>{"0-3", "3-4", "4-2"}));
}

TEST(Topology, DestinationsTakeTurnsAmongEqualNextHops) {
  // Two switches joined by three links: destination (node + place in its node) mod 3.
  std::vector<Vertex> vertices;
  std::vector<Link> links;
  for (int r = 0; r < 8; ++r) vertices.push_back(rank_vertex(r, r / 4));
  vertices.push_back(switch_vertex(0)), vertices.push_back(switch_vertex(1));
  for (int r = 0; r < 8; ++r) links.push_back(link(r, 8 + r / 4)), links.push_back(link(8 + r / 4, r));
  for (int i = 0; i < 3; ++i)
    for (const auto& [a, b] : {std::pair{8, 9}, {9, 8}}) links.push_back(link(a, b)), links.back().name += fmt::format(" #{}", i);
  const Topology t(vertices, links, *find_device("cpu"), {});
  for (int s = 0; s < 4; ++s)
    for (int d = 4; d < 8; ++d) EXPECT_EQ(path(t, s, d)[1], fmt::format("8-9 #{}", (1 + d - 4) % 3));
}

TEST(Topology, IsTheSameForAnyNumberOfThreads) {  // I5
  const std::string spec = "{rail_fat_tree: {nodes: 6, ranks_per_node: 4, device: h800, nodes_per_leaf: 2}}";
  const auto all_paths = [&](const char* threads) {
    setenv("EPSIM_THREADS", threads, 1);
    const Topology t = make(spec);
    unsetenv("EPSIM_THREADS");
    std::vector<std::vector<std::string>> paths;
    for (int s = 0; s < t.ranks(); ++s)
      for (int d = 0; d < t.ranks(); ++d) paths.push_back(path(t, s, d));
    return paths;
  };
  EXPECT_EQ(all_paths("1"), all_paths("7"));
}

TEST(Topology, KnowsNodesAndPlaces) {
  // Ranks of a node need not be neighbours.
  std::vector<Link> links;
  for (int r = 0; r < 4; ++r) links.push_back(link(r, 4)), links.push_back(link(4, r));
  const Topology t({rank_vertex(2, 1), rank_vertex(0, 0), rank_vertex(3, 0), rank_vertex(1, 1), switch_vertex(0)}, links, *find_device("cpu"), {});
  EXPECT_EQ(t.nodes(), 2);
  EXPECT_THAT(t.ranks_of(Node(0)), testing::ElementsAre(Rank(0), Rank(3)));
  EXPECT_THAT(t.ranks_of(Node(1)), testing::ElementsAre(Rank(1), Rank(2)));
  EXPECT_EQ(t.local_index(Rank(3)), 1);
  EXPECT_EQ(t.node_of(Rank(2)), 1);
  EXPECT_EQ(path(t, 2, 0), (std::vector<std::string>{"0-4", "4-1"}));
}

TEST(Topology, RefusesWhatIsNoCluster) {
  const std::vector<Vertex> pair = {rank_vertex(0, 0), rank_vertex(1, 0)};
  EXPECT_EQ(complaint(pair, {link(0, 1), link(1, 0)}), "");
  EXPECT_THAT(complaint({}, {}), HasSubstr("cluster.xml: error: the cluster has no ranks"));
  EXPECT_THAT(complaint(pair, {link(0, 1)}), HasSubstr("there is no path from rank 1 to rank 0"));
  EXPECT_THAT(complaint({rank_vertex(0, 0), rank_vertex(2, 0)}, {}), HasSubstr("rank 2 is not within 0 to 1"));
  EXPECT_THAT(complaint({rank_vertex(0, 0), rank_vertex(0, 0)}, {}), HasSubstr("there are two ranks 0"));
  EXPECT_THAT(complaint({rank_vertex(0, 1), rank_vertex(1, 1)}, {link(0, 1), link(1, 0)}), HasSubstr("node 0 has no ranks"));
  EXPECT_THAT(complaint({rank_vertex(0, 0), rank_vertex(1, 7)}, {}), HasSubstr("node 7 is not within 0 to 1"));
  EXPECT_THAT(complaint({rank_vertex(0, -1)}, {}), HasSubstr("rank 0 has no node"));
  EXPECT_THAT(complaint(pair, {link(0, 1, 0), link(1, 0, -1)}), testing::AllOf(HasSubstr("`0-1` must be above 0"), HasSubstr("`1-0` must be above 0")));
  EXPECT_THAT(complaint(pair, {link(0, 2)}), HasSubstr("does not join two vertices"));
  EXPECT_THAT(complaint(pair, {link(0, 0)}), HasSubstr("does not join two vertices"));
  EXPECT_THAT(complaint(pair, {link(0, 1), link(0, 1), link(1, 0)}), HasSubstr("two links are named `0-1`"));
}

TEST(Topology, ARankAloneIsACluster) {
  const Topology t({rank_vertex(0, 0)}, {}, *find_device("cpu"), {});
  EXPECT_EQ(t.ranks(), 1);
  EXPECT_EQ(t.latency(Rank(0), Rank(0)).ps, 0);
  EXPECT_EQ(t.bandwidth(Rank(0), Rank(0)), std::numeric_limits<double>::infinity());
}

}  // namespace
}  // namespace epsim
