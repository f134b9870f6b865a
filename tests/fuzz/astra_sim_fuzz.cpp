#include <cstdint>
#include <string>
#include <vector>

#include "topology/cluster/shared/astra_sim.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto source = std::make_shared<epsim::SourceText>(epsim::SourceText{"fuzz", std::string(reinterpret_cast<const char*>(data), size)});
  try {
    epsim::Fabric fabric = epsim::read_astra_sim(source);
    if (fabric.links.size() > 2000) return 0;  // large clusters are slow, not wrong
    fabric.build(*epsim::find_device("cpu"), {}, {source, 0, 0}, "");
  } catch (const epsim::InputError&) {
  }
  return 0;
}

std::vector<std::string> fuzz_seeds() {
  return {"topology: [ Ring, Switch ]\nnpus_count: [ 4, 2 ]\nbandwidth: [ 200.0, 50 ]\nlatency: [ 500.0, 700 ]\n", "topology: [ FullyConnected ]\nnpus_count: [ 3 ]\nbandwidth: [ 1e2 ]\nlatency: [ 0 ]\n"};
}
