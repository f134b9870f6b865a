// epsim import, and epsim place --export, as a user calls them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/npz.h"
#include "tests/support/program.h"

namespace epsim {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::bytes_of;
using testing::Outcome;
using testing::run_program;
using testing::Workspace;

const char* const kMap = R"({"moe_layer_count": 1, "layer_list": [{"layer_id": 0, "device_count": 2, "device_list": [{"device_id": 0, "device_expert": [1, 0]}, {"device_id": 1, "device_expert": [2, 1]}]}]})";

TEST(ImportVerb, ReportsAndWritesWhatEpsimReads) {
  const Workspace space("epsim_import");
  const std::string dump = space.write("dump.json", R"({"logical_count": [[[0, 0, 0, 0], [8, 4, 4, 4]], [[0, 0, 0, 0], [8, 4, 4, 4]]]})"), loads = (space.root / "loads.json").string();
  const Outcome r = run_program({"import", dump, "--out", loads});
  EXPECT_EQ(r.status, 0) << r.err;
  EXPECT_THAT(r.out, HasSubstr("1 layers, 4 experts, 2 steps"));
  EXPECT_THAT(r.out, HasSubstr("warning: layers 0 have no counts"));
  EXPECT_THAT(r.out, HasSubstr("hottest expert over mean: 1.60"));
  EXPECT_EQ(bytes_of(loads), "{\n  \"layers\": [1],\n  \"logical_count\": [\n    [16,8,8,8]\n  ]\n}\n");
  const std::string yaml = (space.root / "balancer.yaml").string();
  const Outcome placed = run_program({"place", "--loads", loads, "--slots", "4", "--ranks", "2", "--nodes", "1", "--policy", "contiguous", "--export", "tensorrt-llm", "--out", yaml});
  EXPECT_EQ(placed.status, 0) << placed.err;
  EXPECT_EQ(placed.err, "wrote " + yaml + "\n");
  EXPECT_EQ(bytes_of(yaml), "num_slots: 4\nlayer_updates_per_iter: 0\ninitial_global_assignments:\n  1: [0, 1, 2, 3]\n");
}

TEST(ImportVerb, OnlyReportsWithoutAFile) {
  const Workspace space("epsim_import");
  const Outcome r = run_program({"import", space.write("map.json", kMap)});
  EXPECT_EQ(r.status, 0) << r.err;
  EXPECT_EQ(r.out, "vllm-ascend expert map\n1 layers, 3 experts in 4 slots on 2 ranks\nwarning: the file numbers its layers among those that have experts: they are 0 to 0 here; --model gives them the model's numbers\n");
}

TEST(ImportVerb, SaysWhichLayersOfAnExpertMapAreWhich) {
  const Workspace space("epsim_import");
  const std::string loads = space.write("loads.json", R"({"layers": [3, 5], "logical_count": [[1, 2], [4, 3]]})"), map = (space.root / "map.json").string();
  const Outcome out = run_program({"place", "--loads", loads, "--ranks", "2", "--nodes", "1", "--policy", "contiguous", "--export", "vllm-ascend", "--out", map});
  EXPECT_EQ(out.status, 0) << out.err;
  EXPECT_THAT(out.err, HasSubstr("note: vllm-ascend numbers layers among those placed: 0 to 1 there are 3, 5 here, which the file cannot say; `epsim import --model` gives them back only where they are all MoE layers of the model\n"));
  EXPECT_THAT(run_program({"import", map}).out, HasSubstr("warning: the file numbers its layers among those that have experts: they are 0 to 1 here; --model"));
}

TEST(ImportVerb, SaysWhichLayersOfALocationWereNotPlaced) {
  const Workspace space("epsim_import");
  const auto exported = [&](const std::string& layers) {
    const std::string loads = space.write("loads.json", R"({"layers": )" + layers + R"(, "logical_count": [[1, 2], [4, 3]]})");
    return run_program({"place", "--loads", loads, "--ranks", "2", "--nodes", "1", "--policy", "contiguous", "--export", "sglang", "--out", (space.root / "location.json").string()}).err;
  };
  EXPECT_THAT(exported("[3, 5]"), HasSubstr("note: sglang has a row for every layer, and those of layers that were not placed hold experts in order: 0 to 2, 4\n"));
  EXPECT_THAT(exported("[1, 0]"), ::testing::Not(HasSubstr("note")));
}

TEST(ImportVerb, SaysThatAPlacementIsNoRecording) {
  const Workspace space("epsim_import");
  const std::string location = space.write("location.json", R"({"physical_to_logical_map": [[0, 1, 1, 0]]})");
  const std::string said = location + ":1:29: error: this is a placement, no recording: play it with `placement: {given: {file: " + location + "}}`, which needs no import";
  EXPECT_THAT(run_program({"import", location}).err, HasSubstr(said));
  EXPECT_THAT(run_program({"import", location, "--from", "sglang"}).err, HasSubstr(said));
  const std::string loads = space.write("loads.json", R"({"logical_count": [[1, 2]]})");
  const std::string placed = space.write("placed.json", run_program({"place", "--loads", loads, "--ranks", "2", "--nodes", "1", "--policy", "contiguous", "--format", "json"}).out);
  EXPECT_THAT(run_program({"import", placed}).err, HasSubstr("this is a placement, no recording"));
}

TEST(ImportVerb, TakesTheHeadersOfOtherProgramsTables) {
  const Workspace space("epsim_import");
  for (const char* text : {"\xef\xbb\xbflayer,expert\n0,1\n", "Layer,Expert\r\n0,1\r\n", "layer, expert\n0, 1\n", "\"Step\", \"layer\", \"expert\", \"tokens\"\n0, 0, 1, 1\n"}) {
    const Outcome r = run_program({"import", space.write("counts.csv", text)});
    EXPECT_EQ(r.status, 0) << text << r.err;
    EXPECT_THAT(r.out, HasSubstr("1 layers, 2 experts, 1 steps, 1 choices in the first layer")) << text;
  }
  EXPECT_THAT(run_program({"import", space.write("counts.csv", "layer;expert\n0;1\n")}).err, HasSubstr("counts.csv:1:6: error: columns are separated by `;`, expected `,`"));
}

TEST(ImportVerb, SaysWhatAFileIsNot) {
  const Workspace space("epsim_import");
  const auto vllm = [&](const std::string& bytes) { return run_program({"import", space.write("routing.npz", bytes), "--from", "vllm"}).err; };
  EXPECT_THAT(vllm(""), HasSubstr("is empty, expected an .npy or .npz"));
  EXPECT_THAT(vllm("{}"), HasSubstr("is neither an .npy nor an .npz"));
  NpzWriter floats;
  const std::vector<float> ids = {0, 1};
  floats.add("routed_experts", {1, 1, 2}, std::span<const float>(ids));
  EXPECT_THAT(vllm(floats.bytes()), HasSubstr("has no array of whole numbers [tokens, layers, k]; it has `routed_experts` [1, 1, 2] of floats"));
  EXPECT_THAT(vllm(NpzWriter().bytes()), HasSubstr("it has no arrays"));
  const std::string trace = space.write("kin0.json", R"({"distributedInfo": {"rank": 0}, "traceEvents": [{"cat": "kernel", "ts": 1, "args": {"Collective name": "all_to_allv", "dtype": "Int", "In split size": "[1, 2]"}}]})");
  EXPECT_THAT(run_program({"import", trace}).err, HasSubstr("the exchanges are over 2 ranks, but 1 file is given: give one file for each rank of a group"));
}

TEST(ImportVerb, TakesNoFileTwice) {
  const Workspace space("epsim_import");
  const std::string one = space.write("one.csv", "layer,expert\n0,1\n"), same = space.write("same.csv", "layer,expert\n0,1\n"), other = space.write("other.csv", "layer,expert\n0,2\n");
  const Outcome twice = run_program({"import", one, other, same});
  EXPECT_EQ(twice.status, 2);
  EXPECT_THAT(twice.err, HasSubstr(same + ": error: holds what " + one + " before it holds: its tokens would count twice"));
  EXPECT_EQ(run_program({"import", one, other}).status, 0);
}

TEST(ImportVerb, RefusesOptionsWithoutEffect) {
  const Workspace space("epsim_import");
  const std::string counts = space.write("counts.json", R"({"logical_count": [[1, 2]]})");
  const std::string traffic = space.write("kin0.json", R"({"distributedInfo": {"rank": 0}, "traceEvents": [{"cat": "kernel", "ts": 1, "args": {"Collective name": "all_to_allv", "dtype": "Int", "In split size": "[1]"}}]})");
  EXPECT_THAT(run_program({"import", counts, "--drop-bad-tokens", "--exchange", "0"}).err, AllOf(HasSubstr("only a recording of choices has tokens"), HasSubstr("only a recording of exchanges has them")));
  EXPECT_THAT(run_program({"import", traffic, "--model", "mixtral-8x7b"}).err, HasSubstr("--model:1:1: error: bytes between ranks say nothing of a model"));
  EXPECT_EQ(run_program({"import", traffic}).status, 0);
  EXPECT_THAT(run_program({"import", traffic, "--exchange", "1"}).err, HasSubstr("--exchange:1:1: error: there are 1 exchanges, counted from 0"));
  EXPECT_THAT(run_program({"import", counts, "--skip", "-1"}).err, HasSubstr("expected a whole number of at least 0, got `-1`"));
}

TEST(ImportVerb, WritesNothingWhereSomethingIsWrong) {
  const Workspace space("epsim_import");
  const std::string map = space.write("map.json", kMap), out = (space.root / "out.json").string();
  const auto said = [&](std::vector<std::string> more) {
    more.insert(more.begin(), {"import", map});
    const Outcome r = run_program(more);
    EXPECT_EQ(r.status, 2);
    EXPECT_FALSE(std::filesystem::exists(out));
    return r.err;
  };
  EXPECT_THAT(said({"--out", (space.root / "out.npz").string()}), HasSubstr("this recording becomes a .json file"));
  EXPECT_THAT(said({"--out", out, "--model", "mixtral-8x7b"}), HasSubstr("layer 0: expert 3 has no slot"));
  EXPECT_THAT(said({"--out", out, "--from", "sglnag"}), HasSubstr("did you mean `sglang`?"));
  EXPECT_THAT(said({"--out", out, "--ranks", "3"}), HasSubstr("does not need to be told its ranks"));
  EXPECT_THAT(said({"--out", out, "--exchange", "0"}), HasSubstr("only a recording of exchanges has them"));
  EXPECT_THAT(said({"--out", out, "--model", "mixtrale"}), HasSubstr("mixtral"));
  EXPECT_THAT(said({"--out", space.root.string() + "/none/out.json"}), HasSubstr("the file cannot be written: No such file or directory"));
  const std::string loads = space.write("loads.json", R"({"logical_count": [[1, 2, 3]]})");
  const Outcome form = run_program({"place", "--loads", loads, "--ranks", "2", "--nodes", "1", "--policy", "contiguous", "--export", "sglang", "--out", out});
  EXPECT_EQ(form.status, 2);
  EXPECT_THAT(form.err, HasSubstr("--export:1:1: error: SGLang takes equally many slots on every rank: in layer 0 rank 0 has 2 of 3 on 2 ranks; 2 or 4 slots divide"));
  EXPECT_FALSE(std::filesystem::exists(out));
  EXPECT_THAT(run_program({"place", "--loads", loads, "--ranks", "1", "--nodes", "1", "--policy", "contiguous", "--export", "sglan", "--out", out}).err, HasSubstr("did you mean `sglang`?"));
  EXPECT_THAT(run_program({"place", "--loads", loads, "--ranks", "1", "--nodes", "1", "--policy", "contiguous", "--out", out}).err, HasSubstr("say in which form, as --export"));
}

}  // namespace
}  // namespace epsim
