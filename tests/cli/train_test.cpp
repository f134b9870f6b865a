// epsim train, as a user calls it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/program.h"
#include "workloads/import/routing_trace.h"

namespace epsim {
namespace {

using ::testing::HasSubstr;
using testing::bytes_of;
using testing::Outcome;
using testing::run_program;
using testing::Workspace;

constexpr const char* kSmall = R"(
text:   text.txt
model:  {layers: 2, hidden: 16, experts: 4, expert_ffn: 16, top_k: 2, shared_ffn: 8}
router: {topk: {noise: 0.5}}
losses: [balance: {coefficient: 0.01}, bias_update]
steps:  6
batch:  4
sequence: 32
evaluate_every: 3
checkpoint_every: 2
)";

struct Space : Workspace {
  Space() : Workspace("epsim_train_verb") {
    std::string text;
    for (int i = 0; text.size() < 4000; ++i) text += i * i % 7 < 3 ? "expert " : i % 2 ? "token " : "rank ";
    write("text.txt", text);
  }
  std::string out(const std::string& name) const { return (root / name).string(); }
  Outcome train(const std::string& folder, const std::vector<std::string>& more = {}, const std::string& environment = "") const {
    std::vector<std::string> arguments = {"train", out("small.yaml"), "--out", out(folder)};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run_program(arguments, environment);
  }
  const std::string file = write("small.yaml", kSmall);
};

const std::vector<std::string> kFiles = {"checkpoint.npz", "steps.csv", "experts.csv", "trace.npz", "trace.pb", "model.json", "experiment.yaml", "summary.csv", "figure.svg"};

void expect_same(const Space& space, const std::string& a, const std::string& b) {
  for (const std::string& name : kFiles) EXPECT_EQ(bytes_of(space.root / a / name), bytes_of(space.root / b / name)) << name;
}

TEST(TrainVerb, GivesTheSameBytesForAnyNumberOfThreads) {
  const Space space;
  const Outcome one = space.train("one", {}, "EPSIM_THREADS=1"), two = space.train("two", {}, "EPSIM_THREADS=2");
  EXPECT_EQ(one.status, 0) << one.err;
  EXPECT_EQ(two.status, 0) << two.err;
  EXPECT_EQ(one.out, two.out);
  expect_same(space, "one", "two");
  EXPECT_THAT(one.err, HasSubstr("step 6/6"));
}

TEST(TrainVerb, FigureSaysTheStepsThereWere) {
  const Space space;
  ASSERT_EQ(space.train("out", {"--set", "steps=2", "--set", "panels=[unused_experts, cross_entropy]"}).status, 0);
  const std::string svg = bytes_of(space.root / "out" / "figure.svg");
  for (const char* text : {"means of 2 steps", "unused experts (share)", "training loss (nats a byte)"}) EXPECT_THAT(svg, HasSubstr(text));
}

TEST(TrainVerb, DoesNotBeginAnewOverACheckpoint) {
  const Space space;
  ASSERT_EQ(space.train("out").status, 0);
  const Outcome again = space.train("out");
  EXPECT_EQ(again.status, 2);
  EXPECT_THAT(again.err, HasSubstr("--resume"));
  const Outcome other = space.train("out", {"--resume", "--set", "learning_rate=0.5"});
  EXPECT_EQ(other.status, 2);
  EXPECT_THAT(other.err, HasSubstr("checkpoint of another training"));
  const std::string before = bytes_of(space.root / "out" / "checkpoint.npz");
  EXPECT_EQ(space.train("out", {"--resume"}).status, 0);
  EXPECT_EQ(bytes_of(space.root / "out" / "checkpoint.npz"), before);
}

TEST(TrainVerb, EndsWithTwoWhereTheInputIsWrong) {
  const Space space;
  for (const auto& [set, says] : {std::pair{"stepz=3", "did you mean `steps`"}, std::pair{"model.top_k=5", "top_k"}, std::pair{"router=tokp", "did you mean `topk`"}}) {
    const Outcome r = space.train("wrong", {"--set", set});
    EXPECT_EQ(r.status, 2);
    EXPECT_THAT(r.err, HasSubstr(says));
    EXPECT_FALSE(std::filesystem::exists(space.root / "wrong"));
  }
  EXPECT_EQ(run_program({"train", space.file, "--text", space.out("none.txt")}).status, 2);
  EXPECT_THAT(run_program({"train", space.file, "--text", space.write("empty.txt", "")}).err, HasSubstr("--text:1:1: error: the text has 0 bytes"));
  EXPECT_EQ(run_program({"train", space.file, "--resume"}).status, 2);
}

TEST(TrainVerb, ItsTraceIsRead) {
  const Space space;
  ASSERT_EQ(space.train("out").status, 0);
  const std::string yaml = "model: out/model.json\ncluster: {single_switch: {ranks: 2, device: cpu}}\nsource: {trace: {file: out/trace.npz}}\n";
  const Outcome r = run_program({"run", space.write("run.yaml", yaml), "--format", "csv"});
  EXPECT_EQ(r.status, 0) << r.err;
  // The same in Protobuf.
  const Outcome same = run_program({"run", space.out("run.yaml"), "--format", "csv", "--set", "source.file=" + space.out("out/trace.pb")});
  EXPECT_EQ(same.status, 0) << same.err;
  EXPECT_EQ(same.out, r.out);
  const auto npz = read_trace(read_text(space.out("out/trace.npz"))), protobuf = read_trace(read_text(space.out("out/trace.pb")));
  ASSERT_EQ(npz.size(), 3U);
  ASSERT_EQ(protobuf.size(), 3U);
  for (const auto& [name, array] : npz) {
    const NpyArray& other = protobuf.at(name);
    EXPECT_EQ(other.shape, array.shape) << name;
    EXPECT_EQ(other.integers, array.integers) << name;
    EXPECT_EQ(other.floats, array.floats) << name;
  }
}

}  // namespace
}  // namespace epsim
