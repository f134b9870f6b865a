// Clusters from other programs' files.
#include <fmt/format.h>
#include <gmock/gmock.h>

#include "tests/topology/make.h"
#include "topology/cluster/shared/astra_sim.h"
#include "topology/cluster/shared/htsim.h"
#include "topology/cluster/shared/nccl_xml.h"

namespace epsim {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using Names = std::vector<std::string>;

Topology built(Fabric f, PathRule::Kind rule = PathRule::Kind::dmodk) { return f.build(*find_device("h800"), {{rule}, {}}, {}, "read"); }
template <class Read>
std::string refusal(Read&& read) {
  try {
    read();
  } catch (const InputError& e) {
    return e.what();
  }
  return {};
}

Topology astra(const std::string& yaml) { return built(read_astra_sim(text(yaml, "net.yml")), PathRule::Kind::first); }

TEST(AstraSim, RingsSwitchesAndMeshesAreDimensions) {
  const Topology t = astra("topology: [ Ring, FullyConnected, Switch ]\nnpus_count: [ 4, 3, 2 ]\nbandwidth: [ 200.0, 100.0, 50.0 ]\nlatency: [ 500.0, 700, 1000 ]\n");
  EXPECT_EQ(t.ranks(), 24);
  EXPECT_EQ(t.nodes(), 6);
  EXPECT_EQ(tier(t, "dim 0").size(), 2u * 24);
  EXPECT_EQ(tier(t, "dim 1").size(), 2u * 24);
  EXPECT_EQ(tier(t, "dim 2").size(), 2u * 24);
  // (0, 0, 0) to (3, 2, 1): one back on the ring, one over the mesh, two over the switch.
  EXPECT_EQ(path(t, 0, 3 + 4 * 2 + 12), (Names{"rank 0 -> router 0", "router 0 -> router 3", "router 3 -> router 11", "router 11 -> switch of dim 2 at 11", "switch of dim 2 at 11 -> router 23",
                                              "router 23 -> rank 23"}));
  EXPECT_EQ(t.latency(Rank(0), Rank(23)), *parse_time("3200ns"));
  EXPECT_EQ(t.bandwidth(Rank(0), Rank(23)), 50e9);
  EXPECT_EQ(t.bandwidth(Rank(0), Rank(1)), 200e9);
}

TEST(AstraSim, SaysWhereAFileIsWrong) {
  const auto wrong = [](const std::string& yaml) { return refusal([&] { astra(yaml); }); };
  EXPECT_THAT(wrong("topology: [ Rign ]\nnpus_count: [ 4 ]\nbandwidth: [ 0 ]\nlatency: [ -1 ]\n"),
              AllOf(HasSubstr("net.yml:1:13: error: expected Ring, Switch or FullyConnected"), HasSubstr("net.yml:3:14: error: expected a rate above 0 in GB/s"), HasSubstr("net.yml:4:12: error")));
  EXPECT_THAT(wrong("topology: [ Ring ]\nnpus_count: [ 4, 4 ]\nbandwidth: [ 1 ]\nlatency: [ 1 ]\n"), HasSubstr("2:13: error: `npus_count` has 2 dimensions, the first list has 1"));
  EXPECT_THAT(wrong("topology: [ Ring ]\n"), AllOf(HasSubstr("needs `npus_count`"), HasSubstr("needs `latency`")));
  EXPECT_THAT(wrong("topology: [ Ring ]\nnpu_count: [ 4 ]\nbandwidth: [ 1 ]\nlatency: [ 1 ]\n"), HasSubstr("2:1: error"));
  EXPECT_THAT(wrong("[1]"), HasSubstr("expected the lists"));
  EXPECT_THAT(wrong("topology: [ Ring, Ring ]\nnpus_count: [ 16384, 16384 ]\nbandwidth: [ 1, 1 ]\nlatency: [ 1, 1 ]\n"), HasSubstr("at most 16384 ranks"));
}

constexpr const char* kThreeTiers =
    "# 16 hosts\nNodes 16\nTiers 3\nPodsize 4\n\nTier 0\nDownlink_speed_Gbps 400\nRadix_Down 2\nRadix_Up 2\nQueue_Up 100\nDownlink_Latency_ns 1000\nSwitch_Latency_ns 300\n"
    "Tier 1\nDownlink_speed_Gbps 400\nRadix_Down 2\nRadix_Up 2\nDownlink_Latency_ns 500\nTier 2\nDownlink_speed_Gbps 200\nRadix_Down 4\nDownlink_Latency_ns 250\n";

TEST(Htsim, ReadsTheTiersOfATree) {
  const Topology t = built(read_htsim(text(kThreeTiers)));
  EXPECT_EQ(t.ranks(), 16);
  EXPECT_EQ(tier(t, "host").size(), 32u);
  EXPECT_EQ(tier(t, "tier 1").size(), 32u);  // 4 pods of 2 x 2 cables
  EXPECT_EQ(tier(t, "tier 2").size(), 32u);  // 4 cores with a cable to each pod
  EXPECT_EQ(path(t, 0, 15), (Names{"rank 0 -> tier 0 switch 0", "tier 0 switch 0 -> tier 1 switch 1", "tier 1 switch 1 -> tier 2 switch 3", "tier 2 switch 3 -> tier 1 switch 7",
                                   "tier 1 switch 7 -> tier 0 switch 7", "tier 0 switch 7 -> rank 15"}));
  // 1000 + (500 + 300) + 250 up, 250 + 500 + (1000 + 300) down.
  EXPECT_EQ(t.latency(Rank(0), Rank(15)), *parse_time("4100ns"));
  EXPECT_EQ(t.bandwidth(Rank(0), Rank(15)), 25e9);
  const std::vector<double> load = all_to_all(t);
  for (const std::size_t l : tier(t, "tier 2")) EXPECT_EQ(load[l], 16 - 4);
}

TEST(Htsim, BundlesAreParallelLinks) {
  const Topology t = built(read_htsim(
      text("nodes 8\ntiers 2\npodsize 8\ntier 0\ndownlink_speed_gbps 100\nradix_down 4\nradix_up 4\ndownlink_latency_ns 1\ntier 1\ndownlink_speed_gbps 100\nradix_down 4\ndownlink_latency_ns 1\nbundle 2\n")));
  EXPECT_EQ(tier(t, "tier 1").size(), 2u * 2 * 4);
  const std::vector<double> load = all_to_all(t);
  for (const std::size_t l : tier(t, "tier 1")) EXPECT_EQ(load[l], 4) << t.links()[l].name;  // 4 x 4 messages over 4 cables
}

TEST(Htsim, SaysWhereAFileIsWrong) {
  const auto wrong = [](std::string change, const std::string& to) {
    std::string topo = kThreeTiers;
    topo.replace(topo.find(change), change.size(), to);
    return refusal([&] { read_htsim(text(topo, "tree.topo")); });
  };
  EXPECT_THAT(wrong("Radix_Down 2", "Radix_Dwn 2"), AllOf(HasSubstr("tree.topo:8:1: error: there is no setting `Radix_Dwn`, did you mean `Radix_Down`?"), HasSubstr("tier 0 needs `Radix_Down`")));
  EXPECT_THAT(wrong("Podsize 4", "Podsize four"), HasSubstr("4:9: error: `Podsize` must be an integer"));
  EXPECT_THAT(wrong("Podsize 4", "Podsize 5"), HasSubstr("16 nodes are no whole number of pods of 5"));
  EXPECT_THAT(wrong("Tier 1", "Tier 2"), HasSubstr("13:6: error: expected tier 1"));
  EXPECT_THAT(wrong("Nodes 16", "Nodes"), HasSubstr("2:1: error: expected `Nodes` and one number"));
  EXPECT_THAT(wrong("Nodes 16", "Nodes 16\nNodes 16"), HasSubstr("3:1: error: `Nodes` is given twice"));
  EXPECT_THAT(wrong("Radix_Down 4", "Radix_Down 3"), HasSubstr("`Radix_Down` of tier 2 is 3, but 4 switches with bundles of 1 are below"));
  EXPECT_THAT(refusal([] { read_htsim(text("")); }), HasSubstr("needs `Nodes`"));
}

/// Two CPUs with a PCIe switch each; below each two GPUs and a NIC of two ports of 200 Gb/s.
std::string nccl(const std::string& links = "<nvlink target=\"0000:f0:00.0\" count=\"6\" tclass=\"0x068000\"/><nvlink target=\"0000:f1:00.0\" count=\"12\" tclass=\"0x068000\"/>") {
  std::string out = "<system version=\"1\">\n";
  for (int c = 0; c < 2; ++c) {
    out += fmt::format("  <cpu numaid=\"{}\" arch=\"x86_64\">\n    <pci busid=\"0000:{}0:00.0\" class=\"0x060400\" link_speed=\"32.0 GT/s PCIe\" link_width=\"16\">\n", c, c + 1);
    for (int g = 0; g < 2; ++g)
      out += fmt::format("      <pci busid=\"0000:{}{}:00.0\" class=\"0x030200\" link_speed=\"32.0 GT/s PCIe\" link_width=\"16\">\n        <gpu dev=\"{}\" sm=\"90\" rank=\"{}\">{}</gpu>\n      </pci>\n", c + 1,
                         g + 1, 2 * c + g, 2 * c + g, links);
    out += fmt::format("      <pci busid=\"0000:{}9:00.0\" class=\"0x020000\" link_speed=\"16.0 GT/s PCIe\" link_width=\"16\"><nic>\n        <net name=\"mlx5_{}\" dev=\"{}\" speed=\"200000\" port=\"1\"/>\n", c + 1, c, c);
    out += fmt::format("        <net name=\"mlx5_{}\" dev=\"{}\" speed=\"200000\" port=\"2\"/>\n      </nic></pci>\n    </pci>\n  </cpu>\n", c, c + 2);
  }
  return out + "</system>\n";
}

NcclSettings settings(std::int64_t nodes) { return {nodes, {20e9, Time{7'000}}, Time{300'000}, Time{100'000}, Time{1'000'000}}; }

TEST(NcclXml, GpusAreRanksOfTheirNode) {
  const Topology t = built(read_nccl_xml(text(nccl()), settings(2)));
  EXPECT_EQ(t.ranks(), 8);
  EXPECT_EQ(t.nodes(), 2);
  // 18 links of 20.6 GB/s to all NVSwitches together.
  EXPECT_EQ(path(t, 0, 3), (Names{"rank 0 -> nvswitch of node 0", "nvswitch of node 0 -> rank 3"}));
  EXPECT_DOUBLE_EQ(t.bandwidth(Rank(0), Rank(3)), 18 * 20.6e9);
  // The GPU's own PCIe switch, its NIC, the core; D-mod-k takes a port.
  const Names across = path(t, 1, 4);
  EXPECT_EQ(across.size(), 6u);
  EXPECT_EQ(across[0], "rank 1 -> pci 0 of node 0");
  EXPECT_EQ(across[1], "pci 0 of node 0 -> nic 0 of node 0");
  EXPECT_THAT(across[2], HasSubstr("nic 0 of node 0 -> core"));
  EXPECT_EQ(across[5], "pci 0 of node 1 -> rank 4");
  EXPECT_DOUBLE_EQ(t.bandwidth(Rank(1), Rank(4)), 24e9);  // a port has 25, the GPU's PCIe 240 x 16 / 80 and the NIC's 120 x 16 / 80 GB/s
  EXPECT_EQ(t.latency(Rank(1), Rank(4)).ps, 4 * 100'000 + 2 * 1'000'000);
  for (const std::size_t l : tier(t, "pci"))
    EXPECT_DOUBLE_EQ(t.links()[l].bandwidth, t.links()[l].name.find("nic") == std::string::npos ? 48e9 : 24e9) << t.links()[l].name;
}

TEST(NcclXml, GpusMayBeJoinedDirectly) {
  std::string file = nccl("");
  const auto add = [&](int dev, const std::string& target) {
    const std::string gpu = fmt::format("<gpu dev=\"{0}\" sm=\"80\" rank=\"{0}\">", dev), was = fmt::format("<gpu dev=\"{0}\" sm=\"90\" rank=\"{0}\">", dev);
    file.replace(file.find(was), was.size(), gpu + fmt::format("<nvlink target=\"{}\" count=\"4\" tclass=\"0x030200\"/>", target));
  };
  add(0, "0000:12:00.0"), add(1, "0000:11:00.0");
  const Topology t = built(read_nccl_xml(text(file), settings(1)));
  EXPECT_EQ(path(t, 0, 1), Names{"rank 0 -> rank 1"});
  EXPECT_DOUBLE_EQ(t.bandwidth(Rank(0), Rank(1)), 80e9);
  EXPECT_EQ(path(t, 0, 2), (Names{"rank 0 -> pci 0", "pci 0 -> cpu 0", "cpu 0 -> cpu 1", "cpu 1 -> pci 1", "pci 1 -> rank 2"}));
  EXPECT_DOUBLE_EQ(t.bandwidth(Rank(0), Rank(2)), 20e9);
}

TEST(NcclXml, SaysWhereAFileIsWrong) {
  const auto wrong = [](const std::string& change, const std::string& to, std::int64_t nodes = 1) {
    std::string file = nccl();
    file.replace(file.find(change), change.size(), to);
    return refusal([&] { read_nccl_xml(text(file, "topo.xml"), settings(nodes)); });
  };
  EXPECT_THAT(wrong("dev=\"1\" sm", "dev=\"0\" sm"), HasSubstr("topo.xml:8:9: error: a second <gpu> has dev 0"));
  EXPECT_THAT(wrong(" sm=\"90\"", ""), HasSubstr("topo.xml:5:9: error: <gpu> needs the attribute `sm`"));
  EXPECT_THAT(wrong("32.0 GT/s PCIe", "33 GT/s"), HasSubstr("`link_speed` of <pci> must be such as"));
  EXPECT_THAT(wrong("tclass=\"0x068000\"", "tclass=\"0x1\""), HasSubstr("no <gpu> has the bus id `0000:f0:00.0`"));
  EXPECT_THAT(wrong("speed=\"200000\" port=\"1\"", "speed=\"fast\" port=\"1\"", 2), HasSubstr("`speed` of <net> must be a number"));
  EXPECT_THAT(refusal([] { read_nccl_xml(text("<system version='1'><gpu dev='0'/></system>", "topo.xml"), settings(1)); }), HasSubstr("1:21: error: <gpu> is not inside of a <cpu>"));
  EXPECT_THAT(refusal([] { read_nccl_xml(text("<graphml/>", "topo.xml"), settings(1)); }), AllOf(HasSubstr("1:1: error: expected the root <system>, found <graphml>"), HasSubstr("has no <gpu>")));
  EXPECT_THAT(refusal([] { read_nccl_xml(text(nccl(), "topo.xml"), settings(10000)); }), HasSubstr("at most 16384 ranks"));
}

}  // namespace
}  // namespace epsim
