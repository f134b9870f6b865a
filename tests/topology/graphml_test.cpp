#include <fmt/format.h>
#include <gmock/gmock.h>

#include <cstdio>
#include <fstream>

#include "tests/topology/make.h"
#include "topology/graphml_cluster.h"

namespace epsim {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

constexpr const char* kKeys =
    "  <key id='k' for='node' attr.name='kind' attr.type='string'/>\n"
    "  <key id='n' for='node' attr.name='node' attr.type='int'/>\n"
    "  <key id='nm' for='all' attr.name='name' attr.type='string'/>\n"
    "  <key id='r' for='node' attr.name='rank' attr.type='int'/>\n"
    "  <key id='b' for='edge' attr.name='bandwidth' attr.type='string'/>\n"
    "  <key id='g' for='edge' attr.name='gbps' attr.type='double'/>\n"
    "  <key id='l' for='edge' attr.name='latency' attr.type='string'/>\n"
    "  <key id='ln' for='edge' attr.name='latency_ns' attr.type='int'/>\n"
    "  <key id='t' for='edge' attr.name='tier' attr.type='string'><default>nvlink</default></key>\n";

std::string file_of(const std::string& graph, const std::string& edges = "directed") {
  return fmt::format("<?xml version='1.0'?>\n<graphml>\n{}  <graph edgedefault='{}'>\n{}  </graph>\n</graphml>\n", kKeys, edges, graph);
}
std::string rank_element(int r, int node) {
  return fmt::format("    <node id='r{}'><data key='k'>rank</data><data key='nm'>rank {}</data><data key='n'>{}</data></node>\n", r, r, node);
}
std::string switch_element(const std::string& name) {
  return fmt::format("    <node id='{0}'><data key='k'>switch</data><data key='nm'>{0}</data></node>\n", name);
}
std::string edge_element(const std::string& a, const std::string& b, const std::string& data) {
  return fmt::format("    <edge source='{}' target='{}'>{}</edge>\n", a, b, data);
}

Topology read(const std::string& content) {
  const auto source = text(content, "cluster.graphml");
  GraphmlCluster c = read_graphml_cluster(source);
  return Topology(std::move(c.vertices), std::move(c.links), *find_device("h800"), {source, 0, 0});
}

std::string complaint_of(const std::string& content) {
  try {
    read(content);
  } catch (const InputError& e) {
    return e.what();
  }
  return {};
}

void expect_same(const Topology& a, const Topology& b) {
  ASSERT_EQ(a.ranks(), b.ranks());
  ASSERT_EQ(a.nodes(), b.nodes());
  for (int s = 0; s < a.ranks(); ++s) {
    EXPECT_EQ(a.node_of(Rank(s)), b.node_of(Rank(s)));
    for (int d = 0; d < a.ranks(); ++d) {
      EXPECT_EQ(path(a, s, d), path(b, s, d));
      EXPECT_EQ(a.latency(Rank(s), Rank(d)), b.latency(Rank(s), Rank(d)));
      EXPECT_EQ(a.bandwidth(Rank(s), Rank(d)), b.bandwidth(Rank(s), Rank(d)));
    }
  }
}

TEST(Graphml, AHandWrittenFileEqualsTwoTier) {
  std::string graph;
  const std::string inner = "<data key='b'>160GB/s</data><data key='ln'>300</data>";
  for (int n = 0; n < 2; ++n)
    for (int i = 0; i < 2; ++i) graph += rank_element(2 * n + i, n);
  for (const char* name : {"nvswitch 0", "nvswitch 1", "core"}) graph += switch_element(name);
  for (int r = 0; r < 4; ++r) {
    const std::string id = fmt::format("r{}", r), hub = fmt::format("nvswitch {}", r / 2);
    graph += edge_element(id, hub, inner) + edge_element(hub, id, inner);
  }
  for (int n = 0; n < 2; ++n) {
    const std::string hub = fmt::format("nvswitch {}", n), outer = "<data key='g'>800</data><data key='l'>1350ns</data><data key='t'>uplink</data>";
    graph += edge_element(hub, "core", fmt::format("{}<data key='nm'>uplink of node {}</data>", outer, n));
    graph += edge_element("core", hub, fmt::format("{}<data key='nm'>downlink of node {}</data>", outer, n));
  }
  const Topology t = read(file_of(graph));
  expect_same(t, make("{two_tier: {nodes: 2, ranks_per_node: 2, device: h800}}"));
  for (const Link& link : t.links()) EXPECT_EQ(link.tier, link.name.find("link of node") != std::string::npos ? "uplink" : "nvlink");
}

TEST(Graphml, AnUndirectedEdgeIsALinkEachWay) {
  std::string graph = switch_element("switch");
  for (int r = 0; r < 3; ++r)
    graph += rank_element(r, 0) + edge_element(fmt::format("r{}", r), "switch", "<data key='b'>160GB/s</data><data key='l'>300ns</data>");
  expect_same(read(file_of(graph, "undirected")), make("{single_switch: {ranks: 3, device: h800}}"));
}

TEST(Graphml, NamesOfUndirectedEdgesGetADirectionAndParallelEdgesANumber) {
  const std::string rate = "<data key='b'>1GB/s</data><data key='l'>1us</data>";
  const Topology t = read(file_of(rank_element(0, 0) + rank_element(1, 0) + edge_element("r0", "r1", rate + "<data key='nm'>cable</data>") +
                                      edge_element("r0", "r1", rate) + edge_element("r0", "r1", rate),
                                  "undirected"));
  std::vector<std::string> names;
  for (const Link& link : t.links()) names.push_back(link.name);
  EXPECT_THAT(names, testing::ElementsAre("cable, rank 0 -> rank 1", "cable, rank 1 -> rank 0", "rank 0 -> rank 1", "rank 1 -> rank 0", "rank 0 -> rank 1 #2",
                                          "rank 1 -> rank 0 #2"));
}

TEST(Graphml, RanksMayBeNumbered) {
  std::string graph = switch_element("switch");
  for (int r = 0; r < 3; ++r)
    graph += fmt::format("<node id='r{0}'><data key='k'>rank</data><data key='n'>0</data><data key='r'>{1}</data></node>\n", r, 2 - r) +
             edge_element(fmt::format("r{}", r), "switch", "<data key='b'>1GB/s</data><data key='l'>0ns</data>");
  EXPECT_EQ(path(read(file_of(graph, "undirected")), 0, 2), (std::vector<std::string>{"r2 -> switch", "switch -> r0"}));
}

TEST(Graphml, IsReadThroughTheCatalog) {
  const std::string path = testing::TempDir() + "epsim_graphml_test.graphml";
  std::ofstream(path) << file_of(rank_element(0, 0) + rank_element(1, 0) + edge_element("r0", "r1", "<data key='b'>1GB/s</data><data key='l'>1us</data>"),
                                 "undirected");
  const Topology t = make(fmt::format("{{graphml: {{file: '{}', device: h800}}}}", path));
  EXPECT_EQ(t.ranks(), 2);
  EXPECT_FALSE(t.summary.empty());
  std::ofstream(path) << file_of(rank_element(0, 0) + rank_element(1, 0));
  // What is wrong in the file is said with what is wrong in the settings.
  EXPECT_THAT(
      complaint(fmt::format("{{graphml: {{file: '{}', device: h800, divice: 1}}}}", path)),
      AllOf(HasSubstr("epsim_graphml_test.graphml: error: there is no path from rank 1 to rank 0"), HasSubstr("no setting `divice`, did you mean `device`?")));
  std::remove(path.c_str());
  EXPECT_THAT(complaint(fmt::format("{{graphml: {{file: '{}', device: h800}}}}", path)), HasSubstr("no such file"));
}

TEST(Graphml, BrokenFilesSayWhere) {
  const std::string rate = "<data key='b'>1GB/s</data><data key='l'>1us</data>";
  const std::string two = rank_element(0, 0) + rank_element(1, 0);  // lines 13 and 14
  const auto broken = [&](const std::string& graph) { return complaint_of(file_of(graph)); };
  EXPECT_EQ(complaint_of(file_of(two + edge_element("r0", "r1", rate) + edge_element("r1", "r0", rate))), "");
  // Missing and invalid attributes.
  EXPECT_THAT(broken(two + "    <node id='x'/>\n"), HasSubstr("cluster.graphml:15:5: error: `x` needs a `kind`"));
  EXPECT_THAT(broken(two + "    <node id='x'><data key='k'>router</data></node>\n"),
              HasSubstr("15:5: error: `kind` of `x` must be rank or switch, got `router`"));
  EXPECT_THAT(broken(two + "    <node id='x'><data key='k'>rank</data></node>\n"), HasSubstr("15:5: error: `x` needs the number of its `node`"));
  EXPECT_THAT(broken(two + "    <node id='x'><data key='k'>rank</data><data key='n'>two</data></node>\n"),
              HasSubstr("`node` of `x` must be an integer of at least 0, got `two`"));
  EXPECT_THAT(broken(two + edge_element("r0", "r1", "<data key='l'>1us</data>")),
              HasSubstr("15:5: error: the edge `rank 0` - `rank 1` needs a `bandwidth` such as 50GB/s or a `gbps`"));
  EXPECT_THAT(broken(two + edge_element("r0", "r1", rate + "<data key='g'>5</data>")), HasSubstr("has both `bandwidth` and `gbps`"));
  EXPECT_THAT(broken(two + edge_element("r0", "r1", "<data key='b'>50</data><data key='l'>1us</data>")),
              HasSubstr("must be above 0 with its unit, such as 50GB/s, got `50`"));
  EXPECT_THAT(broken(two + edge_element("r0", "r1", "<data key='g'>-1</data><data key='l'>1us</data>")), HasSubstr("must be above 0, got `-1`"));
  EXPECT_THAT(broken(two + edge_element("r0", "r1", "<data key='g'>1</data><data key='l'>1</data>")),
              HasSubstr("must be a time with its unit, such as 500ns, got `1`"));
  EXPECT_THAT(broken(two + edge_element("r0", "r1", "<data key='g'>1</data><data key='ln'>soon</data>")), HasSubstr("`latency_ns` of the edge"));
  EXPECT_THAT(broken(two + edge_element("r0", "r0", rate)), HasSubstr("15:5: error: the edge `rank 0` - `rank 0` leads nowhere"));
  // Two problems in one pass, on lines 15 and 16.
  EXPECT_THAT(broken(two + edge_element("r0", "r1", "") + "    <node id='x'/>\n"), AllOf(HasSubstr("15:5: error"), HasSubstr("16:5: error")));
  // Form.
  EXPECT_THAT(broken(two + edge_element("r0", "r7", rate)), HasSubstr("15:5: error: there is no node `r7`, did you mean `r0`?"));
  EXPECT_THAT(broken(two + rank_element(1, 0)), HasSubstr("15:5: error: the node `r1` is given twice"));
  EXPECT_THAT(broken(two + "    <node/>\n"), HasSubstr("15:5: error: <node> needs the attribute `id`"));
  EXPECT_THAT(broken(two + edge_element("r0", "r1", "<data key='band'>1</data>")), HasSubstr("there is no key `band`"));
  EXPECT_THAT(broken(two + "<edge source='r0' target='r1' directed='false'/>"), HasSubstr("15:1: error: an edge must be directed or not"));
  EXPECT_THAT(broken(two + "<node id='y'><graph edgedefault='directed'/></node>"), HasSubstr("a graph within a graph is not supported"));
  EXPECT_THAT(broken(two + "<hyperedge/>"), HasSubstr("<hyperedge> is not supported"));
  EXPECT_THAT(complaint_of(file_of(two, "sideways")), HasSubstr("`edgedefault` must be directed or undirected, got `sideways`"));
  EXPECT_THAT(complaint_of("<graphml/>"), HasSubstr("cluster.graphml: error: has no <graph>"));
  EXPECT_THAT(complaint_of("<gexf/>"), HasSubstr("1:1: error: expected the root <graphml>, found <gexf>"));
  EXPECT_THAT(complaint_of("<graphml><graph edgedefault='directed'/></graphml>"), HasSubstr("the cluster has no ranks"));
  EXPECT_THAT(complaint_of("<graphml><key id='b' for='edge' attr.name='bandwith' attr.type='string'/><graph edgedefault='directed'/></graphml>"),
              HasSubstr("1:10: error: there is no attribute `bandwith`, did you mean `bandwidth`?"));
}

TEST(Graphml, BrokenXmlSaysWhere) {
  EXPECT_THAT(complaint_of(""), HasSubstr("is not XML: there is no element"));
  EXPECT_THAT(complaint_of("nodes: 3"), HasSubstr("1:1: error: is not XML: text outside of the root element"));
  EXPECT_THAT(complaint_of("<graphml>\n  <graph>\n</graphml>"), HasSubstr("3:1: error: is not XML: expected </graph>"));
  EXPECT_THAT(complaint_of("<graphml>\n <graph"), HasSubstr("2:2: error: is not XML: the tag <graph> never ends"));
  EXPECT_THAT(complaint_of("<graphml>\n <graph>"), HasSubstr("2:2: error: is not XML: <graph> is never closed"));
  EXPECT_THAT(complaint_of("<graphml id=3/>"), HasSubstr("1:13: error: is not XML: expected the quoted value of the attribute `id`"));
  EXPECT_THAT(complaint_of("<graphml id='3' id='4'/>"), HasSubstr("the attribute `id` is given twice"));
  EXPECT_THAT(complaint_of("<graphml/><graphml/>"), HasSubstr("1:11: error: is not XML: a second root element"));
  EXPECT_THAT(complaint_of("<!DOCTYPE graphml [<!ENTITY a 'b'>]><graphml/>"), HasSubstr("1:1: error: a DOCTYPE is not supported"));
  EXPECT_THAT(complaint_of("<graphml><!-- <graph></graphml>"), HasSubstr("1:10: error: is not XML: this comment never ends"));
  EXPECT_THAT(complaint_of(std::string("<graphml>\0</graphml>", 20)), HasSubstr("a byte of value 0"));
  std::string deep = "<graphml>";
  for (int i = 0; i < 1'000'000; ++i) deep += "<d>";
  EXPECT_THAT(complaint_of(deep), HasSubstr("nested deeper than 16 levels"));
}

TEST(Graphml, OtherToolsAttributesAndCommentsArePassedOver) {
  const std::string rate = "<data key='b'>1GB/s</data><data key='l'>1us</data>";
  std::string content = file_of(
      "<!-- <node id='ghost'> -->\n<desc>two <![CDATA[<node id='ghost2'>]]></desc>" + rank_element(0, 0) + rank_element(1, 0) + edge_element("r0", "r1", rate),
      "undirected");
  content.insert(content.find("  <graph "), "  <key id='c' for='node' attr.name='colour' attr.type='string'><default>red</default></key>\n");
  EXPECT_EQ(complaint_of(content), "");
  EXPECT_EQ(read(content).vertices().size(), 2u);
}

}  // namespace
}  // namespace epsim
