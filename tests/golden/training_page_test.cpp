// The traces of examples/ are what docs/training.md says of them.
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include <fmt/format.h>

#include "base/setting.h"
#include "tests/support/program.h"
#include "workloads/import/routing_trace.h"

namespace epsim {
namespace {

const std::string kRoot = EPSIM_SOURCE_DIR;

using Load = std::vector<double>;  // [expert], shares

/// Loads of each eighth of a trace: [layer][eighth].
std::vector<std::vector<Load>> eighths(const NpyArray& ids, std::size_t experts) {
  const auto tokens = static_cast<std::size_t>(ids.shape[0]), layers = static_cast<std::size_t>(ids.shape[1]), k = static_cast<std::size_t>(ids.shape[2]);
  std::vector<std::vector<Load>> out(layers, std::vector<Load>(8, Load(experts)));
  for (std::size_t i = 0; i < ids.integers.size(); ++i) out[i / k % layers][i / (k * layers) * 8 / tokens][static_cast<std::size_t>(ids.integers[i])] += 8.0 / static_cast<double>(tokens * k);
  return out;
}

double difference(const Load& a, const Load& b) {
  double sum = 0;
  for (std::size_t e = 0; e < a.size(); ++e) sum += std::abs(a[e] - b[e]) / 2;
  return sum;
}

double most_over_mean(const Load& load) { return *std::ranges::max_element(load) * static_cast<double>(load.size()) / std::accumulate(load.begin(), load.end(), 0.0); }

TEST(TrainingPage, QuotesHowFarTheTracesDrift) {
  const std::string page = testing::bytes_of(kRoot + "/docs/training.md");
  for (const auto& [file, experts] : {std::pair{"text.npz", 16}, std::pair{"topics.pb", 32}}) {
    const auto arrays = read_trace(read_text(kRoot + "/examples/traces/" + file));
    const std::vector<std::vector<Load>> layers = eighths(arrays.at("expert_ids"), static_cast<std::size_t>(experts));
    ASSERT_EQ(layers.size(), 2U);
    double next = 0, fourth = 0, part = 0, all = 0;
    for (const std::vector<Load>& loads : layers) {
      for (std::size_t i = 0; i < 7; ++i) next += difference(loads[i], loads[i + 1]) / 14;
      for (std::size_t i = 0; i < 4; ++i) fourth += difference(loads[i], loads[i + 4]) / 8;
      Load sum(static_cast<std::size_t>(experts));
      for (const Load& load : loads) {
        part += most_over_mean(load) / 16;
        std::ranges::transform(sum, load, sum.begin(), std::plus());
      }
      all += most_over_mean(sum) / 2;
    }
    const std::string row = fmt::format("| `{}` | {:.0f} % | {:.0f} % | {:.2f} | {:.2f} |", file, 100 * next, 100 * fourth, part, all);
    EXPECT_NE(page.find(row), std::string::npos) << "docs/training.md should say: " << row;
    EXPECT_LE(std::filesystem::file_size(kRoot + "/examples/traces/" + file), 1U << 20);
  }
}

}  // namespace
}  // namespace epsim
