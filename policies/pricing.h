#pragma once
#include <cstdint>

#include "base/units.h"
#include "topology/device.h"

namespace epsim {

/// How large rows and kernels are. Bytes of a row = values x bytes per value + extra.
struct Pricing {
  std::int64_t hidden = 0;
  std::int64_t expert_ffn = 0;
  std::int64_t shared_ffn = 0;
  int expert_matrices = 3;
  Precision dispatch = Precision::bf16, combine = Precision::bf16, weights = Precision::bf16;
  Bytes dispatch_extra = 0, combine_extra = 0;
  Bytes expert_bytes = 0;  ///< weights of one routed expert, biases included
  Bytes dispatch_row() const;
  Bytes combine_row() const;
};

}  // namespace epsim
