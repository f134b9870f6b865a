#include <cstdint>
#include <string>
#include <vector>

#include "topology/cluster/shared/nccl_xml.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto source = std::make_shared<epsim::SourceText>(epsim::SourceText{"fuzz", std::string(reinterpret_cast<const char*>(data), size)});
  try {
    epsim::Fabric fabric = epsim::read_nccl_xml(source, {2, {20e9, {}}, {}, {}, {}});
    if (fabric.links.size() > 2000) return 0;  // large clusters are slow, not wrong
    fabric.build(*epsim::find_device("cpu"), {}, {source, 0, 0}, "");
  } catch (const epsim::InputError&) {
  }
  return 0;
}

std::vector<std::string> fuzz_seeds() {
  const std::string gpu = "<gpu dev=\"0\" sm=\"90\"><nvlink target=\"f\" count=\"18\" tclass=\"0x068000\"/></gpu>";
  return {"<system version=\"1\"><cpu numaid=\"0\"><pci busid=\"1\" link_speed=\"32.0 GT/s PCIe\" link_width=\"16\">" + gpu +
              "</pci><pci busid=\"2\" link_speed=\"\"><nic><net dev=\"0\" speed=\"400000\"/></nic></pci></cpu></system>",
          "<system><cpu><pci busid=\"a\"><pci busid=\"b\">" + gpu + "</pci><pci busid=\"c\"><gpu dev=\"1\" sm=\"80\"><nvlink target=\"b\" count=\"2\" tclass=\"0x030200\"/></gpu></pci></pci>" +
              "<nic><net speed=\"1\"/></nic></cpu><cpu/></system>"};
}
