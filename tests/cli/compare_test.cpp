// `epsim compare`: what it says beside its figures, and when it fails.
#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "tests/support/program.h"

namespace epsim {
namespace {

using Json = nlohmann::json;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::Outcome;
using testing::run_program;

const std::string kExamples = std::string(EPSIM_SOURCE_DIR) + "/examples/";

TEST(CompareVerb, FailsWhereAMoveNeverPays) {
  const std::vector<std::string> arguments = {"compare", kExamples + "migration.yaml", "--set", "batches=4", "--set", "layers=0", "--set", "rebalance.every=2", "--over", "placement={eplb: {slots: 48}},{flashlb: {slots: 48}}", "--format", "json", "--fail-above", "break_even_batches=1e9"};
  const Outcome run = run_program(arguments);
  int never = 0;
  const Json points = Json::parse(run.out).at("points");
  for (const Json& point : points) never += point.at("break_even_batches") == "never";
  ASSERT_GE(never, 1) << "the case does not say what it should";
  EXPECT_EQ(run.status, 1);
  EXPECT_THAT(run.err, HasSubstr("break_even_batches is never at {eplb: {slots: 48}}, above 1000000000"));
}

Outcome compare(const std::string& experiment, std::vector<std::string> more) {
  more.insert(more.begin(), {"compare", kExamples + experiment, "--set", "layers=0", "--set", "network=ideal"});
  return run_program(more);
}

TEST(CompareVerb, SaysWhereThereIsNothingToFail) {
  const Outcome run = compare("execute.yaml", {"--over", "placement.slots=16,24", "--fail-above", "break_even_batches=1", "--fail-above", "bytes=1e15"});
  EXPECT_EQ(run.status, 0);
  for (const char* point : {"16", "24"}) EXPECT_THAT(run.err, HasSubstr(std::string("note: break_even_batches has no value at ") + point + ": --fail-above did not check it there\n"));
  EXPECT_THAT(run.err, Not(HasSubstr("note: bytes")));
}

TEST(CompareVerb, SaysThatPlacementsFillDifferentNumbersOfSlots) {
  const Json points = Json::parse(compare("execute.yaml", {"--over", "placement=contiguous,{eplb: {slots: 24}}", "--format", "json"}).out).at("points");
  EXPECT_EQ(points.at(0).at("slots"), 16);
  EXPECT_EQ(points.at(1).at("slots"), 24);
}

TEST(CompareVerb, CountsNoSeedTwiceWhereNothingIsDrawn) {
  const std::vector<std::string> over = {"--set", "batches=4", "--over", "placement=contiguous,eplb"};
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.end(), over.begin(), over.end());
    return compare("trained.yaml", more);
  };
  const Json one = Json::parse(with({"--format", "json"}).out), five = Json::parse(with({"--seeds", "5", "--format", "json"}).out);
  EXPECT_EQ(five.at("seeds"), 1);
  EXPECT_EQ(five.at("repeated_seeds"), 4);
  EXPECT_EQ(one.at("points"), five.at("points"));
  EXPECT_THAT(with({"--seeds", "5"}).out, HasSubstr("seeds: 4 of 5 gave the same times"));
  const Outcome drawn = run_program({"compare", kExamples + "deepseek-v3.yaml", "--set", "layers=3", "--set", "network=ideal", "--set", "source.tokens_per_rank=16", "--seeds", "2", "--over", "placement=contiguous,eplb", "--format", "json"});
  ASSERT_EQ(drawn.status, 0) << drawn.err;
  EXPECT_EQ(Json::parse(drawn.out).at("seeds"), 2);
}

TEST(CompareVerb, SaysOfThePointsOnlyWhatHoldsForAll) {
  const auto first_line = [](const Outcome& run) { return run.out.substr(0, run.out.find('\n')); };
  EXPECT_EQ(first_line(compare("execute.yaml", {"--over", "placement.slots=16,24"})), "execute: tiny-moe on 8 ranks in 2 nodes of cpu, 1 layer, seed 42");
  EXPECT_EQ(first_line(compare("execute.yaml", {"--over", "cluster.ranks_per_node=2,4"})), "execute: tiny-moe on 2 nodes of cpu, 1 layer, seed 42");
  EXPECT_EQ(first_line(compare("execute.yaml", {"--set", "cluster={single_switch: {ranks: 1, device: cpu}}", "--over", "placement=contiguous,random"})), "execute: tiny-moe on 1 rank in 1 node of cpu, 1 layer, seed 42");
  EXPECT_EQ(first_line(compare("execute.yaml", {"--over", "cluster.nodes=1,2"})), "execute: tiny-moe on cpu, 1 layer, seed 42");
  EXPECT_EQ(first_line(compare("shared_expert.yaml", {"--set", "source.tokens_per_rank=16", "--over", "model=" + kExamples + "models/shared-1.json," + kExamples + "models/shared-2.json", "--over", "seed=1,2"})), "shared_expert: 8 ranks in 1 node of h200, 1 layer, means of 4 batches");
}

TEST(CompareVerb, PointsAtTheOptionThatWasTyped) {
  const testing::Workspace space("epsim_compare");
  const std::string file = space.write("x.yaml", "model: mixtral-8x7b\nlayers: [0]\ncluster: {single_switch: {ranks: 4, device: h800}}\nsource: {zipf: {tokens_per_rank: 8, exponent: 1}}\nnetwork: ideal\nexchange: direct\n");
  const auto said = [&](const char* verb, std::vector<std::string> more) {
    more.insert(more.begin(), {verb, file});
    return testing::run_program(more).err;
  };
  for (const char* verb : {"run", "compare"}) {
    std::vector<std::string> wrong = {"--fit", "0:90", "--eval", "3:x"};
    if (std::string(verb) == "compare") wrong.insert(wrong.end(), {"--over", "seed=1,2"});
    EXPECT_THAT(said(verb, wrong), ::testing::AllOf(HasSubstr("--fit:1:1: error: `0:90` is no range"), HasSubstr("--eval:1:1: error: `3:x` is no range"), HasSubstr("2 problems"))) << verb;
  }
  EXPECT_THAT(said("compare", {"--over", "placement=[contiguous,eplb]"}), HasSubstr("without brackets around all"));
  EXPECT_THAT(said("compare", {"--over", "placement=contiguous,eplb", "--fail-above", "bottleneck=1"}), HasSubstr("--fail-above:1:1: error: `bottleneck` is words"));
  EXPECT_THAT(said("run", {"--fit", "0:3", "--eval", "2:5"}), HasSubstr("note: batch 2 is both in `fit` and in `eval`"));
  EXPECT_EQ(said("run", {"--fit", "0:3", "--eval", "3:5"}), "");
}

TEST(CompareVerb, SaysWhichPointsDoNotFit) {
  const testing::Workspace space("epsim_compare_verb");
  const std::string file = space.write("large.yaml", "model: deepseek-v3\nlayers: 3-60\ncluster: {single_switch: {ranks: 8, device: h800}}\nsource: {zipf: {tokens_per_rank: 1}}\nnetwork: ideal\n");
  const Outcome some = run_program({"compare", file, "--over", "cluster.ranks=8,16"}), all = run_program({"compare", file, "--over", "cluster.ranks=4,8"}), none = run_program({"compare", file, "--over", "cluster.ranks=16,32"});
  EXPECT_THAT(some.out, HasSubstr("do not fit into the memory of a rank's device at 8\n"));
  EXPECT_THAT(all.out, HasSubstr("do not fit into the memory of a rank's device at any point\n"));
  EXPECT_EQ(none.status, 0) << none.err;
  EXPECT_THAT(none.out, Not(HasSubstr("do not fit")));
}

}  // namespace
}  // namespace epsim
