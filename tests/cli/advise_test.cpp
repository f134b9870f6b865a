// `epsim advise`: what it lists is a Pareto front, what it recommends is on it, and what it is told wrongly it says.
#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "tests/support/program.h"

namespace epsim {
namespace {

using Json = nlohmann::json;
using ::testing::HasSubstr;
using testing::Outcome;
using testing::run_program;
using testing::Workspace;

const std::string kCluster = "{rail_fat_tree: {nodes: 2, ranks_per_node: 2, device: h800}}";

/// Counts of mixtral-8x7b's 32 layers of 8 experts, other experts popular in each.
std::string counts() {
  Json layers = Json::array();
  for (int l = 0; l < 32; ++l) {
    Json layer = Json::array();
    for (int e = 0; e < 8; ++e) layer.push_back((e * 7 + l) % 13 * 10 + 5);
    layers.push_back(layer);
  }
  return Json{{"logical_count", layers}}.dump();
}

Outcome advise(const Workspace& space, const std::string& model, const std::string& cluster, std::vector<std::string> more, const std::string& environment = "") {
  std::vector<std::string> arguments = {"advise", model, space.write("counts.json", counts()), cluster, "--layers", "1", "--batches", "2", "--set", "network=ideal"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return run_program(arguments, environment);
}

TEST(Advise, ListsAFrontAndRecommendsTheQuickestOnItThatFits) {
  const Workspace space("epsim_advise");
  const Outcome run = advise(space, "mixtral-8x7b", kCluster, {"--tokens-per-rank", "32", "--capacity", "{megatron: {factor: 1, order: position}}", "--capacity", "dropless", "--format", "json"});
  ASSERT_EQ(run.status, 0) << run.err;
  const Json out = Json::parse(run.out);
  const Json& options = out.at("options");
  const auto number = [](const Json& o, const char* key) { return o.at(key).get<double>(); };
  int recommended = 0, on_front = 0;
  std::set<int> sizes;
  for (const Json& o : options) {
    sizes.insert(o.at("ranks").get<int>());
    bool beaten = false;
    for (const Json& other : options) {
      const bool no_worse = number(other, "token_s") <= number(o, "token_s") && number(other, "memory_bytes") <= number(o, "memory_bytes");
      beaten |= no_worse && (number(other, "token_s") < number(o, "token_s") || number(other, "memory_bytes") < number(o, "memory_bytes"));
    }
    if (o.at("on_front").get<bool>()) EXPECT_FALSE(beaten) << o;
    if (!beaten && !o.at("on_front").get<bool>())
      EXPECT_TRUE(std::ranges::any_of(options, [&](const Json& f) { return f.at("on_front").get<bool>() && number(f, "token_s") == number(o, "token_s") && number(f, "memory_bytes") == number(o, "memory_bytes"); })) << o;
    on_front += o.at("on_front").get<bool>();
    if (!o.at("recommended").get<bool>()) continue;
    ++recommended;
    EXPECT_TRUE(o.at("on_front").get<bool>());
    EXPECT_LE(number(o, "memory_bytes"), number(out, "device_memory_bytes"));
    for (const Json& other : options)
      if (number(other, "memory_bytes") <= number(out, "device_memory_bytes")) EXPECT_LE(number(o, "token_s"), number(other, "token_s"));
  }
  EXPECT_EQ(recommended, 1);
  EXPECT_GE(on_front, 1);
  EXPECT_EQ(sizes, (std::set<int>{2, 4}));
}

TEST(Advise, SaysWhereNothingFits) {
  const Workspace space("epsim_advise");
  const Outcome run = advise(space, "mixtral-8x7b", "{single_switch: {ranks: 1, device: h800}}", {"--tokens-per-rank", "8"});
  EXPECT_EQ(run.status, 0) << run.err;
  EXPECT_THAT(run.out, HasSubstr("no choice fits"));
}

TEST(Advise, GivesTheSameBytesForAnyNumberOfThreads) {
  const Workspace space("epsim_advise");
  const Outcome one = advise(space, "mixtral-8x7b", kCluster, {"--tokens-per-rank", "16"}, "EPSIM_THREADS=1"), three = advise(space, "mixtral-8x7b", kCluster, {"--tokens-per-rank", "16"}, "EPSIM_THREADS=3");
  ASSERT_EQ(one.status, 0) << one.err;
  EXPECT_THAT(one.out, HasSubstr("recommended: EP"));
  EXPECT_EQ(one.out, three.out);
}

TEST(Advise, SaysEverythingThatIsWrongAtOnce) {
  const Workspace space("epsim_advise");
  const Outcome run = advise(space, "mixtral-9x7b", "{rail_fat: {nodes: 2}}", {});
  EXPECT_EQ(run.status, 2);
  EXPECT_THAT(run.err, HasSubstr("there is no model `mixtral-9x7b`"));
  EXPECT_THAT(run.err, HasSubstr("there is no cluster `rail_fat`"));
  EXPECT_THAT(run.err, HasSubstr("how many tokens?"));
  const Outcome capacity = advise(space, "mixtral-8x7b", kCluster, {"--tokens-per-rank", "8", "--capacity", "{megatron: {factor: 1}}", "--capacity", "none"});
  EXPECT_EQ(capacity.status, 2);
  EXPECT_THAT(capacity.err, HasSubstr("no weights to order choices by"));
  EXPECT_THAT(capacity.err, HasSubstr("`none`"));
  const Outcome missing = run_program({"advise", "mixtral-8x7b", (space.root / "none.npz").string(), kCluster});
  EXPECT_EQ(missing.status, 2);
  EXPECT_THAT(missing.err, HasSubstr("none.npz"));
}

}  // namespace
}  // namespace epsim
