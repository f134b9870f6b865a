#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "base/units.h"

namespace epsim {

/// A number of a hardware profile with where it comes from.
struct Fact {
  double value = 0;
  std::string_view source;  ///< a data sheet, a published measurement, or "assumed: why"
};

/// Number formats that vectors travel in and experts compute in.
enum class Precision { fp32, bf16, fp8, fp4 };
double bytes_per_value(Precision p);
std::string_view name_of(Precision p);
const std::vector<std::string>& precision_names();
Precision precision_from_name(std::string_view name);  ///< of a name in precision_names()

/// What one rank's hardware can do. All rates are for one direction.
struct Device {
  std::string_view name;
  std::string_view summary;
  Fact flops_fp32, flops_bf16, flops_fp8;  ///< dense peak, FLOP/s; 0 where the device has no such units
  Fact memory_bandwidth;                   ///< bytes/s that kernels reach when they stream weights
  Fact memory_bytes;                       ///< bytes
  Fact scale_up_bandwidth;                 ///< bytes/s a rank can send inside its node (NVLink)
  Fact scale_up_latency;                   ///< seconds, one hop inside the node
  Fact nic_bandwidth;                      ///< bytes/s a rank can send to other nodes
  Fact nic_latency;                        ///< seconds, one hop between a NIC and a switch of the scale-out network
  Fact switch_latency;                     ///< seconds, one hop between two switches of the scale-out network
  Fact kernel_launch;                      ///< seconds a kernel costs before it computes
  Fact peak_share;                         ///< share of the peak that large GEMMs reach in the narrowest format the device computes in, 0..1
  Fact peak_share_wide;                    ///< the same in wider formats
  Fact half_rows;                          ///< rows at which a GEMM reaches half of that share

  /// Peak FLOP/s for a precision; a device without the units computes in the next wider format.
  double flops(Precision p) const;
  /// The share of `flops(p)` that large GEMMs reach.
  double share_of_peak(Precision p) const;
};

/// The built-in profiles, one file each in topology/device/.
const std::vector<Device>& devices();
const Device* find_device(std::string_view name);
std::vector<std::string> device_names();

}  // namespace epsim
