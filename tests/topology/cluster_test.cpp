// The paths that each shape's definition gives equal the shortest paths of its graph, for all pairs of ranks.
#include <fmt/format.h>
#include <gmock/gmock.h>

#include <limits>

#include "tests/topology/make.h"

namespace epsim {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using Names = std::vector<std::string>;

std::string to(const std::string& a, const std::string& b) { return a + " -> " + b; }
std::string rank(int r) { return fmt::format("rank {}", r); }

TEST(SingleSwitch, EveryPathHasTwoLinks) {
  for (const int ranks : {1, 2, 5, 64}) {
    const Topology t = make(fmt::format("{{single_switch: {{ranks: {}, device: h100}}}}", ranks));
    ASSERT_EQ(t.ranks(), ranks);
    EXPECT_EQ(t.nodes(), 1);
    EXPECT_EQ(t.links().size(), 2u * ranks);
    for (int s = 0; s < ranks; ++s)
      for (int d = 0; d < ranks; ++d) {
        EXPECT_EQ(path(t, s, d), s == d ? Names{} : (Names{to(rank(s), "switch"), to("switch", rank(d))}));
        EXPECT_EQ(t.latency(Rank(s), Rank(d)).ps, s == d ? 0 : 600'000);
        EXPECT_EQ(t.bandwidth(Rank(s), Rank(d)), s == d ? std::numeric_limits<double>::infinity() : find_device("h100")->scale_up_bandwidth.value);
      }
  }
}

TEST(SingleSwitch, RatesAndNodesAreSettings) {
  const Topology t = make("{single_switch: {ranks: 6, ranks_per_node: 2, device: cpu, bandwidth: 400Gbps, latency: 2us}}");
  EXPECT_EQ(t.nodes(), 3);
  EXPECT_EQ(t.node_of(Rank(5)), 2);
  EXPECT_EQ(t.local_index(Rank(5)), 1);
  EXPECT_EQ(t.bandwidth(Rank(0), Rank(5)), 50e9);
  EXPECT_EQ(t.latency(Rank(0), Rank(5)), *parse_time("4us"));
  EXPECT_EQ(t.device().name, "cpu");
}

TEST(TwoTier, PathsCrossTheOneUplinkOfANode) {
  for (const auto& [nodes, per_node] : {std::pair{1, 1}, {1, 4}, {3, 1}, {2, 2}, {5, 8}}) {
    const Topology t = make(fmt::format("{{two_tier: {{nodes: {}, ranks_per_node: {}, device: h800}}}}", nodes, per_node));
    ASSERT_EQ(t.ranks(), nodes * per_node);
    ASSERT_EQ(t.nodes(), nodes);
    for (int s = 0; s < t.ranks(); ++s)
      for (int d = 0; d < t.ranks(); ++d) {
        const int a = s / per_node, b = d / per_node;
        const std::string up = to(rank(s), fmt::format("nvswitch {}", a)), down = to(fmt::format("nvswitch {}", b), rank(d));
        const Names expected = s == d   ? Names{}
                               : a == b ? Names{up, down}
                                        : Names{up, fmt::format("uplink of node {}", a), fmt::format("downlink of node {}", b), down};
        EXPECT_EQ(path(t, s, d), expected);
      }
    for (const Link& link : t.links()) EXPECT_EQ(link.bandwidth, link.tier == "uplink" ? per_node * 50e9 : 160e9);
  }
  EXPECT_EQ(make("{two_tier: {nodes: 2, ranks_per_node: 8, device: h800, uplink: 100GB/s}}").bandwidth(Rank(0), Rank(8)), 100e9);
}

/// What the definition of rail_fat_tree says about a path.
Names rail_path(int s, int d, int nodes, int per_node, int per_leaf, int spines) {
  const int a = s / per_node, b = d / per_node, from_rail = s % per_node, to_rail = d % per_node;
  if (s == d) return {};
  if (a == b) return {to(rank(s), fmt::format("nvswitch {}", a)), to(fmt::format("nvswitch {}", b), rank(d))};
  const auto leaf = [&](int node, int rail) {
    return nodes <= per_leaf ? fmt::format("leaf of rail {}", rail) : fmt::format("leaf {} of rail {}", node / per_leaf, rail);
  };
  const std::string up = leaf(a, from_rail), down = leaf(b, to_rail), spine = fmt::format("spine {}", (b + to_rail) % spines);
  if (up == down) return {to(rank(s), up), to(down, rank(d))};
  return {to(rank(s), up), to(up, spine), to(spine, down), to(down, rank(d))};
}

TEST(RailFatTree, PathsFollowTheRails) {
  struct Case {
    int nodes, per_node, per_leaf, spines;
  };
  for (const Case& c : {Case{1, 1, 1, 1}, {1, 4, 1, 2}, {4, 1, 4, 3}, {4, 1, 2, 2}, {2, 2, 2, 1}, {4, 4, 4, 4}, {6, 2, 4, 3}, {8, 8, 8, 8}, {8, 8, 2, 5}}) {
    const Topology t = make(fmt::format("{{rail_fat_tree: {{nodes: {}, ranks_per_node: {}, device: h800, nodes_per_leaf: {}, spines: {}}}}}", c.nodes,
                                        c.per_node, c.per_leaf, c.spines));
    ASSERT_EQ(t.ranks(), c.nodes * c.per_node);
    for (int s = 0; s < t.ranks(); ++s)
      for (int d = 0; d < t.ranks(); ++d) ASSERT_EQ(path(t, s, d), rail_path(s, d, c.nodes, c.per_node, c.per_leaf, c.spines)) << s << " to " << d;
  }
}

TEST(RailFatTree, LeavesGetTheirDownBandwidthOverTheOversubscriptionToTheSpines) {
  const Topology t = make("{rail_fat_tree: {nodes: 7, ranks_per_node: 3, device: h800, nodes_per_leaf: 4, oversubscription: 3/2, spines: 5}}");
  for (const Vertex& leaf : t.vertices()) {
    if (!leaf.name.starts_with("leaf")) continue;
    double down = 0, up = 0;
    for (const Link& link : t.links())
      if (t.vertices()[static_cast<std::size_t>(link.from)].name == leaf.name) (link.tier == "spine" ? up : down) += link.bandwidth;
    EXPECT_GT(up, 0);
    EXPECT_NEAR(up, down / 1.5, 1e-3) << leaf.name;
  }
}

TEST(RailFatTree, DefaultsGiveSpineLinksTheRateOfANic) {
  const auto spine_links = [](const Topology& t) {
    std::vector<Bandwidth> rates;
    for (const Link& link : t.links())
      if (link.tier == "spine") rates.push_back(link.bandwidth);
    return rates;
  };
  const auto full = spine_links(make("{rail_fat_tree: {nodes: 8, ranks_per_node: 8, device: h800}}"));
  EXPECT_EQ(full.size(), 8u * 8 * 2);
  EXPECT_THAT(full, testing::Each(50e9));
  const auto half = spine_links(make("{rail_fat_tree: {nodes: 8, ranks_per_node: 8, device: h800, oversubscription: 2}}"));
  EXPECT_EQ(half.size(), 8u * 4 * 2);
  EXPECT_THAT(half, testing::Each(50e9));
}

// Pods of two leaves of each rail: inside a pod its own spines join all rails, and cores join the pods.
TEST(RailFatTree, ThreeTiersJoinPodsOfNodesByCores) {
  const Topology t = make("{rail_fat_tree: {nodes: 8, ranks_per_node: 2, device: h800, tiers: 3, nodes_per_leaf: 2, spines: 2, leaves_per_pod: 2, core_oversubscription: 2}}");
  const auto tiers = [&](int s, int d) {
    Names names;
    t.for_each_link(Rank(s), Rank(d), [&](std::int32_t l) { names.push_back(t.links()[static_cast<std::size_t>(l)].tier); });
    return names;
  };
  const int node = 2;  // ranks of a node
  EXPECT_EQ(tiers(0, 1), (Names{"nvlink", "nvlink"}));
  EXPECT_EQ(tiers(0, 1 * node), (Names{"rail", "rail"})) << "one leaf";
  EXPECT_EQ(tiers(0, 2 * node), (Names{"rail", "spine", "spine", "rail"})) << "another leaf of the pod";
  EXPECT_EQ(tiers(0, 1 * node + 1), (Names{"rail", "spine", "spine", "rail"})) << "another rail of the pod";
  EXPECT_EQ(tiers(0, 4 * node), (Names{"rail", "spine", "core", "core", "spine", "rail"})) << "another pod";
  double up = 0, down = 0;  // of spine 0 of pod 0
  for (const Link& link : t.links()) {
    if (t.vertices()[static_cast<std::size_t>(link.to)].name == "spine 0 of pod 0" && link.tier == "spine") up += link.bandwidth;
    if (t.vertices()[static_cast<std::size_t>(link.from)].name == "spine 0 of pod 0" && link.tier == "core") down += link.bandwidth;
  }
  EXPECT_EQ(up, 4 * 2 * 50e9 / 2) << "four leaves of two NICs, over two spines";
  EXPECT_EQ(down, up / 2);
  EXPECT_THAT(complaint("{rail_fat_tree: {nodes: 8, ranks_per_node: 2, device: h800, cores: 2}}"), HasSubstr("a fat tree of 2 tiers has no `cores`"));
}

TEST(RailFatTree, LatencyAddsUpOverTheHops) {
  const Topology t = make("{rail_fat_tree: {nodes: 2, ranks_per_node: 2, device: h800, latency: 100ns, nic_latency: 1us, switch_latency: 10ns}}");
  EXPECT_EQ(t.latency(Rank(0), Rank(1)), *parse_time("200ns"));
  EXPECT_EQ(t.latency(Rank(0), Rank(2)), *parse_time("2us"));
  EXPECT_EQ(t.latency(Rank(0), Rank(3)), *parse_time("2020ns"));
}

TEST(RailFatTree, AnAllToAllLoadsAllSpineLinksAlike) {
  // With 8 nodes and 8 rails a choice by rank number alone would send all that goes to a rail down one link.
  for (const char* spines : {"8", "4", "2"}) {
    const Topology t = make(fmt::format("{{rail_fat_tree: {{nodes: 8, ranks_per_node: 8, device: h800, spines: {}}}}}", spines));
    std::vector<int> flows(t.links().size());
    for (Rank s : ids<Rank>(t.ranks()))
      for (Rank d : ids<Rank>(t.ranks())) t.for_each_link(s, d, [&](std::int32_t link) { ++flows[static_cast<std::size_t>(link)]; });
    int least = 1 << 30, most = 0;
    for (std::size_t i = 0; i < flows.size(); ++i)
      if (t.links()[i].tier == "spine") least = std::min(least, flows[i]), most = std::max(most, flows[i]);
    // Of 8 x 56 cross-rail flows from a leaf; a rank's own node is never a destination, which leaves a difference.
    EXPECT_LE(most - least, 8) << spines << " spines: " << least << " to " << most;
  }
}

TEST(Clusters, AreListedWithTheirSettings) {
  const ClusterCatalog catalog = builtin_clusters();
  EXPECT_THAT(catalog.names(), testing::UnorderedElementsAre("single_switch", "two_tier", "rail_fat_tree", "graphml", "fat_tree", "multi_rail", "dragonfly", "torus", "hypercube", "nvl72",
                                                             "supernode", "astra_sim", "htsim", "nccl_xml"));
  for (const auto& entry : catalog.entries()) {
    Params p;
    const Topology t = entry.make(p);
    EXPECT_FALSE(t.summary.empty()) << entry.name;
    EXPECT_EQ(t.ranks(), 0);
    EXPECT_TRUE(std::any_of(p.docs().begin(), p.docs().end(), [](const ParamDoc& d) { return d.key == "device" && d.fallback.empty(); })) << entry.name;
    for (const ParamDoc& d : p.docs()) EXPECT_FALSE(d.help.empty() || d.type.empty()) << entry.name << " " << d.key;
  }
}

TEST(Clusters, SayWhatIsWrong) {
  // I11: a misspelt key, an unknown name and a value of the wrong type are errors, all in one pass.
  EXPECT_THAT(complaint("{two_tire: {nodes: 2}}"),
              AllOf(HasSubstr("test.yaml:1:2: error: there is no cluster `two_tire`"), HasSubstr("did you mean `two_tier`?")));
  EXPECT_THAT(complaint("{two_tier: {node: 2, ranks_per_node: many, device: h8000}}"),
              AllOf(HasSubstr("cluster `two_tier` needs `nodes`"), HasSubstr("1:13: error: cluster `two_tier` has no setting `node`, did you mean `nodes`?"),
                    HasSubstr("`ranks_per_node` must be an integer"), HasSubstr("`device` has no value `h8000`, did you mean `h800`?")));
  EXPECT_THAT(complaint("{rail_fat_tree: {nodes: 2, ranks_per_node: 8, device: h800, oversubscription: 0.5}}"),
              HasSubstr("1:79: error: `oversubscription` must be at least 1"));
  EXPECT_THAT(complaint("{single_switch: {ranks: 6, ranks_per_node: 4, device: h800}}"), HasSubstr("6 ranks are no whole number of nodes of 4"));
  EXPECT_THAT(complaint("{two_tier: {nodes: 16384, ranks_per_node: 16384, device: h800}}"), HasSubstr("at most 16384 ranks"));
  EXPECT_THAT(complaint("{rail_fat_tree: {nodes: 16384, ranks_per_node: 1, device: h800, nodes_per_leaf: 1, spines: 4096}}"),
              HasSubstr("16384 leaves x 4096 spines are more than 1000000 links"));
  EXPECT_THAT(complaint("{two_tier: {nodes: 0, ranks_per_node: 8, device: h800}}"), HasSubstr("`nodes` must be an integer from 1"));
  EXPECT_THAT(complaint("{two_tier: {nodes: 2, ranks_per_node: 8, device: h800, uplink: 0GB/s}}"), HasSubstr("`uplink` must be a rate above 0"));
  EXPECT_THAT(complaint("{two_tier: {nodes: 2, ranks_per_node: 8, device: h800, uplink: 50}}"), HasSubstr("with its unit"));
}

}  // namespace
}  // namespace epsim
