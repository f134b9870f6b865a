#include "topology/device.h"

namespace epsim::profiles {

Device cpu() {
  Device d;
  d.name = "cpu";
  d.summary = "One core of a commodity server CPU with AVX-512, which is what a rank of a real execution computes on.";
  d.flops_fp32 = {107e9,
                  "fitted to expert FFNs measured with oneDNN 2.6 on one core of an Intel Xeon of the fourth generation at 2 GHz (128 GFLOP/s nominal with two "
                  "AVX-512 units)"};
  d.flops_bf16 = {0, "real execution computes in float32"};
  d.flops_fp8 = {0, "no FP8 units"};
  d.memory_bandwidth = {10e9, "fitted to expert FFNs measured with oneDNN 2.6 on one core, weights cold"};
  d.memory_bytes = {4e9, "assumed: a core's part of the machine's memory"};
  d.scale_up_bandwidth = {5e9, "measured: half of the 10 GB/s that Open MPI 4.1 all-to-alls of 64 KiB to 1 MiB move in all through shared memory on two cores"};
  d.scale_up_latency = {2.5e-6, "measured: half of the 5 us of an Open MPI 4.1 all-to-all of 64 B between two processes on one machine"};
  d.nic_bandwidth = {1.25e9, "assumed: 10 Gb/s Ethernet"};
  d.nic_latency = {10e-6, "assumed: TCP over Ethernet, 20 us from process to process"};
  d.switch_latency = {1e-6, "assumed: a store-and-forward Ethernet switch"};
  d.kernel_launch = {1e-6, "assumed: a call into the GEMM library"};
  d.peak_share = {1, "flops_fp32 is already what large GEMMs reach"};
  d.peak_share_wide = {1, "flops_fp32 is already what large GEMMs reach"};
  d.half_rows = {2, "assumed: few rows are bound by the weights' bandwidth, which is a term of its own"};
  return d;
}

}  // namespace epsim::profiles
