#include "topology/device.h"

namespace epsim::profiles {

Device mi355x() {
  Device d;
  d.name = "mi355x";
  d.summary =
      "AMD Instinct MI355X 288 GB with one 400 Gb/s NIC a rank; its mesh of 7 links is taken as one port of their sum. FP4 is computed at the FP8 rate here.";
  d.flops_fp32 = {157.3e12, "AMD Instinct MI355X data sheet"};
  d.flops_bf16 = {2.5e15, "AMD Instinct MI355X data sheet: 2.5 PFLOP/s dense"};
  d.flops_fp8 = {5e15, "AMD Instinct MI355X data sheet: 5 PFLOP/s dense"};
  d.memory_bandwidth = {6.4e12, "8 TB/s (AMD Instinct MI355X data sheet) x 0.8, assumed"};
  d.memory_bytes = {288e9, "AMD Instinct MI355X data sheet: 288 GB"};
  d.scale_up_bandwidth = {403e9, "7 Infinity Fabric links x 76.8 GB/s a direction (AMD Instinct MI355X data sheet: 153.6 GB/s both ways) x 0.75, assumed"};
  d.scale_up_latency = {0.5e-6, "assumed: above the 0.3 us of NVLink"};
  d.nic_bandwidth = {50e9, "assumed: one NIC of 400 Gb/s a rank, as eight-GPU platforms are built"};
  d.nic_latency = {1.35e-6, "assumed: as on NVIDIA devices"};
  d.switch_latency = {0.3e-6, "assumed: under 0.2 us through a cut-through InfiniBand switch plus some 20 m of cable at 5 ns/m"};
  d.kernel_launch = {2e-6, "assumed: as on NVIDIA devices"};
  d.peak_share = {0.5, "assumed: below the 0.62 fitted on H800; no public measurements were fitted"};
  d.peak_share_wide = {0.6, "assumed: below the 0.86 fitted on H200; no public measurements were fitted"};
  d.half_rows = {120, "assumed: as fitted on H800"};
  return d;
}

}  // namespace epsim::profiles
