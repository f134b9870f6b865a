#include <cstdint>
#include <string>
#include <vector>

#include "topology/graphml_cluster.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto source = std::make_shared<epsim::SourceText>(epsim::SourceText{"fuzz.graphml", std::string(reinterpret_cast<const char*>(data), size)});
  try {
    epsim::GraphmlCluster cluster = epsim::read_graphml_cluster(source);
    const epsim::Topology topology(std::move(cluster.vertices), std::move(cluster.links), *epsim::find_device("cpu"), {source, 0, 0});
    for (const auto s : epsim::ids<epsim::Rank>(topology.ranks()))
      for (const auto d : epsim::ids<epsim::Rank>(topology.ranks())) topology.for_each_link(s, d, [](std::int32_t) {});
  } catch (const epsim::InputError&) {
  }
  return 0;
}

std::vector<std::string> fuzz_seeds() {
  const std::string keys =
      "<graphml><key id=\"k\" for=\"node\" attr.name=\"kind\" attr.type=\"string\"/><key id=\"n\" for=\"node\" attr.name=\"node\" attr.type=\"int\"/>"
      "<key id=\"g\" for=\"edge\" attr.name=\"gbps\" attr.type=\"double\"><default>400</default></key><key id=\"l\" for=\"edge\" attr.name=\"latency\" "
      "attr.type=\"string\"/>\n";
  const std::string nodes =
      "<node id=\"a\"><data key=\"k\">rank</data><data key=\"n\">0</data></node>\n<node id=\"b\"><data key=\"k\">rank</data><data key=\"n\">0</data></node>\n"
      "<node id=\"s\"><data key=\"k\">switch</data></node>\n";
  const std::string edges =
      "<edge source=\"a\" target=\"s\"><data key=\"l\">1us</data></edge>\n<edge source=\"b\" target=\"s\"><data key=\"l\">5ns</data></edge>\n";
  return {"<?xml version=\"1.0\"?>\n" + keys + "<graph edgedefault=\"undirected\">" + nodes + edges + "</graph></graphml>",
          keys + "<graph edgedefault=\"directed\"><!-- c -->" + nodes + edges +
              "<edge source=\"s\" target=\"a\"><data key=\"l\">1us</data></edge><edge source=\"s\" target=\"b\"><data key=\"l\">1us</data><data "
              "key=\"g\">1e2</data></edge></graph></graphml>",
          "<graphml><graph edgedefault=\"directed\"><node id=\"&amp;x\"/><![CDATA[ ]]></graph></graphml>"};
}
