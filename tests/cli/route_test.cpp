// epsim route, as a user calls it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "base/npz.h"
#include "tests/support/program.h"

namespace epsim {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::Outcome;
using testing::run_program;
using testing::Workspace;

/// Four tokens that prefer experts 0, 0, 0 and 1 of three.
std::string logits_file(const Workspace& space) {
  NpzWriter npz;
  npz.add("logits", {4, 3}, std::vector<float>{2, 1, 0, 2, 0, 1, 3, 1, 0, 0, 2, 1});
  return space.write("logits.npz", npz.bytes());
}

TEST(RouteVerb, WritesChoicesAndWhatCapacityKeeps) {
  const Workspace space("epsim_route");
  const std::string out = (space.root / "out.npz").string();
  const Outcome r = run_program({"route", "--logits", logits_file(space), "--set", "top_k=1", "--set", "router={topk: {renormalise: false}}", "--set", "capacity={megatron: {factor: 3/2}}", "--set",
                                 "losses=[balance, z: {coefficient: 0.5}]", "--out", out});
  EXPECT_EQ(r.status, 0) << r.err;
  EXPECT_THAT(r.out, HasSubstr("4 tokens, 3 experts, 4 choices, 3 kept, 1 dropped\ncapacity of an expert: 2\nbalance: "));
  const auto arrays = read_npz(read_text(out));
  EXPECT_THAT(arrays.at("expert_ids").integers, ElementsAre(0, 0, 0, 1));
  EXPECT_THAT(arrays.at("kept").integers, ElementsAre(1, 0, 1, 1)) << "the last of two equal weights goes";
  EXPECT_THAT(arrays.at("position").integers, ElementsAre(0, -1, 1, 0));
  EXPECT_THAT(arrays.at("capacity").integers, ElementsAre(2));
  EXPECT_EQ(arrays.at("weights_after").floats[1], 0);
  EXPECT_GT(arrays.at("weights").floats[1], 0.6);
  EXPECT_EQ(arrays.at("grad_z").shape, (std::vector<std::int64_t>{4, 3}));
}

TEST(RouteVerb, ComputesLogitsOfAGate) {
  const Workspace space("epsim_route");
  NpzWriter npz;
  npz.add("x", {2, 2}, std::vector<float>{1, 2, 3, 4});
  npz.add("gate_weight", {2, 2}, std::vector<float>{1, 0, 1, 1});
  const std::string out = (space.root / "out.npz").string();
  const Outcome r = run_program({"route", "--logits", space.write("x.npz", npz.bytes()), "--set", "top_k=1", "--out", out});
  EXPECT_EQ(r.status, 0) << r.err;
  EXPECT_THAT(read_npz(read_text(out)).at("logits").floats, ElementsAre(1, 3, 3, 7));
}

TEST(RouteVerb, SaysThatARouterTakesNoBias) {
  const Workspace space("epsim_route");
  NpzWriter npz;
  npz.add("logits", {2, 2}, std::vector<float>{1, 2, 3, 4});
  npz.add("bias", {2}, std::vector<float>{0, 9});
  const auto said = [&](const std::string& router, const std::string& losses) {
    const Outcome r = run_program({"route", "--logits", space.write("in.npz", npz.bytes()), "--set", "top_k=1", "--set", "router=" + router, "--set", "losses=" + losses, "--out", (space.root / "out.npz").string()});
    EXPECT_EQ(r.status, 0) << r.err;
    return r.err;
  };
  EXPECT_THAT(said("top_p", "[]"), HasSubstr("array `bias` is not used: this router chooses without one"));
  EXPECT_EQ(said("topk", "[]"), "");
  EXPECT_EQ(said("top_p", "[bias_update]"), "") << "the loss moves it";
}

/// A safetensors file of `logits` [2][2] in a type of two bytes.
std::string two_byte_logits(const std::string& type, const std::vector<std::uint16_t>& values) {
  const std::string header = R"({"logits":{"dtype":")" + type + R"(","shape":[2,2],"data_offsets":[0,8]}})";
  std::string bytes(8, '\0');
  bytes[0] = static_cast<char>(header.size());
  bytes += header;
  for (const std::uint16_t v : values) bytes += static_cast<char>(v & 255), bytes += static_cast<char>(v >> 8);
  return bytes;
}

TEST(RouteVerb, ReadsLogitsOfSixteenBits) {
  const Workspace space("epsim_route");
  const std::string out = (space.root / "out.npz").string();
  // 0, 1; 0.5, -2
  for (const auto& [type, values] : std::vector<std::pair<std::string, std::vector<std::uint16_t>>>{{"BF16", {0, 0x3f80, 0x3f00, 0xc000}}, {"F16", {0, 0x3c00, 0x3800, 0xc000}}}) {
    const Outcome r = run_program({"route", "--logits", space.write("logits.safetensors", two_byte_logits(type, values)), "--set", "top_k=1", "--set", "router={topk: {score: sigmoid, renormalise: false}}", "--out", out});
    EXPECT_EQ(r.status, 0) << r.err;
    const auto arrays = read_npz(read_text(out));
    EXPECT_THAT(arrays.at("expert_ids").integers, ElementsAre(1, 0));
    EXPECT_THAT(arrays.at("weights").floats, ElementsAre(::testing::DoubleNear(1 / (1 + std::exp(-1.0)), 1e-7), ::testing::DoubleNear(1 / (1 + std::exp(-0.5)), 1e-7)));
  }
}

TEST(RouteVerb, SaysWhichArraysItDoesNotUse) {
  const Workspace space("epsim_route");
  NpzWriter npz;
  npz.add("logits", {1, 2}, std::vector<float>{1, 2});
  npz.add("biass", {2}, std::vector<float>{0, 0});
  npz.add("kept", {1, 1}, std::vector<std::int32_t>{1});
  const Outcome r = run_program({"route", "--logits", space.write("in.npz", npz.bytes()), "--set", "top_k=1"});
  EXPECT_EQ(r.status, 0);
  EXPECT_THAT(r.err, HasSubstr("in.npz: array `biass` is not used, did you mean `bias`?"));
  EXPECT_THAT(r.err, ::testing::Not(HasSubstr("kept")));
}

TEST(RouteVerb, TellsAllProblemsAtOnce) {
  const Workspace space("epsim_route");
  const auto problems = [&](std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "route");
    const Outcome r = run_program(arguments);
    EXPECT_EQ(r.status, 2) << r.err;
    return r.err;
  };
  NpzWriter npz;
  npz.add("logits", {4, 3}, std::vector<float>(12));
  npz.add("bias", {2}, std::vector<float>(2));
  npz.add("token_ids", {3}, std::vector<std::int64_t>(3));
  npz.add("attention_mask", {3}, std::vector<std::int64_t>(3));
  const std::string broken = problems({"--logits", space.write("broken.npz", npz.bytes()), "--set", "top_k=1", "--set", "capacity={megatron: {factor: -1}}"});
  for (const char* part : {"array `bias` has shape [2], expected [3]", "array `token_ids` has shape [3], expected [4]", "array `attention_mask` holds 3 integers", "`factor` must be a fraction above 0"}) EXPECT_THAT(broken, HasSubstr(part));
  const std::string settings = problems({"--logits", logits_file(space), "--set", "top_k=4", "--set", "ranks=3", "--set", "router.scor=sigmoid", "--set", "losses=balence"});
  for (const char* part : {"--set:1:7: error: top_k is 4, but there are 3 experts", "3 ranks do not divide 4 tokens", "did you mean `score`?", "did you mean `balance`?"}) EXPECT_THAT(settings, HasSubstr(part));
  for (const char* count : {"3", "9"})
    EXPECT_THAT(problems({"--logits", logits_file(space), "--set", "top_k=1", "--set", std::string("router={zero_experts: {zero: ") + count + "}}"}), HasSubstr("none is left for experts that compute"));
  NpzWriter table;
  table.add("table", {2, 2}, std::vector<std::int64_t>{0, 1, 2, 2});
  EXPECT_THAT(problems({"--logits", logits_file(space), "--set", "top_k=2", "--set", "router={hash: {table: " + space.write("table.npz", table.bytes()) + "}}"}), HasSubstr("names expert 2 twice for id 1"));
}

TEST(RouteVerb, RefusesWhatItCannotUseAndWritesNothing) {
  const Workspace space("epsim_route");
  const std::string file = logits_file(space), out = (space.root / "out.npz").string();
  const auto refusal = [&](std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "route");
    arguments.insert(arguments.end(), {"--out", out});
    const Outcome r = run_program(arguments);
    EXPECT_EQ(r.status, 2) << r.err;
    EXPECT_FALSE(std::filesystem::exists(out));
    return r.err;
  };
  EXPECT_THAT(refusal({"--logits", file}), HasSubstr("needs `top_k`"));
  EXPECT_THAT(refusal({"--logits", file, "--set", "top_k=4"}), HasSubstr("top_k is 4, but there are 3 experts"));
  EXPECT_THAT(refusal({"--logits", file, "--set", "top_k=1", "--set", "router=topkk"}), HasSubstr("did you mean `topk`?"));
  EXPECT_THAT(refusal({"--logits", file, "--set", "top_k=1", "--set", "losses=balence"}), HasSubstr("did you mean `balance`?"));
  EXPECT_THAT(refusal({"--logits", file, "--set", "top_k=1", "--set", "capasity=megatron"}), HasSubstr("did you mean `capacity`?"));
  EXPECT_THAT(refusal({"--logits", file, "--set", "top_k=1", "--set", "ranks=3"}), HasSubstr("3 ranks do not divide 4 tokens"));
  const std::string whole = testing::bytes_of(file);
  for (std::size_t length = 0; length < whole.size(); length += 1 + whole.size() / 12)
    EXPECT_THAT(refusal({"--logits", space.write("cut.npz", whole.substr(0, length)), "--set", "top_k=1"}), HasSubstr("cut.npz")) << length;
  NpzWriter flat, infinite;
  flat.add("logits", {4}, std::vector<float>{1, 2, 3, 4});
  infinite.add("logits", {1, 2}, std::vector<float>{1, INFINITY});
  EXPECT_THAT(refusal({"--logits", space.write("flat.npz", flat.bytes()), "--set", "top_k=1"}), HasSubstr("array `logits` has shape [4]"));
  EXPECT_THAT(refusal({"--logits", space.write("inf.npz", infinite.bytes()), "--set", "top_k=1"}), HasSubstr("is not a finite number"));
}

}  // namespace
}  // namespace epsim
