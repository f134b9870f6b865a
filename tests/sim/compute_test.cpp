#include <gtest/gtest.h>

#include "sim/compute/compute.h"

namespace epsim {
namespace {

Setting scalar(std::string text) {
  Setting s;
  s.kind = Setting::Kind::scalar;
  s.text = std::move(text);
  return s;
}

ComputeModel roofline(const std::vector<std::pair<std::string, std::string>>& settings = {}) {
  Setting part = scalar("roofline");
  if (!settings.empty()) {
    Setting values;
    values.kind = Setting::Kind::map;
    for (const auto& [key, value] : settings) values.entries.push_back({key, {}, scalar(value)});
    part = {};
    part.kind = Setting::Kind::map;
    part.entries.push_back({"roofline", {}, values});
  }
  Diagnostics problems;
  ComputeModel model = builtin_computes().make(part, problems);
  problems.check();
  return model;
}

Device device() {
  Device d{};
  d.flops_bf16.value = 1e12;
  d.flops_fp8.value = 2e12;
  d.memory_bandwidth.value = 1e11;
  d.kernel_launch.value = 5e-6;
  d.peak_share.value = 0.8;
  d.peak_share_wide.value = 0.5;
  d.half_rows.value = 100;
  return d;
}

TEST(Roofline, TakesTheLongerOfComputingAndMoving) {
  const ComputeModel m = roofline();
  // 300 rows reach 3/4 of the share that large GEMMs reach.
  EXPECT_DOUBLE_EQ(m.kernel_seconds(device(), {Rank(0), Slot(0), 300, 3e9, 1e6, 1e6}, Precision::bf16), 5e-6 + 3e9 / (1e12 * 0.5 * 0.75));
  EXPECT_DOUBLE_EQ(m.kernel_seconds(device(), {Rank(0), Slot(0), 300, 3e9, 1e6, 1e6}, Precision::fp8), 5e-6 + 3e9 / (2e12 * 0.8 * 0.75));
  EXPECT_DOUBLE_EQ(m.kernel_seconds(device(), {Rank(0), Slot(0), 300, 3e6, 9e8, 1e8}, Precision::bf16), 5e-6 + 1e9 / 1e11);
}

TEST(Roofline, NoRowsAndNoBytesCostNothing) {
  const ComputeModel m = roofline();
  EXPECT_EQ(m.kernel_seconds(device(), {Rank(0), Slot(0), 0, 0, 1e9, 0}, Precision::bf16), 0);
  EXPECT_EQ(m.reduce_seconds(device(), 0), 0);
  EXPECT_DOUBLE_EQ(m.reduce_seconds(device(), 1e9), 1e9 / 1e11);
}

TEST(Roofline, SettingsReplaceTheDevices) {
  const ComputeModel m = roofline({{"launch", "1us"}, {"peak_share", "1"}, {"half_rows", "0"}});
  EXPECT_DOUBLE_EQ(m.kernel_seconds(device(), {Rank(0), Slot(0), 1, 3e9, 0, 0}, Precision::bf16), 1e-6 + 3e9 / 1e12);
  const ComputeModel none = roofline({{"launch", "0us"}});
  EXPECT_DOUBLE_EQ(none.kernel_seconds(device(), {Rank(0), Slot(0), 100, 3e9, 0, 0}, Precision::bf16), 3e9 / (1e12 * 0.5 * 0.5));
}

// I11: an unknown or unusable setting is an error.
TEST(Roofline, WrongSettingsAreErrors) {
  EXPECT_THROW(roofline({{"lunch", "1us"}}), InputError);
  EXPECT_THROW(roofline({{"peak_share", "1.5"}}), InputError);
  EXPECT_THROW(roofline({{"launch", "3"}}), InputError);
}

TEST(Roofline, HasASummaryWhenListed) {
  Params listing;
  EXPECT_FALSE(builtin_computes().find("roofline")->make(listing).summary.empty());
  EXPECT_EQ(listing.docs().size(), 3u);
}

}  // namespace
}  // namespace epsim
