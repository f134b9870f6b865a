// epsim import, and epsim place --export, as a user calls them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/program.h"

namespace epsim {
namespace {

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
  EXPECT_EQ(bytes_of(yaml), "num_slots: 4\nlayer_updates_per_iter: 0\ninitial_global_assignments:\n  1: [0, 1, 2, 3]\n");
}

TEST(ImportVerb, OnlyReportsWithoutAFile) {
  const Workspace space("epsim_import");
  const Outcome r = run_program({"import", space.write("map.json", kMap)});
  EXPECT_EQ(r.status, 0) << r.err;
  EXPECT_EQ(r.out, "vllm-ascend expert map\n1 layers, 3 experts in 4 slots on 2 ranks\n");
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
  EXPECT_THAT(said({"--out", space.root.string() + "/none/out.json"}), HasSubstr("the file cannot be written"));
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
