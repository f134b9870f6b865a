#include <gmock/gmock.h>
#include <nlohmann/json.hpp>

#include "tests/support/program.h"

namespace epsim {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using nlohmann::json;
using testing::run_program;

TEST(Topo, ShowsTiersAndBisection) {
  const auto o = run_program({"topo", "show", "{rail_fat_tree: {nodes: 2, ranks_per_node: 4, device: h800}}", "--format", "json", "--path", "0:5", "--path", "3:3"});
  ASSERT_EQ(o.status, 0) << o.err;
  const json j = json::parse(o.out);
  EXPECT_EQ(j["ranks"], 8);
  EXPECT_EQ(j["nodes"], 2);
  EXPECT_EQ(j["switches"], 2 + 4 + 2);
  EXPECT_EQ(j["links"], 2 * 8 + 2 * 8 + 2 * 4 * 2);
  EXPECT_EQ(j["routing"], "dmodk");
  EXPECT_EQ(j["bisection_bandwidth"], 4 * 50e9);
  ASSERT_EQ(j["tiers"].size(), 3u);
  EXPECT_EQ(j["tiers"][0]["tier"], "nvlink");
  EXPECT_EQ(j["tiers"][0]["links"], 16);
  EXPECT_EQ(j["tiers"][0]["bandwidth_sum"], 16 * 160e9);
  EXPECT_EQ(j["tiers"][1]["tier"], "rail");
  EXPECT_EQ(j["tiers"][1]["bandwidth_min"], 50e9);
  EXPECT_DOUBLE_EQ(j["tiers"][1]["latency_max_s"], 1.35e-6);
  ASSERT_EQ(j["paths"].size(), 2u);
  EXPECT_EQ(j["paths"][0]["links"].size(), 4u);
  EXPECT_EQ(j["paths"][0]["links"][0]["name"], "rank 0 -> leaf of rail 0");
  EXPECT_EQ(j["paths"][0]["links"][0]["share"], 1);
  EXPECT_DOUBLE_EQ(j["paths"][0]["latency_s"], 2 * 1.35e-6 + 2 * 0.3e-6);
  EXPECT_TRUE(j["paths"][1]["bandwidth"].is_null());
  EXPECT_EQ(j["paths"][1]["links"].size(), 0u);
}

TEST(Topo, ShowsSharesAsText) {
  const auto o = run_program({"topo", "show", "{fat_tree: {nodes: 8, device: h800, nodes_per_leaf: 4, spines: 4, routing: spread}}", "--path", "0:7"});
  ASSERT_EQ(o.status, 0) << o.err;
  EXPECT_THAT(o.out, AllOf(HasSubstr("8 ranks in 8 nodes, 6 switches, 32 directed links; device h800, routing spread"), HasSubstr("rank 0 to rank 7: 50 GB/s alone, latency 3.3 us"),
                           HasSubstr("   25.00 %"), HasSubstr("leaf 0 -> spine 3")));
}

TEST(Topo, ExportsWhatItReadsBack) {
  const testing::Workspace work("epsim_topo");
  const std::string file = (work.root / "c.graphml").string();
  const auto o = run_program({"topo", "export", "{two_tier: {nodes: 2, ranks_per_node: 2, device: h800}}", "--as", "graphml", "--out", file});
  ASSERT_EQ(o.status, 0) << o.err;
  const auto shown = [](const std::string& spec) {
    json j = json::parse(run_program({"topo", "show", spec, "--format", "json", "--path", "0:3"}).out);
    return j;
  };
  EXPECT_EQ(shown("{graphml: {file: '" + file + "', device: h800}}"), shown("{two_tier: {nodes: 2, ranks_per_node: 2, device: h800}}"));
}

TEST(Topo, AFailedExportLeavesTheFileThatWasThere) {
  const testing::Workspace work("epsim_topo");
  const std::string file = work.write("c.graphml", "before"), spec = "{single_switch: {ranks: 2, device: h800}}";
  std::filesystem::create_directory(work.root / "c.graphml.part");  // what is written first cannot be
  EXPECT_EQ(run_program({"topo", "export", spec, "--as", "graphml", "--out", file}).status, 2);
  EXPECT_EQ(testing::bytes_of(file), "before");
  std::filesystem::remove(work.root / "c.graphml.part");
  EXPECT_EQ(run_program({"topo", "export", spec, "--as", "graphml", "--out", file}).out, "wrote " + file + "\n");
}

TEST(Topo, NamesInOtherEncodingsAreReplaced) {
  const testing::Workspace work("epsim_topo");
  const std::string file = (work.root / "c.graphml").string();
  EXPECT_EQ(run_program({"topo", "export", "{single_switch: {ranks: 2, device: h800}}", "--as", "graphml", "--out", file}).status, 0);
  std::string graph = testing::bytes_of(file);
  for (std::size_t at = 0; (at = graph.find("-&gt;", at)) != std::string::npos; ++at) graph.replace(at, 5, "\xef");
  work.write("c.graphml", graph);
  const std::string spec = "{graphml: {file: '" + file + "', device: h800}}";
  const auto shown = run_program({"topo", "show", spec, "--format", "json", "--path", "0:1"});
  EXPECT_EQ(shown.status, 0) << shown.err;
  EXPECT_THAT(shown.out, HasSubstr("\xef\xbf\xbd"));
  const auto played = run_program({"alltoall", "--cluster", spec, "--matrix", work.write("m.csv", "0,1\n1,0\n"), "--format", "json"});
  EXPECT_EQ(played.status, 0) << played.err;
}

TEST(Topo, SaysWhatIsWrong) {
  const std::string spec = "{single_switch: {ranks: 2, device: h800}}";
  const auto refused = [](const std::vector<std::string>& arguments) {
    const auto o = run_program(arguments);
    EXPECT_EQ(o.status, 2);
    EXPECT_EQ(o.out, "");
    return o.err;
  };
  EXPECT_THAT(refused({"topo", "show", "{single_swich: {ranks: 2}}"}), HasSubstr("did you mean `single_switch`?"));
  EXPECT_THAT(refused({"topo", "show", spec, "--path", "0:2"}), HasSubstr("expected two ranks SOURCE:DESTINATION from 0 to 1, got `0:2`"));
  EXPECT_THAT(refused({"topo", "show", spec, "--pth", "0:1"}), HasSubstr("did you mean `--path`?"));
  EXPECT_THAT(refused({"topo", "export", spec, "--as", "dot", "--out", "x"}), HasSubstr("dot"));
  EXPECT_THAT(refused({"topo", "export", spec, "--as", "graphml", "--out", "/nowhere/x"}), HasSubstr("the file cannot be written"));
  EXPECT_THAT(refused({"topo", "export", "{single_switch: {ranks: 2, device: h800, routing: spread}}", "--as", "simgrid", "--out", "x"}), HasSubstr("SimGrid has one path a pair"));
  EXPECT_THAT(refused({"topo"}), HasSubstr("See `epsim topo --help`"));
}

}  // namespace
}  // namespace epsim
