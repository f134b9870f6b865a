#include "topology/writers.h"

#include <gmock/gmock.h>

#include "tests/topology/make.h"
#include "topology/cluster/shared/astra_sim.h"
#include "topology/graphml_cluster.h"

namespace epsim {
namespace {

using testing::HasSubstr;

int occurrences(const std::string& text, const std::string& what) {
  int n = 0;
  for (std::size_t at = 0; (at = text.find(what, at)) != std::string::npos; at += what.size()) ++n;
  return n;
}

TEST(Writers, GraphmlReadsBackTheSame) {
  for (const char* yaml : {"{rail_fat_tree: {nodes: 3, ranks_per_node: 2, device: h800, nodes_per_leaf: 2, oversubscription: 3}}", "{torus: {dims: [3, 3], device: h800, latency: 123ps}}",
                           "{single_switch: {ranks: 3, device: h800, faults: [{link: rank 0 -> switch, scale: 0.3}]}}"}) {
    const Topology t = make(yaml);
    GraphmlCluster read = read_graphml_cluster(text(to_graphml(t), "out.graphml"));
    const Topology again(std::move(read.vertices), std::move(read.links), t.device(), {}, t.path_rule());
    ASSERT_EQ(again.ranks(), t.ranks());
    ASSERT_EQ(again.links().size(), t.links().size());
    for (std::size_t l = 0; l < t.links().size(); ++l) {
      EXPECT_EQ(again.links()[l].name, t.links()[l].name);
      EXPECT_EQ(again.links()[l].tier, t.links()[l].tier);
      EXPECT_EQ(again.links()[l].bandwidth, t.links()[l].bandwidth);
      EXPECT_EQ(again.links()[l].latency, t.links()[l].latency);
    }
    for (int s = 0; s < t.ranks(); ++s)
      for (int d = 0; d < t.ranks(); ++d) EXPECT_EQ(path(again, s, d), path(t, s, d));
  }
  EXPECT_THROW(to_graphml(make("{dragonfly: {groups: 2, routers_per_group: 1, hosts_per_router: 1, device: h800}}")), InputError);
}

TEST(Writers, SimgridHasALinkAndARouteForEach) {
  const Topology t = make("{two_tier: {nodes: 2, ranks_per_node: 2, device: h800}}");
  const std::string xml = to_simgrid(t, 1e12);
  EXPECT_EQ(occurrences(xml, "<host "), 4);
  EXPECT_EQ(occurrences(xml, "<link "), 2 * 4 + 4);
  EXPECT_EQ(occurrences(xml, "<route "), 4 * 3);
  EXPECT_THAT(xml, HasSubstr("<link id=\"rank 0 -&gt; nvswitch 0\" bandwidth=\"160000000000Bps\" latency=\"3e-07s\"/>"));
  EXPECT_THAT(xml, HasSubstr("<route src=\"rank-0\" dst=\"rank-3\" symmetrical=\"NO\"><link_ctn id=\"rank 0 -&gt; nvswitch 0\"/><link_ctn id=\"uplink of node 0\"/><link_ctn id=\"downlink of node 1\"/>"
                             "<link_ctn id=\"nvswitch 1 -&gt; rank 3\"/></route>"));
  EXPECT_THROW(to_simgrid(make("{single_switch: {ranks: 513, device: h800}}"), 1), InputError);
  EXPECT_THROW(to_simgrid(make("{single_switch: {ranks: 2, device: h800, routing: spread}}"), 1), InputError);
}

TEST(Writers, AstraSimIsASwitchANodeAndOneOverNodes) {
  const std::string yaml = to_astra_sim(make("{rail_fat_tree: {nodes: 4, ranks_per_node: 8, device: h800}}"));
  EXPECT_EQ(yaml, "topology: [ Switch, Switch ]\nnpus_count: [ 8, 4 ]\nbandwidth: [ 160, 50 ]  # GB/s\nlatency: [ 300, 1350 ]  # ns\n");
  EXPECT_EQ(read_astra_sim(text(yaml)).vertices.size(), 2u * 32 + 4 + 8);
}

}  // namespace
}  // namespace epsim
