// `epsim alltoall` with every exchange that can carry bytes.
#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "tests/support/program.h"

namespace epsim {
namespace {

using Json = nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;

class Alltoall : public ::testing::Test {
 protected:
  Alltoall() : work_("epsim_alltoall"), matrix_(work_.write("bytes.csv", "0,1000,0,3000\n0,0,0,0\n0,0,0,0\n0,500,0,0\n")) {}

  testing::Outcome outcome(const std::string& exchange, const std::string& cluster) const {
    return testing::run_program({"alltoall", "--cluster", cluster, "--matrix", matrix_, "--exchange", exchange, "--network", "ideal", "--format", "json"});
  }
  /// Four ranks on one switch, 1 GB/s a port, 10 ns a link.
  Json run(const std::string& exchange) const {
    const testing::Outcome o = outcome(exchange, "{single_switch: {ranks: 4, device: cpu, bandwidth: 1GB/s, latency: 10ns}}");
    EXPECT_EQ(o.status, 0) << exchange << ": " << o.err;
    return Json::parse(o.out);
  }

  testing::Workspace work_;
  std::string matrix_;
};

// A pair's bytes have come when their last hop has.
TEST_F(Alltoall, FlowsFinishWithTheirLastHop) {
  const double path = 20e-9;
  const Json ring = run("ring");
  // 0 -> 1 carries 4000 in step 1; 1 -> 2 and 2 -> 3 carry 3000 in steps 2 and 3. Rank 3's 500 go by way of rank 0.
  EXPECT_NEAR(ring["flow_finish_s"][0][1], 4000e-9 + path, 1e-15);
  EXPECT_NEAR(ring["flow_finish_s"][0][3], 10000e-9 + 3 * path, 1e-15);
  EXPECT_EQ(ring["flow_finish_s"][1][0], 0) << "no bytes";
  EXPECT_NEAR(ring["flow_finish_s"][3][1], 4000e-9 + path + 500e-9 + path, 1e-15) << "rank 0 begins step 2 when it has sent step 1";
  const Json bruck = run("bruck");
  // Distance 3 is bits 0 and 1: 4000 go to rank 1 together, 3000 on to rank 3. Distance 2 is one hop in round 2, which rank 3 begins at once, as it has nothing to send or receive in round 1:
  // its 500 share rank 1's port with the 4000.
  EXPECT_NEAR(bruck["flow_finish_s"][0][1], 4500e-9 + path, 1e-15);
  EXPECT_NEAR(bruck["flow_finish_s"][3][1], 4500e-9 + path, 1e-15);
  EXPECT_NEAR(bruck["flow_finish_s"][0][3], 7500e-9 + 2 * path, 1e-15);
  EXPECT_EQ(bruck["time_s"], bruck["flow_finish_s"][0][3]);
}

TEST_F(Alltoall, NoExchangeBeatsItsBoundOrLosesBytes) {
  for (const char* exchange : {"direct", "pairwise", "spread_out", "{spread_out: {window: 1}}", "ring", "bruck", "hierarchical", "hierarchical_2d", "low_latency", "one_sided_nvlink"}) {
    const Json out = run(exchange);
    EXPECT_GE(out["time_s"].get<double>(), out["lower_bound_s"].get<double>()) << exchange;
    for (const auto& [s, d] : {std::pair(0, 1), {0, 3}, {3, 1}}) EXPECT_GT(out["flow_finish_s"][s][d].get<double>(), 0) << exchange;
  }
}

// A star without latency that carries the same between all pairs: nothing rests, and all links are to blame.
TEST_F(Alltoall, SaysWhatHoldsItBack) {
  const std::vector<std::string> verb = {"alltoall", "--cluster", "{single_switch: {ranks: 4, device: cpu, bandwidth: 1GB/s, latency: 0ns}}", "--bins", "4", "--matrix"};
  const auto with = [&](const std::string& matrix, const std::vector<std::string>& more) {
    std::vector<std::string> arguments = verb;
    arguments.push_back(work_.write("m.csv", matrix));
    arguments.insert(arguments.end(), more.begin(), more.end());
    const testing::Outcome o = testing::run_program(arguments);
    EXPECT_EQ(o.status, 0) << o.err;
    return o.out;
  };
  const std::string even = "0,1000,1000,1000\n1000,0,1000,1000\n1000,1000,0,1000\n1000,1000,1000,0\n";
  const Json all = Json::parse(with(even, {"--format", "json"}));
  EXPECT_NEAR(all["busiest_link_s"].get<double>(), 3000e-9, 1e-18);
  EXPECT_NEAR(all["efficiency"].get<double>(), 1, 1e-6);
  EXPECT_EQ(all["bottleneck_links"].size(), 8U);
  for (const Json& link : all["links"]) {
    ASSERT_EQ(link["utilisation_over_time"].size(), 4U);
    for (const Json& share : link["utilisation_over_time"]) EXPECT_NEAR(share.get<double>(), 1, 1e-6);
  }
  EXPECT_THAT(with(even, {}), AllOf(HasSubstr("100.0 % of the time"), HasSubstr(" and 5 more of tier nvlink\n"), HasSubstr("nvlink  |████|     100.0 %  100.0 %\n")));
  // Rank 0 sends 3000 bytes to rank 1 beside 1000 to rank 2: its port is busy 4 us, at half a byte a nanosecond for each until 2 us.
  const Json uneven = Json::parse(with("0,3000,1000,0\n0,0,0,0\n0,0,0,0\n0,0,0,0\n", {"--format", "json"}));
  EXPECT_EQ(uneven["bottleneck_links"], Json({uneven["links"][0]["name"]}));
  EXPECT_NEAR(uneven["links"][0]["utilisation"].get<double>(), 1, 1e-6);
  // 3000 bytes spread over 4 us and 1000 over 2: an estimate, which reads 1.25 and 0.75 for what is 1.
  EXPECT_NEAR(uneven["links"][0]["utilisation_over_time"][0].get<double>(), 1.25, 1e-6);
  EXPECT_NEAR(uneven["links"][0]["utilisation_over_time"][3].get<double>(), 0.75, 1e-6);
  EXPECT_THAT(with("0,0,0,0\n0,0,0,0\n0,0,0,0\n0,0,0,0\n", {}), HasSubstr("no bytes cross a link"));
}

TEST_F(Alltoall, PartsAreNoFilesOfTheWorkingFolder) {
  for (const char* folder : {"direct", "fair", "single_switch"}) std::filesystem::create_directory(work_.root / folder);
  work_.write("cluster.yaml", "single_switch: {ranks: 4, device: cpu}");
  const std::string here = "cd '" + work_.root.string() + "' &&";
  for (const char* cluster : {"{single_switch: {ranks: 4, device: cpu}}", "cluster.yaml", "./cluster.yaml"}) {
    const testing::Outcome o = testing::run_program({"alltoall", "--cluster", cluster, "--matrix", matrix_}, here);
    EXPECT_EQ(o.status, 0) << o.err;
  }
  EXPECT_THAT(testing::run_program({"topo", "show", "single_switch"}, here).err, HasSubstr("needs `ranks`"));
}

// I11
TEST_F(Alltoall, SaysWhichExchangesCannotCarryBytes) {
  const std::string cluster = "{single_switch: {ranks: 4, device: cpu}}";
  const testing::Outcome gather = outcome("allgather_reducescatter", cluster);
  EXPECT_EQ(gather.status, 2);
  EXPECT_THAT(gather.err, AllOf(HasSubstr("needs tokens"), HasSubstr("`bruck`, `direct`")));
  EXPECT_THAT(outcome("pairwize", cluster).err, HasSubstr("did you mean `pairwise`?"));
  EXPECT_THAT(outcome("{ring: {widow: 2}}", cluster).err, HasSubstr("widow"));
  EXPECT_THAT(outcome("{direct: {chunks: 8, dedup: rank}}", cluster).err,
              AllOf(HasSubstr("--exchange:1:11: error: `chunks` is about tokens: it has no effect on a matrix of bytes"), HasSubstr("`dedup` is about tokens")));
  EXPECT_THAT(outcome("one_sided_nvlink", "{two_tier: {nodes: 2, ranks_per_node: 2, device: h100}}").err, HasSubstr("the cluster has 2 nodes"));
}

TEST(Compare, TakesEveryExchange) {
  const std::vector<std::string> exchanges = {"direct", "pairwise", "spread_out", "ring", "bruck", "hierarchical_2d", "hierarchical", "low_latency", "one_sided_nvlink", "allgather_reducescatter", "{hierarchical: {chunks: 3}}"};
  std::string over = "exchange=";
  for (const std::string& e : exchanges) over += (over.back() == '=' ? "" : ",") + e;
  const testing::Outcome o = testing::run_program({"compare", std::string(EPSIM_SOURCE_DIR) + "/examples/execute.yaml", "--set", "cluster.nodes=1", "--set", "cluster.ranks_per_node=8", "--over", over, "--format", "json"});
  ASSERT_EQ(o.status, 0) << o.err;
  const Json points = Json::parse(o.out)["points"];
  ASSERT_EQ(points.size(), exchanges.size());
  for (const Json& p : points) {
    EXPECT_GT(p["total_s"].get<double>(), 0);
    EXPECT_GE(p["total_s"].get<double>(), p["lower_bound_s"].get<double>());
  }
}

}  // namespace
}  // namespace epsim
