#include "topology/device.h"

namespace epsim::profiles {

Device mi300x() {
  Device d;
  d.name = "mi300x";
  d.summary = "AMD Instinct MI300X 192 GB with one 400 Gb/s NIC a rank; its mesh of 7 links is taken as one port of their sum.";
  d.flops_fp32 = {163.4e12, "AMD Instinct MI300X data sheet"};
  d.flops_bf16 = {1307.4e12, "AMD Instinct MI300X data sheet, dense"};
  d.flops_fp8 = {2614.9e12, "AMD Instinct MI300X data sheet, dense"};
  d.memory_bandwidth = {4.24e12, "5.3 TB/s (AMD Instinct MI300X data sheet) x 0.8, assumed"};
  d.memory_bytes = {192e9, "AMD Instinct MI300X data sheet: 192 GB"};
  d.scale_up_bandwidth = {336e9, "7 Infinity Fabric links x 64 GB/s a direction (AMD Instinct MI300X data sheet: 128 GB/s both ways) x 0.75, assumed"};
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
