#pragma once
#include <functional>
#include <string_view>

#include "base/catalog.h"
#include "policies/schedule.h"

namespace epsim {

/// How long kernels and reduces take on a device. Each rank runs one at a time: reduces first, else in the order they become ready.
struct ComputeModel {
  std::string_view summary;
  std::function<double(const Device&, const KernelCall&, Precision)> kernel_seconds;
  std::function<double(const Device&, double bytes)> reduce_seconds;
};

using ComputeCatalog = Catalog<ComputeModel>;
ComputeCatalog builtin_computes();

}  // namespace epsim
