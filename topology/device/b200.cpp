#include "topology/device.h"

namespace epsim::profiles {

Device b200() {
  Device d;
  d.name = "b200";
  d.summary = "NVIDIA B200 180 GB with one ConnectX-7 a rank, as in a DGX B200; FP4 is computed at the FP8 rate here.";
  d.flops_fp32 = {75e12, "NVIDIA HGX B200 data sheet: 600 TFLOP/s of 8 GPUs"};
  d.flops_bf16 = {2.25e15, "NVIDIA HGX B200 data sheet: 36 PFLOP/s of 8 GPUs with sparsity; dense is half"};
  d.flops_fp8 = {4.5e15, "NVIDIA DGX B200 data sheet: 72 PFLOP/s of 8 GPUs with sparsity; dense is half"};
  d.memory_bandwidth = {6.96e12, "8 TB/s (NVIDIA DGX B200 data sheet: 64 TB/s of 8 GPUs) x 0.87, assumed: the share that expert kernels reach on H200"};
  d.memory_bytes = {180e9, "NVIDIA DGX B200 data sheet: 1440 GB of 8 GPUs"};
  d.scale_up_bandwidth = {721.8e9,
                          "18 links x 40.1 GB/s usable a direction (NVIDIA/nccl:src/graph/topo.h, SM100) of 900 GB/s nominal (NVIDIA DGX B200 data sheet: 14.4 "
                          "TB/s both ways of 8 GPUs)"};
  d.scale_up_latency = {
      0.3e-6, "assumed: as on Hopper; half of the 0.6 us that NVIDIA/nccl:src/graph/tuning.cc gives a ring step over NVLink (LL), which is two hops here"};
  d.nic_bandwidth = {50e9, "NVIDIA DGX B200 data sheet: eight ConnectX-7 of 400 Gb/s"};
  d.nic_latency = {1.35e-6, "half of the 2.7 us that NVIDIA/nccl:src/graph/tuning.cc gives a ring step over the network (LL), which is two hops here"};
  d.switch_latency = {0.3e-6, "assumed: under 0.2 us through a cut-through InfiniBand switch plus some 20 m of cable at 5 ns/m"};
  d.kernel_launch = {2e-6, "assumed: as measured on A100 (1.8 us a launch when pipelined), rounded"};
  d.peak_share = {0.62, "assumed: as fitted on H800; no public measurements were fitted"};
  d.peak_share_wide = {0.86, "assumed: as fitted on H200; no public measurements were fitted"};
  d.half_rows = {240, "assumed: twice that of H800, as compute grew about twice as much as what feeds it"};
  return d;
}

}  // namespace epsim::profiles
