#include "topology/bisection.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tests/topology/make.h"

namespace epsim {
namespace {

double of(const std::string& yaml) { return bisection_bandwidth(make(yaml)); }

TEST(Bisection, IsTheNarrowestCutBetweenTheHalves) {
  EXPECT_EQ(of("{single_switch: {ranks: 8, device: h800}}"), 4 * 160e9);
  EXPECT_EQ(of("{single_switch: {ranks: 7, device: h800}}"), 3 * 160e9) << "the smaller half's ports";
  EXPECT_EQ(of("{single_switch: {ranks: 1, device: h800}}"), 0);
  EXPECT_EQ(of("{two_tier: {nodes: 4, ranks_per_node: 8, device: h800, uplink: 100GB/s}}"), 2 * 100e9);
  // A fat tree of full rate has all ports of a half; oversubscribed by 4, a quarter.
  EXPECT_EQ(of("{fat_tree: {nodes: 64, device: h800, nodes_per_leaf: 8, spines: 8}}"), 32 * 50e9);
  EXPECT_EQ(of("{fat_tree: {nodes: 64, device: h800, nodes_per_leaf: 8, spines: 2, oversubscription: 4}}"), 32 * 50e9 / 4);
  EXPECT_EQ(of("{fat_tree: {nodes: 64, tiers: 3, device: h800, nodes_per_leaf: 4, spines: 4, core_oversubscription: 2}}"), 32 * 50e9 / 2);
  EXPECT_EQ(of("{rail_fat_tree: {nodes: 8, ranks_per_node: 8, device: h800}}"), 32 * 50e9);
  EXPECT_EQ(of("{multi_rail: {nodes: 8, ranks_per_node: 8, nics: 4, device: h800}}"), 4 * 4 * 50e9);
}

TEST(CutBandwidth, OfAnySide) {
  const Topology t = make("{two_tier: {nodes: 4, ranks_per_node: 2, device: h800, uplink: 100GB/s}}");
  EXPECT_EQ(cut_bandwidth(t, {true, true, false, false, false, false, false, false}), 100e9) << "a node's uplink";
  EXPECT_EQ(cut_bandwidth(t, {false, false, true, true, true, true, true, true}), 100e9) << "the other three's into it";
  EXPECT_EQ(cut_bandwidth(t, std::vector<bool>(8, true)), 0);
  // One rank of a node: its port inside the node is more than all uplinks could take from it.
  EXPECT_GE(cut_bandwidth(t, {true, false, false, false, false, false, false, false}), 160e9);
}

TEST(Bisection, OfDirectNetworks) {
  // A torus of k x .. x k is cut twice by the halves of its last dimension: 2 k^(n - 1) links each way; a hypercube has 2^(n - 1).
  for (const int k : {4, 6}) EXPECT_EQ(of(fmt::format("{{torus: {{dims: [{0}, {0}, {0}], device: h800, bandwidth: 10GB/s}}}}", k)), 2 * k * k * 10e9);
  for (const int n : {1, 4, 6}) EXPECT_EQ(of(fmt::format("{{hypercube: {{dimensions: {}, device: h800, bandwidth: 10GB/s}}}}", n)), (1 << (n - 1)) * 10e9);
  // Groups of a dragonfly: 4 x 4 of them, each pair joined by one link.
  EXPECT_EQ(of("{dragonfly: {groups: 8, routers_per_group: 4, hosts_per_router: 2, device: h800, global_bandwidth: 1GB/s}}"), 16 * 1e9);
}

TEST(Bisection, SinksWithFaults) {
  EXPECT_EQ(of("{two_tier: {nodes: 2, ranks_per_node: 8, device: h800, faults: [{link: uplink of node 0, scale: 0.5}]}}"), 200e9);
  EXPECT_EQ(of("{hypercube: {dimensions: 4, device: h800, bandwidth: 10GB/s, faults: [{link: router 0 -> router 8, failed: true}]}}"), 70e9);
}

}  // namespace
}  // namespace epsim
