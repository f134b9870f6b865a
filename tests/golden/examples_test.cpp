// Every example against its expected summary, and its files against themselves. EPSIM_UPDATE_GOLDEN=1 writes the expected summaries anew; the diff is to be
// reviewed.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "tests/support/program.h"

namespace epsim {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;
using testing::Outcome;
using testing::run_program;

const fs::path kExamples = fs::path(EPSIM_SOURCE_DIR) / "examples", kExpected = fs::path(EPSIM_SOURCE_DIR) / "tests/golden/expected";

/// The examples' names, sorted.
std::vector<std::string> examples() {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(kExamples))
    if (entry.path().extension() == ".yaml") names.push_back(entry.path().stem().string());
  std::ranges::sort(names);
  return names;
}

/// What makes a large example small enough to run with every change.
std::vector<std::string> run_arguments(const std::string& name) {
  static const std::map<std::string, std::vector<std::string>> smaller = {{"deepseek-v3", {"--set", "layers=3", "--set", "source.tokens_per_rank=64"}}};
  std::vector<std::string> arguments = {"run", (kExamples / (name + ".yaml")).string()};
  if (const auto found = smaller.find(name); found != smaller.end()) arguments.insert(arguments.end(), found->second.begin(), found->second.end());
  return arguments;
}

Json summary_of(const Json& metrics) {
  const auto pick = [](const Json& from, const std::vector<std::string>& keys) {
    Json to;
    for (const std::string& key : keys) to[key] = from.at(key);
    return to;
  };
  Json summary = pick(metrics, {"total_s", "slowest_layer", "bottleneck"});
  for (const Json& layer : metrics.at("layers"))
    summary["layers"].push_back(
        pick(layer, {"layer", "dispatch_s", "compute_s", "combine_s", "layer_s", "lower_bound_s", "choices", "dropped_choices", "rank_load_max_over_mean",
                     "dispatch_bytes", "dispatch_cross_node_bytes", "combine_bytes", "combine_cross_node_bytes", "max_rank_activations_bytes", "bottleneck"}));
  return summary;
}

/// Counts and texts are equal. What is computed in double precision agrees to 1e-9, for libraries may round logarithms another way; times to 10 ps besides.
void expect_equal(const Json& got, const Json& expected, const std::string& at) {
  if (expected.is_structured()) {
    ASSERT_EQ(got.type(), expected.type()) << at;
    ASSERT_EQ(got.size(), expected.size()) << at;
    const Json flat_got = got.flatten(), flat_expected = expected.flatten();
    for (const auto& [key, value] : flat_expected.items()) {
      ASSERT_TRUE(flat_got.contains(key)) << at << key;
      expect_equal(flat_got.at(key), value, at + key);
    }
  } else if (expected.is_number_float() && got.is_number()) {
    const double e = expected.get<double>();
    EXPECT_NEAR(got.get<double>(), e, 1e-9 * std::abs(e) + (at.ends_with("_s") ? 1e-11 : 0)) << at;
  } else {
    EXPECT_EQ(got, expected) << at;
  }
}

TEST(Examples, GiveTheirExpectedSummaries) {
  const char* const update = std::getenv("EPSIM_UPDATE_GOLDEN");
  const bool write = update && std::string(update) == "1";
  if (write) fs::create_directories(kExpected);
  for (const std::string& name : examples()) {
    SCOPED_TRACE(name);
    std::vector<std::string> arguments = run_arguments(name);
    arguments.insert(arguments.end(), {"--format", "json"});
    const Outcome run = run_program(arguments);
    ASSERT_EQ(run.status, 0) << run.err;
    const Json summary = summary_of(Json::parse(run.out));
    const fs::path file = kExpected / (name + ".json");
    if (write) std::ofstream(file) << summary.dump(2) << '\n';
    ASSERT_TRUE(fs::exists(file)) << "EPSIM_UPDATE_GOLDEN=1 writes " << file;
    expect_equal(summary, Json::parse(testing::bytes_of(file)), name + ": ");
  }
  const std::vector<std::string> names = examples();
  EXPECT_FALSE(names.empty());
  for (const auto& entry : fs::directory_iterator(kExpected))
    EXPECT_TRUE(std::ranges::binary_search(names, entry.path().stem().string())) << entry.path() << " belongs to no example";
}

// I5
TEST(Examples, GiveTheSameBytesForAnyNumberOfThreadsAndAgain) {
  const testing::Workspace work("epsim_same_bytes");
  for (const std::string& name : examples()) {
    SCOPED_TRACE(name);
    std::map<std::string, std::string> first;
    std::string printed;
    for (const std::string threads : {"1", "4", "4"}) {
      const fs::path folder = work.root / "out";
      fs::remove_all(folder);
      std::vector<std::string> arguments = run_arguments(name);
      arguments.insert(arguments.end(), {"--format", "json", "--out", folder.string()});
      const Outcome run = run_program(arguments, "EPSIM_THREADS=" + threads);
      ASSERT_EQ(run.status, 0) << run.err;
      std::map<std::string, std::string> files;
      for (const auto& entry : fs::directory_iterator(folder)) files[entry.path().filename().string()] = testing::bytes_of(entry.path());
      for (const char* file : {"metrics.json", "metrics.csv", "matrices.npz", "trace.pftrace", "summary.txt", "experiment.yaml"})
        ASSERT_FALSE(files[file].empty()) << file;
      if (first.empty()) first = files, printed = run.out;
      ASSERT_EQ(files.size(), first.size());
      for (const auto& [file, bytes] : files) EXPECT_TRUE(bytes == first[file]) << file << " differs with " << threads << " threads";
      EXPECT_TRUE(run.out == printed) << "what is printed differs with " << threads << " threads";
    }
  }
}

}  // namespace
}  // namespace epsim
