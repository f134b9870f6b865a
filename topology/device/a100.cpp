#include "topology/device.h"

namespace epsim::profiles {

Device a100() {
  Device d;
  d.name = "a100";
  d.summary = "NVIDIA A100 SXM4 80 GB with one ConnectX-6 a rank, as in a DGX A100.";
  d.flops_fp32 = {19.5e12, "NVIDIA A100 80GB data sheet, without tensor cores"};
  d.flops_bf16 = {312e12, "NVIDIA A100 80GB data sheet, dense"};
  d.flops_fp8 = {0, "NVIDIA A100 80GB data sheet: no FP8 units"};
  d.memory_bandwidth = {1.77e12, "measured on an A100-SXM4-80GB: reading device memory, of 2.04 TB/s in the NVIDIA A100 80GB data sheet"};
  d.memory_bytes = {80e9, "NVIDIA A100 80GB data sheet: 80 GB"};
  d.scale_up_bandwidth = {
      240e9,
      "12 links x 20 GB/s usable a direction (NVIDIA/nccl:src/graph/topo.h, SM80) of 300 GB/s nominal (NVIDIA A100 80GB data sheet: 600 GB/s both ways)"};
  d.scale_up_latency = {0.3e-6, "half of the 0.6 us that NVIDIA/nccl:src/graph/tuning.cc gives a ring step over NVLink (LL), which is two hops here"};
  d.nic_bandwidth = {25e9, "NVIDIA DGX A100 user guide: eight ConnectX-6 of 200 Gb/s"};
  d.nic_latency = {1.35e-6, "half of the 2.7 us that NVIDIA/nccl:src/graph/tuning.cc gives a ring step over the network (LL), which is two hops here"};
  d.switch_latency = {0.3e-6, "assumed: under 0.2 us through a cut-through InfiniBand switch plus some 20 m of cable at 5 ns/m"};
  d.kernel_launch = {1.8e-6, "measured on an A100-SXM4-80GB: launches one after another without waiting"};
  d.peak_share = {0.97,
                  "fitted with half_rows to bf16 GEMMs measured on an A100-SXM4-80GB (N = K = 8192; 1, 64, 256 and 8192 rows); root mean square error 12 %"};
  d.peak_share_wide = {0.97, "assumed: as in bf16"};
  d.half_rows = {184, "fitted with peak_share to bf16 GEMMs measured on an A100-SXM4-80GB (N = K = 8192; 1, 64, 256 and 8192 rows)"};
  return d;
}

}  // namespace epsim::profiles
