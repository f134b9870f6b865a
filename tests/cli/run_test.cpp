// epsim run, as a user calls it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "tests/support/program.h"

namespace epsim {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using Json = nlohmann::json;
using testing::bytes_of;
using testing::Outcome;
using testing::run_program;
using testing::Workspace;

constexpr const char* kConfig = R"({"model_type": "qwen3_moe", "hidden_size": 64, "moe_intermediate_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2,
  "num_experts": 8, "num_experts_per_tok": 2, "vocab_size": 100})";
constexpr const char* kFile = R"(
model:     config.json
cluster:   {single_switch: {ranks: 4, device: h800}}
source:    {zipf: {tokens_per_rank: 64}}
placement: {given: {file: place.json}}
)";
constexpr const char* kPlacement = R"({"physical_to_logical": [[7, 6, 5, 4, 3, 2, 1, 0], [0, 1, 2, 3, 4, 5, 6, 7]]})";

struct Space : Workspace {
  Space() : Workspace("epsim_run_verb") { write("config.json", kConfig), write("place.json", kPlacement), write("exp.yaml", kFile); }
  std::string at(const std::string& name) const { return (root / name).string(); }
};

TEST(RunVerb, TheSavedExperimentRunsAgain) {
  const Space space;
  const Outcome first = run_program({"run", "exp.yaml", "--out", "deep/out"}, "cd '" + space.root.string() + "';");
  ASSERT_EQ(first.status, 0) << first.err;
  const std::string saved = bytes_of(space.root / "deep/out/experiment.yaml");
  EXPECT_THAT(saved, HasSubstr("model: ../../config.json\n"));
  EXPECT_THAT(saved, HasSubstr("file: ../../place.json"));
  const Outcome again = run_program({"run", space.at("deep/out/experiment.yaml"), "--out", space.at("again")});
  ASSERT_EQ(again.status, 0) << again.err;
  EXPECT_EQ(bytes_of(space.root / "again/metrics.csv"), bytes_of(space.root / "deep/out/metrics.csv"));
  EXPECT_EQ(bytes_of(space.root / "again/matrices.npz"), bytes_of(space.root / "deep/out/matrices.npz"));
}

TEST(RunVerb, AModelHasOneNameWhateverTheWorkingFolder) {
  const Space space;
  const Outcome inside = run_program({"run", "exp.yaml", "--format", "json"}, "cd '" + space.root.string() + "';"), outside = run_program({"run", space.at("exp.yaml"), "--format", "json"});
  EXPECT_EQ(Json::parse(inside.out).at("model"), space.root.filename().string());
  EXPECT_EQ(Json::parse(outside.out).at("model"), space.root.filename().string());
}

TEST(RunVerb, SaysWhereAModelDoesNotFit) {
  const Space space;
  EXPECT_THAT(run_program({"run", space.at("exp.yaml")}).out, Not(HasSubstr("does not fit")));
  const std::string large = "model: deepseek-v3\nlayers: 3-60\ncluster: {single_switch: {ranks: 1, device: h800}}\nsource: {zipf: {tokens_per_rank: 1}}\n";
  const Outcome r = run_program({"run", space.write("large.yaml", large)});
  EXPECT_EQ(r.status, 0) << r.err;
  EXPECT_THAT(r.out, HasSubstr(", of 80 GB that h800 has: does not fit\n"));
}

// A limit on the size of files stands for a full disk.
TEST(RunVerb, SaysWhyAFileCannotBeWrittenAndPrintsWhatItFound) {
  const Space space;
  const Outcome r = run_program({"run", space.at("exp.yaml"), "--out", space.at("out")}, "ulimit -f 8; trap '' XFSZ;");
  EXPECT_EQ(r.status, 1);
  EXPECT_THAT(r.out, HasSubstr("how far to trust these figures"));
  EXPECT_THAT(r.err, HasSubstr(space.at("out")));
  EXPECT_THAT(r.err, HasSubstr("cannot be written: File too large"));
  EXPECT_FALSE(std::filesystem::exists(space.root / "out"));
}

TEST(RunVerb, SaysWhatTheFiguresOfAnEventAreOf) {
  const std::string file = std::string(EPSIM_SOURCE_DIR) + "/examples/failure.yaml", line = "  moved, restored, waited: all of the batch, whatever for; ordinary rebalancing";
  EXPECT_THAT(run_program({"run", file, "--set", "network=ideal"}).out, HasSubstr(line));
  EXPECT_THAT(run_program({"run", file, "--set", "network=ideal", "--set", "events=[]"}).out, ::testing::Not(HasSubstr(line)));
}

TEST(ExecuteVerb, SaysWhichBatchItRuns) {
  // MPI must not look for a network in a sandbox, nor refuse root.
  const auto said = [](std::vector<std::string> more) {
    more.insert(more.begin(), {"execute", std::string(EPSIM_SOURCE_DIR) + "/examples/execute.yaml"});
    const testing::Outcome o = run_program(more, "OMPI_MCA_ess_singleton_isolated=1 OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1");
    EXPECT_EQ(o.status, 0) << o.err;
    return o.err;
  };
  EXPECT_THAT(said({"--set", "batches=4", "--set", "fit=0:1"}), HasSubstr("note: one batch is executed, batch 1 of 1 to 3; `eval` takes another, such as --set eval=2:3\n"));
  EXPECT_THAT(said({"--set", "batches=4", "--set", "eval=2:3"}), ::testing::Not(HasSubstr("one batch")));
}

TEST(ListVerb, SaysWhoUsesTheCopiesOfGrace) {
  EXPECT_THAT(run_program({"list", "placement"}).out, HasSubstr("those that its own tokens choose most; `replica: nearest` has its own tokens use them, with `round_robin` anyone's do"));
}

}  // namespace
}  // namespace epsim
