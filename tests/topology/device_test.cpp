#include "topology/device.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

namespace epsim {
namespace {

std::vector<std::pair<std::string, Fact>> facts(const Device& d) {
  return {{"flops_fp32", d.flops_fp32},
          {"flops_bf16", d.flops_bf16},
          {"flops_fp8", d.flops_fp8},
          {"memory_bandwidth", d.memory_bandwidth},
          {"memory_bytes", d.memory_bytes},
          {"scale_up_bandwidth", d.scale_up_bandwidth},
          {"scale_up_latency", d.scale_up_latency},
          {"nic_bandwidth", d.nic_bandwidth},
          {"nic_latency", d.nic_latency},
          {"switch_latency", d.switch_latency},
          {"kernel_launch", d.kernel_launch},
          {"peak_share", d.peak_share},
          {"peak_share_wide", d.peak_share_wide},
          {"half_rows", d.half_rows}};
}

TEST(Devices, EveryNumberHasASource) {
  for (const Device& d : devices())
    for (const auto& [name, fact] : facts(d)) {
      EXPECT_GE(fact.source.size(), 10u) << d.name << " " << name;
      EXPECT_GE(fact.value, 0) << d.name << " " << name;
    }
}

TEST(Devices, NumbersAreOfTheRightSize) {
  const auto within = [](double v, double low, double high) { return v >= low && v <= high; };
  for (const Device& d : devices()) {
    EXPECT_TRUE(within(d.flops_fp32.value, 1e10, 1e15)) << d.name;
    EXPECT_TRUE(d.flops_bf16.value == 0 || d.flops_bf16.value > d.flops_fp32.value) << d.name;
    EXPECT_TRUE(d.flops_fp8.value == 0 || d.flops_fp8.value > d.flops_bf16.value) << d.name;
    EXPECT_TRUE(within(d.memory_bandwidth.value, 1e9, 1e13)) << d.name;
    EXPECT_TRUE(within(d.memory_bytes.value, 1e9, 1e12)) << d.name;
    EXPECT_TRUE(within(d.nic_bandwidth.value, 1e8, d.scale_up_bandwidth.value)) << d.name;
    EXPECT_TRUE(within(d.scale_up_bandwidth.value, 1e9, d.memory_bandwidth.value)) << d.name;
    for (const Fact& latency : {d.scale_up_latency, d.nic_latency, d.switch_latency, d.kernel_launch}) EXPECT_TRUE(within(latency.value, 1e-8, 1e-4)) << d.name;
    EXPECT_TRUE(within(d.peak_share.value, 0.1, 1)) << d.name;
    EXPECT_TRUE(within(d.peak_share_wide.value, 0.1, 1)) << d.name;
    EXPECT_TRUE(within(d.half_rows.value, 0, 1000)) << d.name;
    EXPECT_FALSE(d.summary.empty());
  }
}

TEST(Devices, AreFoundByTheirName) {
  std::set<std::string> names;
  for (const std::string& name : device_names()) {
    ASSERT_NE(find_device(name), nullptr);
    EXPECT_EQ(find_device(name)->name, name);
    names.insert(name);
  }
  EXPECT_EQ(names, (std::set<std::string>{"h800", "h100", "h200", "b200", "gb200", "a100", "mi300x", "mi355x", "cpu"}));
  EXPECT_EQ(find_device("h900"), nullptr);
}

TEST(Devices, NominalRatesOfTheirDataSheetsFollow) {
  // What data sheets state for a whole machine: GPUs x rate.
  EXPECT_DOUBLE_EQ(72 * find_device("gb200")->flops_fp8.value, 360e15);
  EXPECT_DOUBLE_EQ(8 * find_device("b200")->flops_fp8.value, 36e15);
  EXPECT_DOUBLE_EQ(8 * find_device("b200")->memory_bytes.value, 1440e9);
  EXPECT_EQ(find_device("h200")->flops_fp8.value, find_device("h100")->flops_fp8.value);
  EXPECT_DOUBLE_EQ(find_device("b200")->scale_up_bandwidth.value, 18 * 40.1e9);
  EXPECT_DOUBLE_EQ(find_device("mi300x")->scale_up_bandwidth.value, 7 * 64e9 * 0.75);
}

TEST(Devices, ComputeInTheNextWiderFormatWhereUnitsAreMissing) {
  const Device &h800 = *find_device("h800"), &a100 = *find_device("a100"), &cpu = *find_device("cpu");
  EXPECT_EQ(h800.flops(Precision::fp4), h800.flops_fp8.value);
  EXPECT_EQ(h800.flops(Precision::fp8), h800.flops_fp8.value);
  EXPECT_EQ(h800.flops(Precision::bf16), h800.flops_bf16.value);
  EXPECT_EQ(a100.flops(Precision::fp8), a100.flops_bf16.value);
  EXPECT_EQ(cpu.flops(Precision::fp8), cpu.flops_fp32.value);
  EXPECT_EQ(h800.share_of_peak(Precision::fp8), h800.peak_share.value);
  EXPECT_EQ(h800.share_of_peak(Precision::fp4), h800.peak_share.value);
  EXPECT_EQ(h800.share_of_peak(Precision::bf16), h800.peak_share_wide.value);
  EXPECT_EQ(a100.share_of_peak(Precision::fp8), a100.peak_share.value);
}

/// The published FP8 rates that the H800's constants are fitted to stay within the error that its source states, on the roofline those constants are for.
TEST(Devices, TheH800FitHoldsToItsStatedError) {
  struct Case {
    int groups, rows, n, k;
    double tflops;
  };
  constexpr Case cases[] = {{4, 8192, 4096, 7168, 1297}, {4, 8192, 7168, 2048, 1099}, {8, 4096, 4096, 7168, 1288}, {8, 4096, 7168, 2048, 1093},
                            {1, 1024, 4096, 7168, 1233}, {1, 1024, 7168, 2048, 925},  {2, 512, 4096, 7168, 1040},  {2, 512, 7168, 2048, 916},
                            {4, 256, 4096, 7168, 932},   {4, 256, 7168, 2048, 815},   {1, 64, 2112, 7168, 206},    {1, 128, 2112, 7168, 352},
                            {1, 4096, 2112, 7168, 1058}, {1, 64, 4096, 7168, 287},    {1, 128, 4096, 7168, 533},   {1, 4096, 4096, 7168, 1304},
                            {1, 64, 7168, 2048, 295},    {1, 128, 7168, 2048, 510},   {1, 4096, 7168, 2048, 1025}};
  const Device& d = *find_device("h800");
  double squares = 0;
  for (const Case& c : cases) {
    const double flop = 2.0 * c.rows * c.n * c.k, bytes = 1.0 * c.n * c.k + 1.0 * c.rows * c.k + 2.0 * c.rows * c.n;
    const double compute = flop / (d.flops(Precision::fp8) * d.share_of_peak(Precision::fp8) * c.rows / (c.rows + d.half_rows.value));
    const double seconds = d.kernel_launch.value + c.groups * std::max(compute, bytes / d.memory_bandwidth.value);
    squares += std::pow(std::log(seconds / (c.groups * flop / (c.tflops * 1e12))), 2);
  }
  EXPECT_LT(std::sqrt(squares / std::size(cases)), 0.135);
}

TEST(Precisions, HaveNamesAndSizes) {
  for (const std::string& name : precision_names()) EXPECT_EQ(name_of(precision_from_name(name)), name);
  EXPECT_EQ(bytes_per_value(precision_from_name("fp32")), 4);
  EXPECT_EQ(bytes_per_value(precision_from_name("bf16")), 2);
  EXPECT_EQ(bytes_per_value(precision_from_name("fp8")), 1);
  EXPECT_EQ(bytes_per_value(precision_from_name("fp4")), 0.5);
  EXPECT_THROW(precision_from_name("fp9"), std::logic_error);
}

}  // namespace
}  // namespace epsim
