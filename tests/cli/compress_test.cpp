// epsim compress, as a user calls it: train, compress, simulate.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/support/program.h"

namespace epsim {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;
using Json = nlohmann::json;
using testing::bytes_of;
using testing::Outcome;
using testing::run_program;
using testing::Workspace;

constexpr const char* kSmall = R"(
model:  {layers: 2, hidden: 16, experts: 4, expert_ffn: 16, top_k: 2}
steps:  4
batch:  4
sequence: 32
trace_tokens: 256
)";

/// A small model that was trained once for all tests.
struct Trained : Workspace {
  Trained() : Workspace("epsim_compress_verb") {
    std::string bytes;
    for (int i = 0; bytes.size() < 4000; ++i) bytes += i * i % 7 < 3 ? "expert " : i % 2 ? "token " : "rank ";
    text = write("text.txt", bytes);
    const Outcome r = run_program({"train", write("small.yaml", kSmall), "--text", text, "--out", out("trained")});
    EXPECT_EQ(r.status, 0) << r.err;
  }
  std::string out(const std::string& name) const { return (root / name).string(); }
  Outcome compress(const std::vector<std::string>& more, const std::string& environment = "") const {
    std::vector<std::string> arguments = {"compress", out("trained"), "--text", text, "--batches", "2"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run_program(arguments, environment);
  }
  /// Simulates the trained model on two ranks, seen through a compression.
  Json run(const std::string& trace, const std::string& compression) const {
    const std::string yaml = "model: trained/model.json\ncluster: {single_switch: {ranks: 2, device: cpu}}\nsource: {trace: {file: " + trace + "}}\n" + (compression.empty() ? "" : "compression: " + compression + "\n");
    const Outcome r = run_program({"run", write("run.yaml", yaml), "--format", "json"});
    EXPECT_EQ(r.status, 0) << r.err;
    return Json::parse(r.out);
  }
  std::string text;
};

const Trained& trained() {
  static const Trained once;
  return once;
}

// I5
TEST(CompressVerb, GivesTheSameBytesForAnyNumberOfThreads) {
  const Trained& t = trained();
  const Outcome one = t.compress({"--keep", "3,2", "--out", t.out("one")}, "EPSIM_THREADS=1"), two = t.compress({"--keep", "3,2", "--out", t.out("two")}, "EPSIM_THREADS=2");
  EXPECT_EQ(one.status, 0) << one.err;
  EXPECT_EQ(two.status, 0) << two.err;
  EXPECT_EQ(one.out, two.out);
  int files = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(t.root / "one")) {
    if (!entry.is_regular_file()) continue;
    EXPECT_EQ(bytes_of(entry.path()), bytes_of(t.root / "two" / std::filesystem::relative(entry.path(), t.root / "one"))) << entry.path();
    ++files;
  }
  EXPECT_EQ(files, 2 + 2 * (1 + 4 * 2 + 1));  // a table and a figure; a map and a trace of the model as it is, of four methods that keep 3 and 2, and of skipping
}

TEST(CompressVerb, FigureShowsEveryMethodWhereItWasMeasured) {
  const Trained& t = trained();
  ASSERT_EQ(t.compress({"--method", "reap", "--method", "skip_second", "--keep", "3,2", "--out", t.out("figure")}).status, 0);
  const std::string svg = bytes_of(t.root / "figure/figure.svg");
  for (const char* text : {">reap<", ">skip_second<", ">2<", ">3<", ">4<", "(nats a byte)", "(share of its length)"}) EXPECT_THAT(svg, HasSubstr(text));
}

TEST(CompressVerb, TakesAFolderOfTrainAsItIs) {
  const Trained& t = trained();
  const Outcome r = run_program({"compress", t.out("trained"), "--method", "reap", "--keep", "2", "--batches", "2"});
  EXPECT_EQ(r.status, 0) << r.err;
}

TEST(CompressVerb, ClosesTheCycleWithTheSimulation) {
  const Trained& t = trained();
  ASSERT_EQ(t.compress({"--method", "reap", "--method", "frequency_merge", "--keep", "2", "--out", t.out("cycle")}).status, 0);
  EXPECT_THAT(bytes_of(t.root / "cycle/compress.csv"), StartsWith("method,experts,parameters,held_out_loss,error,error0,error1,imbalance,choices\nnone,4,"));
  const Json whole = t.run("trained/trace.npz", ""), again = t.run("cycle/none/trace.npz", "{given: {file: cycle/none/compression.json}}");
  const Json pruned = t.run("cycle/reap-2/trace.npz", "{given: {file: cycle/reap-2/compression.json}}");
  const Json merged = t.run("cycle/frequency_merge-2/trace.npz", "{given: {file: cycle/frequency_merge-2/compression.json}}");
  EXPECT_EQ(again["total_s"], whole["total_s"]);
  for (std::size_t l = 0; l < 2; ++l) {
    EXPECT_EQ(pruned["layers"][l]["choices"], 256 * 2);  // each token found two others
    EXPECT_LE(merged["layers"][l]["choices"], 256 * 2);
    EXPECT_GE(merged["layers"][l]["choices"], 256);
    const auto weights = [l](const Json& run) { return run["layers"][l]["max_rank_weights_bytes"].get<double>(); };
    EXPECT_EQ(weights(pruned), weights(whole) / 2);
    EXPECT_EQ(weights(merged), weights(whole) / 2);
  }
  // Comparing by the original's trace: points that differ in the compression alone do not share their choices.
  const Outcome compared = run_program({"compare", t.write("compare.yaml", "model: trained/model.json\ncluster: {single_switch: {ranks: 2, device: cpu}}\nsource: {trace: {file: trained/trace.npz}}\n"), "--over",
                                        "compression=none,{frequency_merge: {keep: 2}}", "--format", "json"});
  EXPECT_EQ(compared.status, 0) << compared.err;
  const Json points = Json::parse(compared.out)["points"];
  EXPECT_EQ(points[0]["max_rank_weights_bytes"].get<double>(), 2 * points[1]["max_rank_weights_bytes"].get<double>());
}

// I11
TEST(CompressVerb, LeavesOutMethodsThatAreNotForTheModelUnlessTheyAreAskedFor) {
  const Trained& t = trained();
  const std::string one = t.out("one");
  ASSERT_EQ(run_program({"train", t.root / "small.yaml", "--set", "model.top_k=1", "--text", t.text, "--out", one}).status, 0);
  const Outcome all = run_program({"compress", one, "--text", t.text, "--batches", "2", "--keep", "2"});
  EXPECT_EQ(all.status, 0) << all.err;
  EXPECT_THAT(all.out, HasSubstr("reap"));
  EXPECT_THAT(all.out, ::testing::Not(HasSubstr("skip_second")));
  const Outcome asked = run_program({"compress", one, "--text", t.text, "--method", "skip_second"});
  EXPECT_EQ(asked.status, 2);
  EXPECT_THAT(asked.err, HasSubstr("the model's top_k is 1"));
}

TEST(CompressVerb, EndsWithTwoWhereTheInputIsWrong) {
  const Trained& t = trained();
  const auto says = [&](const std::vector<std::string>& more, const std::string& what) {
    const Outcome r = t.compress(more);
    EXPECT_EQ(r.status, 2);
    EXPECT_THAT(r.err, HasSubstr(what));
  };
  says({"--method", "reapp"}, "did you mean `reap`");
  says({"--method", "{reap: {keep: 2}}"}, "--keep");
  says({"--method", "{reap: {align: true}}"}, "align");
  says({"--keep", "5"}, "the model has 4");
  says({"--keep", "1"}, "a token chooses 2");
  says({"--method", "skip_second", "--keep", "2"}, "no method is told");
  says({"--out", t.text}, "--out");
  EXPECT_EQ(run_program({"compress", t.out("none")}).status, 2);
  EXPECT_EQ(run_program({"compress", t.out("trained"), "--text", t.write("other.txt", std::string(4000, 'x'))}).status, 2);  // a checkpoint of another text
}

}  // namespace
}  // namespace epsim
