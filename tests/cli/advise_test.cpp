// `epsim advise`: what it lists is a Pareto front, what it recommends is on it, and what it is told wrongly it says.
#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "base/check.h"
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

TEST(Advise, ListsAFrontAndRecommendsTheQuickestOnItThatFitsAndDropsLeast) {
  const Workspace space("epsim_advise");
  const Outcome run = advise(space, "mixtral-8x7b", kCluster, {"--tokens-per-rank", "32", "--capacity", "{megatron: {factor: 1, order: position}}", "--capacity", "dropless", "--format", "json"});
  ASSERT_EQ(run.status, 0) << run.err;
  const Json out = Json::parse(run.out);
  const Json& options = out.at("options");
  const auto number = [](const Json& o, const char* key) { return o.at(key).get<double>(); };
  double least_dropped = 1;
  for (const Json& o : options)
    if (number(o, "memory_bytes") <= number(out, "device_memory_bytes")) least_dropped = std::min(least_dropped, number(o, "dropped_choice_rate"));
  int recommended = 0, on_front = 0, drops = 0;
  std::set<int> sizes;
  for (const Json& o : options) {
    sizes.insert(o.at("ranks").get<int>());
    const bool front = o.at("on_front").get<bool>(), better = std::ranges::any_of(options, [&](const Json& f) {
      return f.at("on_front").get<bool>() && f != o && number(f, "token_s") <= number(o, "token_s") && 0.995 * number(f, "memory_bytes") <= number(o, "memory_bytes") && number(f, "dropped_choice_rate") <= number(o, "dropped_choice_rate");
    });
    EXPECT_NE(front, better) << o;
    on_front += front, drops += number(o, "dropped_choice_rate") > 0;
    EXPECT_TRUE(o.at("relative_to_recommended_half_width").is_null()) << "one batch is judged";
    if (!o.at("recommended").get<bool>()) continue;
    ++recommended;
    EXPECT_TRUE(front);
    EXPECT_EQ(number(o, "relative_to_recommended"), 1);
    EXPECT_LE(number(o, "memory_bytes"), number(out, "device_memory_bytes"));
    EXPECT_LE(number(o, "dropped_choice_rate"), least_dropped + 0.001) << "the quickest of all drops most";
    for (const Json& other : options) {
      const bool could = number(other, "memory_bytes") <= number(out, "device_memory_bytes") && number(other, "dropped_choice_rate") <= number(o, "dropped_choice_rate");
      EXPECT_TRUE(!could || number(o, "token_s") <= number(other, "token_s")) << other;
    }
  }
  EXPECT_GT(drops, 0);
  EXPECT_EQ(recommended, 1);
  EXPECT_GE(on_front, 1);
  EXPECT_EQ(sizes, (std::set<int>{2, 4}));
}

TEST(Advise, PlaysTheLayersThatCountsAreOf) {
  const Workspace space("epsim_advise");
  Json some = Json::parse(counts());
  some["logical_count"].erase(some["logical_count"].begin() + 3, some["logical_count"].end());
  some["layers"] = {3, 9, 17};
  const std::string out = (space.root / "best.yaml").string();
  const Outcome run = run_program({"advise", "mixtral-8x7b", space.write("some.json", some.dump()), kCluster, "--tokens-per-rank", "16", "--batches", "4", "--layers", "2", "--set", "network=ideal", "--out", out});
  ASSERT_EQ(run.status, 0) << run.err;
  EXPECT_THAT(run.out, HasSubstr("2 of 32 MoE layers played"));
  EXPECT_THAT(run.out, HasSubstr(" by 2 batches (95 % intervals)"));
  EXPECT_THAT(testing::bytes_of(out), HasSubstr("\nlayers: [3, 9, 17]\n"));
  EXPECT_EQ(run_program({"run", out}).status, 0);
  some["layers"] = {3, 9, 32};
  EXPECT_THAT(run_program({"advise", "mixtral-8x7b", space.write("some.json", some.dump()), kCluster, "--tokens-per-rank", "16"}).err, HasSubstr("TRACE:1:1: error: "));
}

TEST(Advise, SearchesUnderEachCapacityAndSaysWhichSizesItCouldNotTry) {
  const Workspace space("epsim_advise");
  const std::string tight = "{megatron: {factor: 0.5, order: position}}";
  const auto options_of = [&](std::vector<std::string> more) {
    more.insert(more.end(), {"--tokens-per-rank", "64", "--format", "json"});
    const Outcome run = advise(space, "mixtral-8x7b", kCluster, more);
    EXPECT_EQ(run.status, 0) << run.err;
    std::set<std::string> lines;
    const Json out = Json::parse(run.out);
    for (const Json& o : out.at("options")) lines.insert(o.dump());
    EXPECT_GT(lines.size(), 50U);
    return lines;
  };
  EXPECT_EQ(options_of({"--capacity", tight, "--capacity", "dropless"}), options_of({"--capacity", "dropless", "--capacity", tight}));

  const Outcome failing = advise(space, "mixtral-8x7b", kCluster, {"--tokens-per-rank", "8", "--set", "events=[{batch: 1, fail: [3]}]"});
  EXPECT_EQ(failing.status, 0) << failing.err;
  EXPECT_THAT(failing.err, HasSubstr("note: EP 2 was not tried: "));
  const std::string trace = std::string(EPSIM_SOURCE_DIR) + "/examples/traces/text.npz", model = std::string(EPSIM_SOURCE_DIR) + "/examples/models/wide-16.json";
  const Outcome cut = run_program({"advise", model, trace, kCluster, "--batches", "4000"});
  EXPECT_EQ(cut.status, 2);
  EXPECT_THAT(cut.err, HasSubstr("--batches:1:1: error: each of 4000 batches has 2 tokens of the trace, fewer than there are ranks (4)"));
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

TEST(Advise, RefusesToBeSetWhatItMakesItself) {
  const Workspace space("epsim_advise");
  const std::vector<std::pair<std::string, std::string>> refused = {{"model=gpt-oss-20b", "give MODEL"}, {"source={loads: {file: x}}", "give TRACE"}, {"source.tokens_per_rank=8", "give --tokens-per-rank"},
                                                                    {"cluster.nodes=4", "give CLUSTER"}, {"layers=3-4", "give --layers"}, {"batches=4", "give --batches"}, {"capacity.factor=1", "--capacity"},
                                                                    {"placement=eplb", "epsim compare"}, {"replica=nearest", "epsim compare"}, {"exchange=pairwise", "epsim compare"}, {"fit=0:1", "first half"}, {"eval=0:1", "first half"}};
  std::vector<std::string> sets = {"--tokens-per-rank", "8"};
  for (const auto& [set, unused] : refused) sets.insert(sets.end(), {"--set", set});
  const Outcome run = advise(space, "mixtral-8x7b", kCluster, sets);
  EXPECT_EQ(run.status, 2);
  EXPECT_EQ(run.out, "");
  for (const auto& [set, instead] : refused) {
    const std::size_t at = run.err.find("  " + set + "\n");  // the line that is shown below its message
    ASSERT_NE(at, std::string::npos) << set << '\n' << run.err;
    EXPECT_THAT(run.err.substr(run.err.rfind("--set:1:1: error: ", at), at - run.err.rfind("--set:1:1: error: ", at)), HasSubstr(instead)) << set;
  }
}

TEST(Advise, PlaysAsManyLayersAsAsked) {
  const Workspace space("epsim_advise");
  for (const auto& [asked, played] : std::vector<std::pair<std::string, std::string>>{{"6", "6 of 32"}, {"40", "32 of 32"}}) {
    const Outcome run = run_program({"advise", "mixtral-8x7b", space.write("counts.json", counts()), "{single_switch: {ranks: 1, device: h800}}", "--layers", asked, "--batches", "2", "--tokens-per-rank", "2", "--set", "network=ideal"});
    EXPECT_THAT(run.out, HasSubstr(played + " MoE layers played"));
  }
}

const char* const kAstraSim = "topology: [Switch, Switch]\nnpus_count: [2, 2]\nbandwidth: [200, 50]\nlatency: [500, 1000]\n";

TEST(Advise, TakesFilesByAnyNameAndPathsOfAClusterFileFromItsFolder) {
  const Workspace space("epsim_advise");
  std::filesystem::create_directories(space.root / "conf");
  space.write("conf/net.yml", kAstraSim);
  const std::string cluster = space.write("conf/c.yaml", "astra_sim:\n  file: net.yml\n  device: h800\n");
  const std::string model = space.write("my #1: 'model'.json", read_text(std::string(EPSIM_SOURCE_DIR) + "/examples/models/tiny-moe.json")->text);
  const std::string trace = space.write("it's: #2.json", R"({"logical_count": [[1,2,3,4,5,6,7,8,9,1,2,3,4,5,6,7],[3,2,3,4,1,6,7,8,9,1,2,3,4,5,2,7]]})");
  const Outcome run = run_program({"advise", model, trace, cluster, "--layers", "1", "--batches", "2", "--tokens-per-rank", "8", "--set", "network=ideal"});
  EXPECT_EQ(run.status, 0) << run.err;
  EXPECT_THAT(run.out, HasSubstr("recommended: EP 4"));
}

TEST(Advise, PointsAtWhatWasTyped) {
  const Workspace space("epsim_advise");
  const std::string cluster = space.write("c.yaml", "rail_fat_tree:\n  nodes: 2\n  ranks_per_node: 2\n  device: h801\n  colour: red\n");
  const Outcome run = advise(space, "mixtral-9x7b", cluster, {"--tokens-per-rank", "8", "--set", "network=idle"});
  EXPECT_EQ(run.status, 2);
  EXPECT_THAT(run.err, HasSubstr("MODEL:1:1: error: there is no model `mixtral-9x7b`"));
  EXPECT_THAT(run.err, HasSubstr("/c.yaml:4:11: error: "));
  EXPECT_THAT(run.err, HasSubstr("/c.yaml:5:3: error: "));
  EXPECT_THAT(run.err, HasSubstr("--set:1:9: error: "));
  const Outcome capacity = advise(space, "mixtral-8x7b", kCluster, {"--tokens-per-rank", "8", "--capacity", "{megatron: {factor: x}}"});
  EXPECT_THAT(capacity.err, HasSubstr("--capacity:1:21: error: "));
  const Outcome counts = advise(space, "mixtral-8x7b", "{rail_fat_tree: {nodes: x}}", {});
  EXPECT_THAT(counts.err, HasSubstr("CLUSTER:1:25: error: "));
  EXPECT_THAT(counts.err, HasSubstr("give --tokens-per-rank"));
}

TEST(Advise, WritesWhatItRecommendsAsAnExperimentThatRunsAnywhere) {
  const Workspace space("epsim_advise");
  for (const char* folder : {"in", "in/conf", "out"}) std::filesystem::create_directory(space.root / folder);
  space.write("in/conf/net.yml", kAstraSim);
  space.write("in/conf/c.yaml", "astra_sim: {file: net.yml, device: h800}");
  space.write("in/model.json", read_text(std::string(EPSIM_SOURCE_DIR) + "/examples/models/tiny-moe.json")->text);
  space.write("in/it's.json", R"({"logical_count": [[1,2,3,4,5,6,7,8,9,1,2,3,4,5,6,7],[3,2,3,4,1,6,7,8,9,1,2,3,4,5,2,7]]})");
  const std::string out = (space.root / "out/best.yaml").string();
  const Outcome run = run_program({"advise", "model.json", "it's.json", "conf/c.yaml", "--batches", "2", "--tokens-per-rank", "8", "--set", "network=ideal", "--out", out, "--format", "json"}, "cd " + (space.root / "in").string() + " &&");
  ASSERT_EQ(run.status, 0) << run.err;
  const std::string file = testing::bytes_of(out);
  for (const char* line : {"\nmodel: ", "\ncluster: {astra_sim: ", "\nsource: {loads: ", "\nplacement: ", "\nreplica: ", "\nexchange: ", "\ncapacity: ", "\nnetwork: ideal\n", "\nbatches: 2\n", "\nfit: "}) EXPECT_THAT(file, HasSubstr(line)) << file;
  EXPECT_THAT(file, ::testing::Not(HasSubstr("\nlayers: ")));
  const Outcome again = run_program({"run", out, "--format", "json"});
  ASSERT_EQ(again.status, 0) << again.err;
  double total_s = 0;
  const Json layers = Json::parse(again.out).at("layers");
  for (const Json& layer : layers) total_s += layer.at("layer_s").get<double>();
  const Json options = Json::parse(run.out).at("options");
  const auto recommended = std::ranges::find_if(options, [](const Json& o) { return o.at("recommended").get<bool>(); });
  ASSERT_NE(recommended, options.end());
  EXPECT_NEAR(recommended->at("token_s").get<double>(), total_s / 8, 1e-12);  // all of the model's layers were played

  const Outcome nothing = advise(space, "mixtral-8x7b", "{single_switch: {ranks: 1, device: h800}}", {"--tokens-per-rank", "8", "--out", out + ".none"});
  EXPECT_EQ(nothing.status, 1);
  EXPECT_FALSE(std::filesystem::exists(out + ".none"));
  EXPECT_THAT(advise(space, "mixtral-8x7b", kCluster, {"--out", (space.root / "no/best.yaml").string()}).err, HasSubstr("--out:1:1: error: there is no folder"));
}

}  // namespace
}  // namespace epsim
