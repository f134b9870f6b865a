#include <cstdint>
#include <string>
#include <vector>

#include "topology/cluster/shared/htsim.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto source = std::make_shared<epsim::SourceText>(epsim::SourceText{"fuzz", std::string(reinterpret_cast<const char*>(data), size)});
  try {
    epsim::Fabric fabric = epsim::read_htsim(source);
    if (fabric.links.size() > 2000) return 0;  // large clusters are slow, not wrong
    fabric.build(*epsim::find_device("cpu"), {}, {source, 0, 0}, "");
  } catch (const epsim::InputError&) {
  }
  return 0;
}

std::vector<std::string> fuzz_seeds() {
  const std::string zero = "Tier 0\nDownlink_speed_Gbps 400\nRadix_Down 2\nRadix_Up 2\nDownlink_Latency_ns 1000\n", one = "Tier 1\nDownlink_speed_Gbps 400\nRadix_Down 4\nDownlink_Latency_ns 1000\n";
  return {"# tree\nNodes 8\nTiers 2\nPodsize 8\n" + zero + one,
          "Nodes 8\nTiers 3\nPodsize 4\n" + zero + "Tier 1\nDownlink_speed_Gbps 400\nRadix_Down 2\nRadix_Up 2\nDownlink_Latency_ns 1\nTier 2\nDownlink_speed_Gbps 4\nDownlink_Latency_ns 1\nBundle 2\n"};
}
