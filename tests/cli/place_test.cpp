#include <gmock/gmock.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "cli/cli.h"
#include "tests/support/part_from_yaml.h"
#include "workloads/import/load_dump.h"

namespace epsim {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::input_error;

LoadDump read(const std::string& json) { return read_load_dump(std::make_shared<SourceText>(SourceText{"loads.json", json})); }

TEST(LoadDump, ReadsLayersOfCounts) {
  const LoadDump c = read(R"({"model": {"logical_count": 1}, "layers": [3, 9], "logical_count": [[1, 2.0], [0, 1e3]], "note": [[["x"]]]})");
  EXPECT_THAT(c.logical_count, ElementsAre(ElementsAre(1, 2), ElementsAre(0, 1000)));
  EXPECT_THAT(c.layers, ElementsAre(3, 9));
  EXPECT_THAT(read(R"({"logical_count": [[5], [6]]})").layers, ::testing::IsEmpty());
}

TEST(LoadDump, SaysWhereTheFileIsWrong) {
  const auto error = [](const std::string& json) { return input_error([&] { read(json); }); };
  EXPECT_THAT(error("{\"logical_count\":\n [[1, -2]]}"), HasSubstr("loads.json:2:7: error: a count must be a whole number from 0 to 2^53, got -2"));
  EXPECT_THAT(error("{\"logical_count\": [[1, 2.5]]}"), HasSubstr("loads.json:1:24: error: a count must be a whole number"));
  EXPECT_THAT(error("{\"logical_count\": [[1, \"ab\"]]}"),
              HasSubstr("loads.json:1:24: error: `logical_count` must be [[layer][expert]] of counts, found a text"));
  EXPECT_THAT(error("{\"logical_count\": [[1, 2],\n[3]]}"), HasSubstr("loads.json:2:1: error: this layer of `logical_count` has 1 experts, the first has 2"));
  EXPECT_THAT(error("{\"logical_count\": [1, 2]}"),
              HasSubstr("loads.json:1:20: error: `logical_count` must be [[layer][expert]]: one list of counts for each layer"));
  EXPECT_THAT(error("{\"logical_count\": [[[1, 2]]]}"),
              HasSubstr("loads.json:1:21: error: `logical_count` must be [[layer][expert]]; a dump with a list for each step"));
  EXPECT_THAT(error("{\"logical_count\": []}"), HasSubstr("loads.json:1:2: error: `logical_count` has no layers"));
  EXPECT_THAT(error("{\"logical_count\": [[]]}"), HasSubstr("has no experts"));
  EXPECT_THAT(error("{\"logical_count\": [[1]], \"layers\": [1, 2]}"), HasSubstr("loads.json:1:26: error: `layers` names 2 layers, but `logical_count` has 1"));
  EXPECT_THAT(error("{\"weight\": [[1]]}"),
              HasSubstr("loads.json:1:2: error: the loads are expected as `logical_count` [[layer][expert]], `weight` is not read"));
  EXPECT_THAT(error("{\"logical_counts\": [[1]]}"), HasSubstr("has no key `logical_count` [[layer][expert]], did you mean `logical_counts`?"));
  EXPECT_THAT(error("{\"logical_count\": [[1]], \"logical_count\": [[1]]}"), HasSubstr("loads.json:1:26: error: `logical_count` is given twice"));
  EXPECT_THAT(error("[[1]]"), HasSubstr("loads.json:1:1: error: expected an object with the key `logical_count`, found a list"));
  EXPECT_THAT(error("{\"logical_count\": [[1,\n2}"), HasSubstr("loads.json:2:2: error: is no JSON: syntax error"));
  EXPECT_THAT(error(""), HasSubstr("is no JSON"));
}

class PlaceVerb : public ::testing::Test {
 protected:
  PlaceVerb() : path_(::testing::TempDir() + "place_test_loads_" + std::to_string(getpid()) + ".json") {
    std::ofstream(path_)
        << R"({"logical_count": [[90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86], [20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27]]})";
  }
  ~PlaceVerb() override { std::filesystem::remove(path_); }

  /// What `epsim place --loads FILE ARGUMENTS` prints.
  std::string place(const std::string& arguments) const {
    const Catalogs catalogs{ClusterCatalog("cluster"),   SourceCatalog("source"),   RouterCatalog("router"),
                            CapacityCatalog("capacity"), builtin_placements(),      ReplicaCatalog("replica"),
                            SharedExpertCatalog("shared_expert"), ExchangeCatalog("exchange"), NetworkCatalog("network"), ComputeCatalog("compute")};
    CLI::App app;
    int result = -1;
    verb::place(app, catalogs, result);
    ::testing::internal::CaptureStdout();
    try {
      app.parse("place --loads " + path_ + " " + arguments);
    } catch (...) {
      EXPECT_EQ(::testing::internal::GetCapturedStdout(), "") << "nothing is half printed";
      throw;
    }
    EXPECT_EQ(result, kOk);
    return ::testing::internal::GetCapturedStdout();
  }

  std::string path_;
};

TEST_F(PlaceVerb, PrintsEplbsTables) {
  const auto j = nlohmann::json::parse(place("--slots 16 --ranks 8 --nodes 2 --groups 4 --policy eplb --format json"));
  EXPECT_EQ(j["physical_to_logical"], nlohmann::json::parse("[[5,6,5,7,8,4,3,4,10,9,10,2,0,1,11,1],[7,10,6,8,6,11,8,9,2,4,5,1,5,0,3,1]]"));
  EXPECT_EQ(j["logical_count"][0], nlohmann::json::parse("[1,2,1,1,2,2,1,1,1,1,2,1]"));
  EXPECT_EQ(j["logical_to_physical"][0][5], nlohmann::json::parse("[0,2]"));
  EXPECT_EQ(j["logical_to_physical"][0][0], nlohmann::json::parse("[12,-1]")) << "padded to the largest number of replicas";
  EXPECT_EQ(j["first_slot"][1], nlohmann::json::parse("[0,2,4,6,8,10,12,14,16]"));
  const nlohmann::json& m = j["metrics"][0];
  EXPECT_EQ(m["layer"], 0);
  EXPECT_DOUBLE_EQ(m["max_over_mean"], 156.0 / 129.125);
  EXPECT_DOUBLE_EQ(m["max_minus_mean_over_mean"], (156.0 - 129.125) / 129.125);
  EXPECT_DOUBLE_EQ(m["mean_over_max"], 129.125 / 156.0);
  EXPECT_DOUBLE_EQ(m["max_plus_1_over_min_plus_1"], 157.0 / 87.5);
  EXPECT_DOUBLE_EQ(m["max_minus_min_over_tokens"], 69.5 / 1033.0);
  double squares = 0;
  for (const double load : {121.5, 86.5, 125.0, 113.0, 147.5, 131.5, 156.0, 152.0}) squares += (load - 129.125) * (load - 129.125);
  EXPECT_DOUBLE_EQ(m["std_over_mean"], std::sqrt(squares / 8) / 129.125);
}

TEST_F(PlaceVerb, PrintsATable) {
  const std::string text = place("--slots 12 --ranks 4 --nodes 1 --policy contiguous");
  EXPECT_THAT(text, HasSubstr("12 slots on 4 ranks by contiguous"));
  EXPECT_THAT(text, HasSubstr("(max-mean)/mean"));
  EXPECT_THAT(place("--slots 12 --ranks 1 --nodes 1 --policy contiguous"), HasSubstr("12 slots on 1 rank by contiguous"));
}

TEST_F(PlaceVerb, TakesThePolicysSettings) {
  const std::string sizes = " --ranks 8 --nodes 2 --format json --policy ";
  EXPECT_EQ(place(sizes + "\"{eplb: {slots: 16, groups: 4}}\""), place("--slots 16 --groups 4" + sizes + "eplb"));
  EXPECT_EQ(place("--groups 4" + sizes + "\"{eplb: {slots: 16}}\""), place("--slots 16 --groups 4" + sizes + "eplb"));
  EXPECT_THAT(input_error([&] { place("--slots 16" + sizes + "\"{eplb: {slots: 16}}\""); }), HasSubstr("--policy:1:16: error: `slots` is given as --slots as well"));
  EXPECT_THAT(input_error([&] { place(sizes + "\"{eplb: {slot: 16}}\""); }), HasSubstr("did you mean `slots`?"));
}

TEST_F(PlaceVerb, TakesThePolicysOwnSlots) {
  EXPECT_THAT(place("--ranks 8 --nodes 2 --policy eplb"), HasSubstr("24 slots on 8 ranks by eplb")) << "12 experts rounded up to 16, and 8 more";
  EXPECT_THAT(place("--ranks 8 --nodes 2 --policy force_balanced"), HasSubstr("96 slots on 8 ranks by force_balanced"));
}

TEST_F(PlaceVerb, UsesTheSeed) {
  const std::string arguments = "--slots 16 --ranks 8 --nodes 2 --policy random --format json --seed ";
  EXPECT_EQ(place(arguments + "1"), place(arguments + "1"));
  EXPECT_NE(place(arguments + "1"), place(arguments + "2"));
}

// I11
TEST_F(PlaceVerb, SaysWhichOptionIsWrong) {
  const auto error = [&](const std::string& arguments) { return input_error([&] { place(arguments); }); };
  EXPECT_THAT(error("--slots 11 --ranks 8 --nodes 2 --policy contiguous"), HasSubstr("--slots:1:1: error: 11 slots are fewer than the 12 experts"));
  EXPECT_THAT(error("--slots 17 --ranks 8 --nodes 2 --policy eplb"), HasSubstr("--slots:1:1: error: 17 slots do not divide by 8 ranks"));
  EXPECT_THAT(error("--slots x --ranks 8 --nodes 2 --policy eplb"), HasSubstr("--slots:1:1: error: `slots` must be an integer from 1"));
  EXPECT_THAT(error("--slots 16 --ranks 8 --nodes 2 --groups 5 --policy eplb"), HasSubstr("--groups:1:1: error: 12 experts do not divide into 5 groups"));
  EXPECT_THAT(error("--slots 16 --ranks 8 --nodes 2 --groups 4 --policy contiguous"),
              HasSubstr("--groups:1:1: error: placement `contiguous` has no setting `groups`"));
  EXPECT_THAT(error("--slots 16 --ranks 8 --nodes 2 --policy elpb"), HasSubstr("--policy:1:1: error: there is no placement `elpb`, did you mean `eplb`?"));
  EXPECT_THAT(error("--slots 16 --ranks 8 --nodes 9 --policy eplb"), HasSubstr("--nodes:1:1: error: 8 ranks are on 1 to 8 nodes, got 9"));
  EXPECT_THAT(error("--slots 16 --ranks 1 --nodes 2 --policy eplb"), HasSubstr("--nodes:1:1: error: 1 rank is on 1 node, got 2"));
  EXPECT_THAT(error("--ranks 8 --nodes 2 --policy cooccurrence"), HasSubstr("--policy:1:1: error: `cooccurrence` places by the choices of single tokens"));
  EXPECT_THAT(error("--ranks 8 --nodes 2 --policy topology_aware"), HasSubstr("--policy:1:1: error: `topology_aware` places by the links of the machine"));
  const std::string two = error("--slots 16 --ranks 0 --nodes 2 --policy elpb");
  EXPECT_THAT(two, HasSubstr("--ranks:1:1: error: there must be from 1 to 65536 ranks, got 0"));
  EXPECT_THAT(two, HasSubstr("there is no placement `elpb`")) << "all problems in one pass";
}

}  // namespace
}  // namespace epsim
