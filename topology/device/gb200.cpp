#include "topology/device.h"

namespace epsim::profiles {

Device gb200() {
  Device d;
  d.name = "gb200";
  d.summary = "NVIDIA GB200, one GPU of an NVL72 rack, with one ConnectX-7 a rank; FP4 is computed at the FP8 rate here.";
  d.flops_fp32 = {80e12, "NVIDIA GB200 NVL72 data sheet: 5,760 TFLOP/s of 72 GPUs"};
  d.flops_bf16 = {2.5e15, "NVIDIA GB200 NVL72 data sheet: 360 PFLOP/s of 72 GPUs with sparsity; dense is half"};
  d.flops_fp8 = {5e15, "NVIDIA GB200 NVL72 data sheet: 720 PFLOP/s of 72 GPUs with sparsity; dense is half"};
  d.memory_bandwidth = {6.96e12, "8 TB/s (NVIDIA GB200 NVL72 data sheet: 576 TB/s of 72 GPUs) x 0.87, assumed: the share that expert kernels reach on H200"};
  d.memory_bytes = {186e9, "NVIDIA GB200 NVL72 data sheet: up to 13.4 TB of 72 GPUs"};
  d.scale_up_bandwidth = {721.8e9,
                          "18 links x 40.1 GB/s usable a direction (NVIDIA/nccl:src/graph/topo.h, SM100) of 900 GB/s nominal (NVIDIA GB200 NVL72 data sheet: "
                          "130 TB/s both ways of 72 GPUs)"};
  d.scale_up_latency = {
      0.3e-6, "assumed: as on Hopper; half of the 0.6 us that NVIDIA/nccl:src/graph/tuning.cc gives a ring step over NVLink (LL), which is two hops here"};
  d.nic_bandwidth = {50e9, "NVIDIA DGX GB200 user guide: four ConnectX-7 of 400 Gb/s for the four GPUs of a compute tray"};
  d.nic_latency = {1.35e-6, "half of the 2.7 us that NVIDIA/nccl:src/graph/tuning.cc gives a ring step over the network (LL), which is two hops here"};
  d.switch_latency = {0.3e-6, "assumed: under 0.2 us through a cut-through InfiniBand switch plus some 20 m of cable at 5 ns/m"};
  d.kernel_launch = {2e-6, "assumed: as measured on A100 (1.8 us a launch when pipelined), rounded"};
  d.peak_share = {0.62, "assumed: as fitted on H800; no public measurements were fitted"};
  d.peak_share_wide = {0.86, "assumed: as fitted on H200; no public measurements were fitted"};
  d.half_rows = {240, "assumed: twice that of H800, as compute grew about twice as much as what feeds it"};
  return d;
}

}  // namespace epsim::profiles
