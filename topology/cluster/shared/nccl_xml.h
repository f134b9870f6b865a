#pragma once
#include <memory>

#include "topology/cluster/shared/fabric.h"

namespace epsim {

/// What an NCCL topology file does not say.
struct NcclSettings {
  std::int64_t nodes = 1;
  Port cpu;                   ///< between the CPUs of a node
  Time nvlink_latency, pci_latency, net_latency;
};

/// `nodes` equal nodes, each as an NCCL topology file (`NCCL_TOPO_DUMP_FILE`) describes it: <gpu>s are ranks in the order of `dev`; <cpu>s, <pci> bridges and <nic>s are switches; <nvlink>s join GPUs or
/// lead to one NVSwitch that stands for all; every <net> has a link of its `speed` to one non-blocking core that joins the nodes.
/// GB/s of an NVLink by `sm` and of PCIe by `link_speed` x `link_width` are those that NCCL counts with (NVIDIA/nccl:src/graph/topo.h, topo.cc). Throws InputError with line and column of every problem.
Fabric read_nccl_xml(const std::shared_ptr<const SourceText>& source, const NcclSettings& settings);

}  // namespace epsim
