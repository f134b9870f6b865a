// Links, paths and loads of each shape against closed forms.
#include <fmt/format.h>
#include <gmock/gmock.h>

#include "tests/topology/make.h"

namespace epsim {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using Names = std::vector<std::string>;

/// The sum of a link's load over an all-to-all, which must be the same on every link of a tier.
void expect_load(const Topology& t, const std::string& of, double load) {
  const std::vector<double> loads = all_to_all(t);
  ASSERT_FALSE(tier(t, of).empty()) << of;
  for (const std::size_t l : tier(t, of)) ASSERT_NEAR(loads[l], load, 1e-9 * load) << t.links()[l].name;
}

TEST(FatTree, HasTheLinksOfItsTiers) {
  const Topology two = make("{fat_tree: {nodes: 48, device: h800, nodes_per_leaf: 8, spines: 4, oversubscription: 2}}");
  EXPECT_EQ(tier(two, "host").size(), 2u * 48);
  EXPECT_EQ(tier(two, "spine").size(), 2u * 6 * 4);
  for (const std::size_t l : tier(two, "spine")) EXPECT_DOUBLE_EQ(two.links()[l].bandwidth, 8 * 50e9 / 2 / 4);
  const Topology three = make("{fat_tree: {nodes: 64, tiers: 3, device: h800, nodes_per_leaf: 4, spines: 4, leaves_per_pod: 4, core_oversubscription: 4, cores: 8}}");
  EXPECT_EQ(tier(three, "spine").size(), 2u * 16 * 4);
  EXPECT_EQ(tier(three, "core").size(), 2u * 4 * 8);
  // A spine has 4 x 50 GB/s from its leaves and a quarter of that up its 2 core links.
  for (const std::size_t l : tier(three, "core")) EXPECT_DOUBLE_EQ(three.links()[l].bandwidth, 4 * 50e9 / 4 / 2);
  EXPECT_EQ(path(three, 0, 63), (Names{"rank 0 -> leaf 0", "leaf 0 -> spine 3 of pod 0", "spine 3 of pod 0 -> core 7", "core 7 -> spine 3 of pod 3", "spine 3 of pod 3 -> leaf 15",
                                       "leaf 15 -> rank 63"}));
  EXPECT_EQ(path(three, 0, 5), (Names{"rank 0 -> leaf 0", "leaf 0 -> spine 1 of pod 0", "spine 1 of pod 0 -> leaf 1", "leaf 1 -> rank 5"}));
  EXPECT_EQ(make("{fat_tree: {nodes: 4, tiers: 3, device: h800}}").links().size(), 8u) << "one leaf has nothing above it";
}

TEST(FatTree, HostsMayBeNodes) {
  const Topology t = make("{fat_tree: {nodes: 4, ranks_per_node: 8, device: h800, nodes_per_leaf: 2, spines: 2}}");
  EXPECT_EQ(t.ranks(), 32);
  EXPECT_EQ(t.nodes(), 4);
  EXPECT_EQ(path(t, 0, 31), (Names{"rank 0 -> nvswitch 0", "nvswitch 0 -> leaf 0", "leaf 0 -> spine 0", "spine 0 -> leaf 1", "leaf 1 -> nvswitch 3", "nvswitch 3 -> rank 31"}));
  for (const std::size_t l : tier(t, "host")) EXPECT_EQ(t.links()[l].bandwidth, 400e9);
}

TEST(FatTree, SaysWhatIsWrong) {
  EXPECT_THAT(complaint("{fat_tree: {nodes: 4, device: h800, cores: 4, leaves_per_pod: 1}}"), AllOf(HasSubstr("a fat tree of 2 tiers has no `cores`"), HasSubstr("has no `leaves_per_pod`")));
  EXPECT_THAT(complaint("{fat_tree: {nodes: 64, tiers: 3, device: h800, nodes_per_leaf: 8, spines: 3, cores: 4}}"), HasSubstr("4 cores are no multiple of 3 spines"));
  EXPECT_THAT(complaint("{fat_tree: {nodes: 64, device: h800, bandwidth: 1GB/s}}"), HasSubstr("a node of one rank does not have"));
}

TEST(MultiRail, MessagesLeaveOnTheRailOfTheirDestination) {
  const Topology t = make("{multi_rail: {nodes: 3, ranks_per_node: 8, nics: 4, device: h800, nodes_per_leaf: 2, spines: 2}}");
  EXPECT_EQ(tier(t, "rail").size(), 2u * 3 * 4);
  EXPECT_EQ(tier(t, "spine").size(), 2u * 4 * 2 * 2);
  EXPECT_EQ(path(t, 0, 7), (Names{"rank 0 -> nvswitch 0", "nvswitch 0 -> rank 7"}));
  EXPECT_EQ(path(t, 0, 1), (Names{"rank 0 -> nvswitch 0", "nvswitch 0 -> rank 1"})) << "also where they share a NIC";
  EXPECT_EQ(path(t, 0, 9), (Names{"rank 0 -> nic 0 of node 0, out", "nic 0 of node 0, out -> leaf 0 of rail 0", "leaf 0 of rail 0 -> nic 0 of node 1, in", "nic 0 of node 1, in -> rank 9"}));
  EXPECT_EQ(path(t, 0, 15), (Names{"rank 0 -> nvswitch 0", "nvswitch 0 -> nic 3 of node 0, out", "nic 3 of node 0, out -> leaf 0 of rail 3", "leaf 0 of rail 3 -> nic 3 of node 1, in",
                                   "nic 3 of node 1, in -> rank 15"}));
  EXPECT_EQ(path(t, 0, 23), (Names{"rank 0 -> nvswitch 0", "nvswitch 0 -> nic 3 of node 0, out", "nic 3 of node 0, out -> leaf 0 of rail 3", "leaf 0 of rail 3 -> spine 1 of rail 3",
                                   "spine 1 of rail 3 -> leaf 1 of rail 3", "leaf 1 of rail 3 -> nic 3 of node 2, in", "nic 3 of node 2, in -> rank 23"}));
  // 8 ranks send to the 2 ranks of a rail on each of 2 other nodes.
  expect_load(t, "rail", 8 * 2 * 2);
  EXPECT_THAT(complaint("{multi_rail: {nodes: 3, ranks_per_node: 8, nics: 3, device: h800}}"), HasSubstr("8 ranks share no whole number of times among 3 NICs"));
}

TEST(Dragonfly, PathsAreMinimal) {
  // The balanced one of h = 2: 4 routers a group, 9 groups, one link between any two groups.
  const Topology t = make("{dragonfly: {groups: 9, routers_per_group: 4, hosts_per_router: 2, device: h800}}");
  EXPECT_EQ(t.ranks(), 72);
  EXPECT_EQ(tier(t, "host").size(), 2u * 72);
  EXPECT_EQ(tier(t, "local").size(), 9u * 4 * 3);
  EXPECT_EQ(tier(t, "global").size(), 9u * 8);
  for (int s = 0; s < 72; ++s)
    for (int d = 0; d < 72; ++d) {
      int local = 0, global = 0;
      t.for_each_link(Rank(s), Rank(d), [&](std::int32_t l) {
        local += t.links()[static_cast<std::size_t>(l)].tier == "local";
        global += t.links()[static_cast<std::size_t>(l)].tier == "global";
      });
      ASSERT_EQ(global, s / 8 != d / 8) << s << " to " << d;
      ASSERT_LE(local, global == 0 ? s / 2 != d / 2 : 2) << s << " to " << d;
    }
  // Between two groups 8 x 8 messages cross their one link.
  expect_load(t, "global", 64);
  // A local link carries: to the router's own 2 hosts from the 2 of the other; the 8 x 2 messages for the 2 groups behind a router, a quarter from each router; and as much that comes in.
  expect_load(t, "local", 2 * 2 + 2 * 8 * 2 + 2 * 8 * 2);
  EXPECT_EQ(path(t, 0, 71).size(), 5u);
}

TEST(Dragonfly, SpreadsSpareGlobalLinksAndSaysWhatDoesNotReach) {
  const Topology t = make("{dragonfly: {groups: 3, routers_per_group: 4, hosts_per_router: 2, device: h800}}");
  EXPECT_EQ(tier(t, "global").size(), 3u * 8) << "four between any two groups";
  EXPECT_THAT(complaint("{dragonfly: {groups: 10, routers_per_group: 4, hosts_per_router: 2, device: h800}}"), HasSubstr("4 routers x 2 global links of a group do not reach 9 other groups"));
}

TEST(Torus, PathsTurnDimensionAfterDimension) {
  const Topology t = make("{torus: {dims: [4, 3, 5], device: h800}}");
  EXPECT_EQ(t.ranks(), 60);
  EXPECT_EQ(tier(t, "injection").size(), 120u);
  EXPECT_EQ(tier(t, "dim 0").size() + tier(t, "dim 1").size() + tier(t, "dim 2").size(), 6u * 60);
  // (0, 0, 0) to (3, 1, 2): one back, one on, two on.
  EXPECT_EQ(path(t, 0, 3 + 4 * 1 + 12 * 2), (Names{"rank 0 -> router 0", "router 0 -> router 3", "router 3 -> router 7", "router 7 -> router 19", "router 19 -> router 31", "router 31 -> rank 31"}));
  // In an odd ring of k a link carries N / k x (1 + 2 + .. + (k - 1) / 2) of an all-to-all; here 60 / 3 x 1 and 60 / 5 x 3.
  expect_load(t, "dim 1", 20);
  expect_load(t, "dim 2", 36);
  // In an even ring the half-way messages all go on: 60 / 4 x (1 + 2) ahead, 60 / 4 x 1 back.
  const std::vector<double> load = all_to_all(t);
  for (const std::size_t l : tier(t, "dim 0")) EXPECT_EQ(load[l], (t.links()[l].to - t.links()[l].from + 8) % 8 == 2 ? 45 : 15) << t.links()[l].name;
  EXPECT_EQ(make("{torus: {dims: [2, 2], device: h800}}").links().size(), 8u + 8u) << "of two there is one cable";
  EXPECT_EQ(make("{torus: {dims: [1], device: h800}}").ranks(), 1);
}

TEST(Torus, SaysWhatIsWrong) {
  EXPECT_THAT(complaint("{torus: {device: h800}}"), HasSubstr("needs `dims`"));
  EXPECT_THAT(complaint("{torus: {dims: 4, device: h800}}"), HasSubstr("`dims` must be a list of 1 to 4 integers"));
  EXPECT_THAT(complaint("{torus: {dims: [4, x], device: h800}}"), HasSubstr("1:20: error: a dimension must be an integer"));
  EXPECT_THAT(complaint("{torus: {dims: [4, 4], ranks_per_node: 3, device: h800}}"), HasSubstr("16 ranks are no whole number of nodes of 3"));
  EXPECT_THAT(complaint("{torus: {dims: [200, 200], device: h800}}"), HasSubstr("at most 16384 ranks"));
}

TEST(Hypercube, LinksCarryHalfOfAllRanks) {
  for (const int n : {1, 3, 5}) {
    const Topology t = make(fmt::format("{{hypercube: {{dimensions: {}, device: h800}}}}", n));
    ASSERT_EQ(t.ranks(), 1 << n);
    EXPECT_EQ(t.links().size(), static_cast<std::size_t>((2 + n) << n));
    for (int bit = 0; bit < n; ++bit) expect_load(t, fmt::format("dim {}", bit), 1 << (n - 1));
    for (int d = 0; d < t.ranks(); ++d) EXPECT_EQ(path(t, 0, d).size(), d == 0 ? 0u : 2u + static_cast<unsigned>(__builtin_popcount(static_cast<unsigned>(d))));
  }
  EXPECT_EQ(path(make("{hypercube: {dimensions: 3, device: h800}}"), 1, 6), (Names{"rank 1 -> router 1", "router 1 -> router 0", "router 0 -> router 2", "router 2 -> router 6", "router 6 -> rank 6"}));
}

TEST(Nvl72, DomainsAreJoinedByRails) {
  const Topology t = make("{nvl72: {domains: 2, device: h800, ranks_per_leaf: 18, spines: 18}}");
  EXPECT_EQ(t.ranks(), 144);
  EXPECT_EQ(t.nodes(), 2);
  EXPECT_EQ(tier(t, "nvlink").size(), 288u);
  EXPECT_EQ(tier(t, "rail").size(), 288u);
  EXPECT_EQ(tier(t, "spine").size(), 2u * 4 * 2 * 18);
  EXPECT_EQ(path(t, 0, 4), (Names{"rank 0 -> nvswitch 0", "nvswitch 0 -> rank 4"})) << "though they share a leaf";
  EXPECT_EQ(path(t, 0, 72), (Names{"rank 0 -> leaf 0 of rail 0", "leaf 0 of rail 0 -> spine 1", "spine 1 -> leaf 1 of rail 0", "leaf 1 of rail 0 -> rank 72"}));
  expect_load(t, "rail", 72);
  const Topology planes = make("{nvl72: {domains: 1, ranks_per_domain: 6, planes: 3, device: h800, routing: spread}}");
  EXPECT_EQ(planes.links().size(), 2u * 6 * 3);
  EXPECT_DOUBLE_EQ(planes.bandwidth(Rank(0), Rank(1)), 160e9);
  expect_load(planes, "nvlink", 5.0 / 3);
}

TEST(Supernode, TheBusDoesNotBlock) {
  const Topology t = make("{supernode: {servers: 6, ranks_per_server: 4, device: h800}}");
  EXPECT_EQ(t.ranks(), 24);
  EXPECT_EQ(t.nodes(), 6);
  EXPECT_EQ(tier(t, "ub").size(), 48u);
  EXPECT_EQ(tier(t, "ub-2").size(), 2u * 6 * 4);
  for (const Link& link : t.links()) EXPECT_EQ(link.bandwidth, 160e9);
  // A link upwards carries a quarter of what 4 ranks send to the 20 of other servers: a class of destinations.
  expect_load(t, "ub-2", 20);
  const Topology joined = make("{supernode: {supernodes: 2, servers: 2, ranks_per_server: 2, planes: 2, device: h800}}");
  EXPECT_EQ(tier(joined, "ub").size(), 2u * 8 * 2);
  EXPECT_EQ(path(joined, 0, 3).size(), 4u) << "over the bus, not the one leaf";
  EXPECT_EQ(path(joined, 0, 4), (Names{"rank 0 -> leaf 0", "leaf 0 -> rank 4"}));
  EXPECT_THAT(complaint("{supernode: {device: h800, spines: 2}}"), HasSubstr("`spines` is of the network between supernodes, and there is one"));
}

}  // namespace
}  // namespace epsim
