#include "topology/device.h"

#include "base/check.h"

namespace epsim {

/// One file each in topology/device/.
namespace profiles {
Device h800();
Device h100();
Device h200();
Device b200();
Device gb200();
Device a100();
Device mi300x();
Device mi355x();
Device cpu();
}  // namespace profiles

double bytes_per_value(Precision p) {
  switch (p) {
    case Precision::fp32:
      return 4;
    case Precision::bf16:
      return 2;
    case Precision::fp8:
      return 1;
    case Precision::fp4:
      return 0.5;
  }
  return 0;
}

std::string_view name_of(Precision p) { return precision_names()[static_cast<std::size_t>(p)]; }

const std::vector<std::string>& precision_names() {
  static const std::vector<std::string> names = {"fp32", "bf16", "fp8", "fp4"};
  return names;
}

Precision precision_from_name(std::string_view name) {
  for (std::size_t i = 0; i < precision_names().size(); ++i)
    if (precision_names()[i] == name) return static_cast<Precision>(i);
  ensure(false, "a precision is looked up by a name in precision_names()");
  return {};
}

double Device::flops(Precision p) const {
  if ((p == Precision::fp8 || p == Precision::fp4) && flops_fp8.value > 0) return flops_fp8.value;
  if (p != Precision::fp32 && flops_bf16.value > 0) return flops_bf16.value;
  return flops_fp32.value;
}

double Device::share_of_peak(Precision p) const { return flops(p) < flops(Precision::fp4) ? peak_share_wide.value : peak_share.value; }

const std::vector<Device>& devices() {
  static const std::vector<Device> all = {profiles::h800(), profiles::h100(), profiles::h200(),   profiles::b200(),   profiles::gb200(),
                                          profiles::a100(), profiles::mi300x(), profiles::mi355x(), profiles::cpu()};
  return all;
}

const Device* find_device(std::string_view name) {
  for (const Device& d : devices())
    if (d.name == name) return &d;
  return nullptr;
}

std::vector<std::string> device_names() {
  std::vector<std::string> names;
  for (const Device& d : devices()) names.emplace_back(d.name);
  return names;
}

}  // namespace epsim
