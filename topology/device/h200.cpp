#include "topology/device.h"

namespace epsim::profiles {

Device h200() {
  Device d;
  d.name = "h200";
  d.summary = "NVIDIA H200 SXM 141 GB with one ConnectX-7 a rank: the compute of H100, more and faster memory.";
  d.flops_fp32 = {66.9e12, "NVIDIA H100 Tensor Core GPU architecture white paper, table of peak rates (same compute as H100 SXM5)"};
  d.flops_bf16 = {989.4e12, "NVIDIA H100 Tensor Core GPU architecture white paper, dense (same compute as H100 SXM5)"};
  d.flops_fp8 = {1978.9e12, "NVIDIA H100 Tensor Core GPU architecture white paper, dense (same compute as H100 SXM5)"};
  d.memory_bandwidth = {
      4.17e12, "reached by expert kernels of 4.8 TB/s nominal (NVIDIA H200 data sheet): ai-dynamo/aiconfigurator measured MoE tables, Mixtral, 64 tokens"};
  d.memory_bytes = {141e9, "NVIDIA H200 data sheet: 141 GB"};
  d.scale_up_bandwidth = {
      370.8e9, "18 links x 20.6 GB/s usable a direction (NVIDIA/nccl:src/graph/topo.h, SM90) of 450 GB/s nominal (NVIDIA H200 data sheet: 900 GB/s both ways)"};
  d.scale_up_latency = {0.3e-6, "half of the 0.6 us that NVIDIA/nccl:src/graph/tuning.cc gives a ring step over NVLink (LL), which is two hops here"};
  d.nic_bandwidth = {50e9, "NVIDIA DGX H200 user guide: eight ConnectX-7 of 400 Gb/s"};
  d.nic_latency = {1.35e-6, "half of the 2.7 us that NVIDIA/nccl:src/graph/tuning.cc gives a ring step over the network (LL), which is two hops here"};
  d.switch_latency = {0.3e-6, "assumed: under 0.2 us through a cut-through InfiniBand switch plus some 20 m of cable at 5 ns/m"};
  d.kernel_launch = {2e-6, "assumed: as measured on A100 (1.8 us a launch when pipelined), rounded"};
  d.peak_share = {
      0.62, "fitted with half_rows to the 19 FP8 rates of deepseek-ai/DeepGEMM:README.md (February 2025, H800: same compute); root mean square error 13 %"};
  d.peak_share_wide = {
      0.86,
      "fitted to the bf16 MoE times of H200 in the measured tables of ai-dynamo/aiconfigurator (Mixtral, 64 to 16384 tokens); root mean square error 8 %"};
  d.half_rows = {120, "fitted with peak_share to the 19 FP8 rates of deepseek-ai/DeepGEMM:README.md (February 2025, H800: same compute)"};
  return d;
}

}  // namespace epsim::profiles
