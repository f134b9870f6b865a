#include "topology/cluster/shared/nccl_xml.h"

namespace epsim::parts_cluster {

Topology nccl_xml(Params& p) {
  Topology listed;
  listed.summary = "Equal nodes as an NCCL topology file describes one; their NICs meet in one core that does not block.";
  const std::string file = p.path("file", "XML that NCCL writes to NCCL_TOPO_DUMP_FILE: system, cpu, pci, gpu, nvlink, nic, net");
  NcclSettings s;
  s.nodes = p.integer("nodes", "number of nodes like the file's", 1, 1, kMaxRanks);
  const Device& device = read_device(p);
  const auto time = [](const Fact& f) { return time_from_seconds(f.value); };
  s.nvlink_latency = p.time("latency", "time of one hop over NVLink", time(device.scale_up_latency), "the device's scale-up latency");
  s.pci_latency = p.time("pci_latency", "time of one hop over PCIe", Time{100'000}, "100ns, assumed");
  s.cpu = {p.bandwidth("cpu_bandwidth", "rate between two CPUs, one direction", 20e9, "20GB/s, assumed"), p.time("cpu_latency", "time of one hop between two CPUs", Time{100'000}, "100ns, assumed")};
  s.net_latency = p.time("nic_latency", "time of one hop between a NIC and the core", time(device.nic_latency), "the device's NIC latency");
  const Paths paths = read_paths(p);
  if (s.nodes == 1 && p.has("nic_latency")) p.error("nic_latency", "`nic_latency` is of the network between nodes, and there is one");
  if (!p.usable()) return listed;

  const auto text = read_text(file, std::size_t{16} << 20);
  return read_nccl_xml(text, s).build(device, paths, {text, 0, 0}, listed.summary);
}

}  // namespace epsim::parts_cluster
