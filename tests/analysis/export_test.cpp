#include <fstream>
#include <iterator>
#include <set>
#include <sstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "analysis/compare.h"
#include "analysis/export/writers.h"
#include "tests/analysis/measured_case.h"
#include "tests/support/output_page.h"

namespace epsim {
namespace {

using ::testing::HasSubstr;
using testing::MeasuredCase;
using Json = nlohmann::json;

RunMetrics run_of(const MeasuredCase& c, int layers) {
  RunMetrics run;
  for (int i = 0; i < layers; ++i) {
    LayerMetrics m = c.metrics();
    m.layer += i;
    run.add(std::move(m));
  }
  return run;
}

Json json_of(const MeasuredCase& c, const RunMetrics& run) {
  std::ostringstream out;
  write_json(out, c.experiment, run);
  return Json::parse(out.str());
}

std::set<std::string> keys_of(const Json& object) {
  std::set<std::string> keys;
  for (const auto& [key, value] : object.items()) keys.insert(key);
  return keys;
}

TEST(OutputPage, HasEveryKeyOfMetricsJsonAndNoOther) {
  MeasuredCase c(1);
  c.experiment.eras = {{0, {}, nullptr, false, "rank 1 at speed 0.5"}};
  const Json root = json_of(c, run_of(c, 2));
  std::set<std::string> keys;
  for (const auto& [key, value] : root.items()) {
    if (key == "trust") {
      for (const auto& label : keys_of(value)) keys.insert("trust." + label);
    } else {
      keys.insert(value.is_array() ? key + "[]" : key);
    }
  }
  for (const auto& key : keys_of(root["links"][0])) keys.insert("links[]." + key);
  for (const auto& key : keys_of(root["events"][0])) keys.insert("events[]." + key);
  EXPECT_EQ(keys, documented("metrics.json"));
  EXPECT_EQ(keys_of(root["layers"][0]), documented("Layer fields"));
}

TEST(OutputPage, HasEveryColumnOfTheCsvInOrder) {
  std::set<std::string> columns;
  for (const LayerField& field : layer_fields()) EXPECT_TRUE(columns.emplace(field.name).second);
  EXPECT_EQ(columns, documented("Layer fields"));
}

TEST(OutputPage, HasEveryArrayOfTheMatrices) {
  const MeasuredCase c(1);
  MatrixCollector matrices(c.experiment);
  matrices.add(c.metrics(), c.run.plan.placement);
  matrices.add_over_time(link_use({}, {}, Stage::dispatch, c.experiment.topology, 1), link_use({}, {}, Stage::combine, c.experiment.topology, 1));
  std::set<std::string> names;
  for (const auto& [name, array] : read_npz(std::make_shared<SourceText>(SourceText{"matrices.npz", matrices.bytes()}))) names.insert(name);
  EXPECT_EQ(names, documented("matrices.npz"));
}

TEST(Matrices, SayBeforehandHowLargeTheyGet) {
  for (const std::uint64_t seed : {1, 2, 3}) {
    const MeasuredCase c(seed);
    constexpr int kBins = 100;
    MatrixCollector matrices(c.experiment);
    const double without = matrices.least_bytes(0, 0), least = matrices.least_bytes(1, kBins);
    matrices.add(c.metrics(), c.run.plan.placement);
    const double headers = 30 * 400, slots = 4.0 * c.run.plan.placement.slots();
    EXPECT_LE(without, static_cast<double>(matrices.bytes().size()));
    EXPECT_GE(without + slots + headers, static_cast<double>(matrices.bytes().size()));
    matrices.add_over_time(link_use({}, {}, Stage::dispatch, c.experiment.topology, kBins), link_use({}, {}, Stage::combine, c.experiment.topology, kBins));
    EXPECT_LE(least, static_cast<double>(matrices.bytes().size()));
    EXPECT_GE(least + slots + headers, static_cast<double>(matrices.bytes().size()));
  }
}

TEST(OutputPage, HasEveryKeyOfAComparison) {
  const MeasuredCase c(1);
  Comparison comparison{"a", "b", "c", 1, 1, 1, 1, {parse_axis("placement=a,b")}, {compared_point({"a"}, {run_of(c, 1)}), compared_point({"b"}, {run_of(c, 1)})}};
  std::ostringstream out;
  write_json(out, comparison);
  const Json root = Json::parse(out.str());
  std::set<std::string> keys;
  for (const auto& [key, value] : root.items()) keys.insert(value.is_array() ? key + "[]" : key);
  for (const auto& key : keys_of(root["axes"][0])) keys.insert("axes[]." + key);
  std::set<std::string> fields = keys_of(root["points"][0]);
  for (const char* key : {"set", "samples_s"}) {
    EXPECT_EQ(fields.erase(key), 1U);
    keys.insert(std::string("points[].") + key);
  }
  EXPECT_EQ(keys, documented("compare.json"));
  EXPECT_EQ(fields, documented("Point fields"));
}

TEST(Json, HoldsTheRunAndItsSettings) {
  const MeasuredCase c(4);
  const RunMetrics run = run_of(c, 2);
  const Json root = json_of(c, run);
  EXPECT_EQ(root["total_s"].get<double>(), run.total_s);
  EXPECT_EQ(root["layers"].size(), 2U);
  EXPECT_EQ(root["layers"][0]["dispatch_s"].get<double>(), run.layers[0].dispatch_s);
  EXPECT_EQ(root["layers"][0]["dropped_choices"].get<std::int64_t>(), run.layers[0].drops.choices);
  EXPECT_EQ(root["settings"]["placement"]["eplb"]["slots"], 12);
  EXPECT_EQ(root["settings"]["source"]["zipf"]["exponent"], 1.25);
  EXPECT_EQ(root["settings"]["source"]["zipf"]["path"], "010") << "a text that is no plain number stays a text";
  EXPECT_EQ(root["settings"]["list"][1], true);
  EXPECT_THAT(root["trust"]["times"].get<std::string>(), HasSubstr("modelled"));
}

TEST(Csv, HasOneRowALayerAndQuotesWhatMustBe) {
  const MeasuredCase c(4);
  std::ostringstream out;
  write_csv(out, run_of(c, 3));
  const std::string csv = out.str();
  EXPECT_EQ(std::count(csv.begin(), csv.end(), '\n'), 4);
  EXPECT_THAT(csv, HasSubstr("layer,dispatch_s,compute_s,combine_s,layer_s,lower_bound_s,"));
  EXPECT_EQ(csv_field(std::string("a \"b\", c")), "\"a \"\"b\"\", c\"");
  EXPECT_EQ(csv_field(std::string("plain")), "plain");
  EXPECT_EQ(csv_field(std::string("two\nlines")), "\"two\nlines\"");
  EXPECT_EQ(csv_field(0.1), "0.1");
}

TEST(Text, ShowsLayersOrTheirSpread) {
  const MeasuredCase c(4);
  std::ostringstream few, many, none;
  write_text(few, c.experiment, run_of(c, 2));
  write_text(many, c.experiment, run_of(c, 40));
  write_text(none, c.experiment, {});
  EXPECT_THAT(few.str(), HasSubstr("bottleneck"));
  EXPECT_THAT(few.str(), HasSubstr("slowest layer 3: "));
  EXPECT_THAT(few.str(), HasSubstr("how far to trust"));
  EXPECT_THAT(many.str(), HasSubstr("40 layers"));
  EXPECT_THAT(many.str(), HasSubstr("median"));
  EXPECT_THAT(none.str(), HasSubstr("no layers"));
}

TEST(Text, SaysHowFarTheExchangesOfTheSlowestLayerAreFromTheirBusiestLinks) {
  const MeasuredCase c(4);
  LayerMetrics m = c.metrics();
  m.dispatch_busiest = {"link a", 1, 1e-3, 1, 3}, m.dispatch_transfer_s = 4e-3;
  m.combine_busiest = {"link b", 1, 1e-3, 1, 1}, m.combine_transfer_s = 2e-3;
  LayerMetrics faster = m;
  faster.layer += 1, faster.layer_s /= 2, faster.dispatch_busiest.name = "link c";
  RunMetrics run;
  run.add(m), run.add(faster);
  std::ostringstream text;
  write_text(text, c.experiment, run);
  EXPECT_THAT(text.str(), HasSubstr("  dispatch: link a and 2 more busy for 1 ms, 25.0% of the 4 ms that its transfers take\n"));
  EXPECT_THAT(text.str(), HasSubstr("  combine: link b busy for 1 ms, 50.0% of the 2 ms that its transfers take\n"));
  EXPECT_THAT(text.str(), ::testing::Not(HasSubstr("link c")));
}

TEST(Matrices, KeepLayersApartAndAddThemUp) {
  const MeasuredCase c(6);
  const LayerMetrics m = c.metrics();
  Experiment two = c.experiment;
  two.layers = {3, 4};
  MatrixCollector matrices(two);
  matrices.add(m, c.run.plan.placement);
  matrices.add(m, c.run.plan.placement);
  const std::string bytes = matrices.bytes();
  EXPECT_EQ(bytes, matrices.bytes());
  auto arrays = read_npz(std::make_shared<SourceText>(SourceText{"matrices.npz", bytes}));
  const std::int64_t ranks = c.experiment.topology.ranks();
  EXPECT_EQ(arrays["dispatch_rank_bytes"].shape, (std::vector<std::int64_t>{2, ranks, ranks}));
  for (std::size_t i = 0; i < m.dispatch_rank_bytes.cells.size(); ++i) {
    EXPECT_EQ(arrays["dispatch_rank_bytes"].integers[m.dispatch_rank_bytes.cells.size() + i], m.dispatch_rank_bytes.cells[i]);
    EXPECT_EQ(arrays["dispatch_rank_bytes_total"].integers[i], 2 * m.dispatch_rank_bytes.cells[i]);
  }
  EXPECT_EQ(arrays["physical_to_logical"].shape, (std::vector<std::int64_t>{2, c.run.plan.placement.slots()}));
  EXPECT_EQ(arrays["link_bandwidth_bytes_per_s"].is_float, true);
}

}  // namespace
}  // namespace epsim
