#include <algorithm>

#include "sim/compute/compute.h"

namespace epsim::parts_compute {

/// A kernel takes its launch plus the longer of computing and moving memory (Williams, Waterman and Patterson, "Roofline", CACM 2009); small GEMMs reach a smaller share of the peak.
/// seconds = launch + max(flops / (peak x peak_share x rows / (rows + half_rows)), (weight_bytes + row_bytes) / memory_bandwidth); a call without rows is not launched and costs nothing.
/// A reduce moves its bytes through memory. Caches, power limits and kernels that overlap on one device are not modelled.
ComputeModel roofline(Params& p) {
  const Time launch = p.time("launch", "what a kernel costs before it computes", Time{}, "the device's");
  const double peak_share = p.number("peak_share", "share of the peak that large GEMMs reach", 1.0, 1e-6, 1.0, "the device's");
  const double half_rows = p.number("half_rows", "rows at which a GEMM reaches half of that share", 0.0, 0.0, 1e300, "the device's");
  ComputeModel model;
  model.summary = "a kernel takes its launch plus the longer of its FLOPs at a rate that saturates with rows and its bytes at memory bandwidth";
  if (!p.usable()) return model;
  const bool own_launch = !p.has("launch"), own_share = !p.has("peak_share"), own_half = !p.has("half_rows");
  model.kernel_seconds = [=](const Device& device, const KernelCall& call, Precision precision) {
    if (call.rows == 0) return 0.0;
    const double share = own_share ? device.share_of_peak(precision) : peak_share;
    const double half = own_half ? device.half_rows.value : half_rows;
    const auto rows = static_cast<double>(call.rows);
    const double computing = call.flops / (device.flops(precision) * share * (rows / (rows + half)));
    const double moving = (call.weight_bytes + call.row_bytes) / device.memory_bandwidth.value;
    return (own_launch ? device.kernel_launch.value : launch.seconds()) + std::max(computing, moving);
  };
  model.reduce_seconds = [](const Device& device, double bytes) { return bytes > 0 ? bytes / device.memory_bandwidth.value : 0.0; };
  return model;
}

}  // namespace epsim::parts_compute
