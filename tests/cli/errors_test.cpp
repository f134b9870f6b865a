// What a user meets first: every kind of bad input, from the command line. Each ends with 2, names its place, and leaves nothing behind.
#include <gmock/gmock.h>

#include <algorithm>
#include <set>

#include "base/npz.h"
#include "tests/support/program.h"

namespace epsim {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::Outcome;

class BadInput : public ::testing::Test {
 protected:
  BadInput() : work_("epsim_errors") {}

  std::string path(const std::string& name) const { return (work_.root / name).string(); }
  std::string write(const std::string& name, const std::string& text) const { return work_.write(name, text); }

  /// What `epsim ARGUMENTS` says about bad input; it says it on stderr alone and writes nothing.
  std::string refusal(const std::vector<std::string>& arguments) const {
    const std::set<std::string> before = entries();
    const Outcome o = testing::run_program(arguments);
    EXPECT_EQ(o.status, 2) << o.err;
    EXPECT_EQ(o.out, "");
    EXPECT_EQ(entries(), before) << "nothing is left behind";
    EXPECT_THAT(o.err, Not(HasSubstr("terminate"))) << "an error of the user's is no crash";
    return o.err;
  }
  std::string run_refusal(const std::string& file) const { return refusal({"run", file, "--out", path("made/out")}); }

  /// An experiment of 2 ranks, one setting a line from line 1.
  std::string experiment(const std::string& model = "mixtral-8x7b", const std::string& cluster = "{single_switch: {ranks: 2, device: h100}}",
                         const std::string& source = "{uniform: {tokens: 4}}") const {
    return write("experiment.yaml", "model: " + model + "\nlayers: 0\ncluster: " + cluster + "\nsource: " + source + "\n");
  }

  testing::Workspace work_;

 private:
  std::set<std::string> entries() const {
    std::set<std::string> all;
    for (const auto& entry : fs::recursive_directory_iterator(work_.root)) all.insert(entry.path().string());
    return all;
  }
};

// I11
TEST_F(BadInput, EveryProblemOfAnExperimentIsSaidInOnePass) {
  const std::string file = write("wrong.yaml",
                                 "model: mixtral-8x7b\n"
                                 "layers: 0\n"
                                 "cluster: {two_tier: {nodes: 2, ranks_per_node: 2, device: h1000}}\n"
                                 "source: {zipf: {tokens_per_rank: many}}\n"
                                 "placment: contiguous\n"
                                 "capacity: megatorn\n"
                                 "placement: {eplb: {slots: 4}}\n"
                                 "exchange: {direct: {dedupe: rank}}\n");
  const std::string said = run_refusal(file);
  EXPECT_THAT(said, HasSubstr(file + ":3:59: error: "));
  EXPECT_THAT(said, HasSubstr("did you mean `h100`?"));
  EXPECT_THAT(said, HasSubstr(file + ":4:34: error: `tokens_per_rank` must be an integer"));
  EXPECT_THAT(said, HasSubstr("got `many`\n  source: {zipf: {tokens_per_rank: many}}\n                                   ^\n")) << "the line and a caret";
  EXPECT_THAT(said, HasSubstr(file + ":5:1: error: an experiment has no setting `placment`, did you mean `placement`?"));
  EXPECT_THAT(said, HasSubstr(file + ":6:11: error: there is no capacity `megatorn`, did you mean `megatron`?"));
  EXPECT_THAT(said, HasSubstr(file + ":7:27: error: 4 slots are fewer than the 8 experts"));
  EXPECT_THAT(said, AllOf(HasSubstr(file + ":8:21: error: "), HasSubstr("has no setting `dedupe`, did you mean `dedup`?")));
  EXPECT_THAT(said, HasSubstr("6 problems; nothing was run"));
}

// I11
TEST_F(BadInput, OverridesAreNamedAsTyped) {
  const std::string said = refusal({"run", experiment(), "--set", "exchange.reduce_in_nod=true", "--set", "replica=rund_robin", "--out", path("out")});
  EXPECT_THAT(said, AllOf(HasSubstr("did you mean `reduce_in_node`?"), HasSubstr("exchange.reduce_in_nod=true")));
  EXPECT_THAT(said, HasSubstr("there is no replica `rund_robin`, did you mean `round_robin`?"));
}

TEST_F(BadInput, AMisspeltVerbOrOptionIsNamed) {
  EXPECT_THAT(refusal({"rum", "x.yaml"}), HasSubstr("`rum` is not known, did you mean `run`?"));
  EXPECT_THAT(refusal({"run", experiment(), "--ot", path("x")}), HasSubstr("`--ot` is not known, did you mean `--out`?"));
  EXPECT_THAT(refusal({"run"}), HasSubstr("file is required"));
}

TEST_F(BadInput, WhatAVerbDoesNotTakeIsNamedInTheOrderTyped) {
  EXPECT_THAT(refusal({"runn", "exp.yaml"}), AllOf(HasSubstr("epsim: error: `runn` is not known, did you mean `run`?"), Not(HasSubstr("exp.yaml"))));
  EXPECT_THAT(refusal({"run", experiment(), "b", "c"}), HasSubstr("epsim run: error: not expected: b c"));
  EXPECT_THAT(refusal({"topo", "show"}), AllOf(HasSubstr("epsim topo show: error: cluster is required"), HasSubstr("See `epsim topo show --help`")));
  EXPECT_THAT(refusal({"topo", "shw", "x"}), HasSubstr("epsim topo: error: `shw` is not known, did you mean `show`?"));
  EXPECT_THAT(refusal({"list", "eplb"}), HasSubstr("there is no kind `eplb`, but there is one of that name in `epsim list placement`"));
  EXPECT_THAT(refusal({"list", "h100"}), HasSubstr("`epsim list device`"));
}

TEST_F(BadInput, AnOptionWithoutEffectIsRefused) {
  EXPECT_THAT(refusal({"run", experiment(), "--trace-layers", "2"}), HasSubstr("--trace-layers requires --out"));
  const std::string lost = refusal({"run", experiment(), "--set", "placement.slots=17", "--set", "placement=contiguous"});
  EXPECT_THAT(lost, AllOf(HasSubstr("--set:1:1: error: has no effect: `placement` is set after it"), HasSubstr("  placement.slots=17\n")));
  const std::string over = refusal({"compare", experiment(), "--over", "placement.slots=8,16", "--set", "placement.slots=24"});
  EXPECT_THAT(over, AllOf(HasSubstr("has no effect: `placement.slots` is set after it"), HasSubstr("  placement.slots=24\n"), Not(HasSubstr("problems"))));
  EXPECT_EQ(testing::run_program({"compare", experiment(), "--over", "placement=contiguous,random", "--set", "seed=3", "--seeds", "2"}).status, 0);
}

// I11
TEST_F(BadInput, ASettingOfAnotherPartNamesThePartsThatHaveIt) {
  const std::string said = refusal({"compare", experiment(), "--over", "capacity.factor=1,2"});
  EXPECT_THAT(said, AllOf(HasSubstr("capacity `dropless` has no setting `factor`; choose another capacity first, one that has it: "), HasSubstr("megatron")));
  EXPECT_THAT(refusal({"run", experiment(), "--set", "capacity.nothing=1"}), HasSubstr("capacity `dropless` has no setting `nothing`; nothing can be set here"));
}

TEST_F(BadInput, AFileOfAnotherKindIsRecognised) {
  const std::string config = write("config.json", R"({"model_type": "mixtral", "hidden_size": 8})"), training = std::string(EPSIM_SOURCE_DIR) + "/examples/train/trace.yaml";
  EXPECT_THAT(run_refusal(config), AllOf(HasSubstr("config.json:1:16: error: this is a model's config.json"), Not(HasSubstr("problems"))));
  EXPECT_THAT(run_refusal(training), AllOf(HasSubstr("this is a training, no experiment: use `epsim train FILE`"), Not(HasSubstr("problems"))));
}

TEST_F(BadInput, AModelOfTheHubNamesItsPreset) {
  EXPECT_THAT(refusal({"model", "deepseek-ai/DeepSeek-V3"}), HasSubstr("there is no file or folder `deepseek-ai/DeepSeek-V3`, did you mean the preset `deepseek-v3`?"));
  EXPECT_THAT(refusal({"model", "a/zzzzzzzzzzzz/"}), HasSubstr("`epsim list model` names the presets"));
  write("config.json", R"({"model_type": "mixtral", "hidden_size": 64, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
 "num_local_experts": 4, "num_experts_per_tok": 2, "vocab_size": 100, "tie_word_embeddings": false})");
  const Outcome folder = testing::run_program({"model", work_.root.string() + "/"});
  EXPECT_EQ(folder.status, 0) << folder.err;
  EXPECT_THAT(folder.out, HasSubstr("4 a layer, 2 a token"));
}

TEST_F(BadInput, ANumberOverALimitNamesTheLimit) {
  EXPECT_THAT(refusal({"run", experiment(), "--set", "replica={random: {seed: 2000000000000}}"}), HasSubstr("`seed` must be an integer from 0 to 1099511627776, got `2000000000000`"));
  EXPECT_THAT(refusal({"run", experiment(), "--set", "replica={random: {seed: -1}}"}), HasSubstr("`seed` must be an integer of at least 0, got `-1`"));
}

TEST_F(BadInput, BrokenYamlPointsAtItsPlace) {
  const std::string file = write("broken.yaml", "model: mixtral-8x7b\ncluster: {single_switch: {ranks: 2\n");
  EXPECT_THAT(run_refusal(file), HasSubstr(file + ":"));
  EXPECT_THAT(run_refusal(write("list.yaml", "- model\n")), HasSubstr("list.yaml:1:1: error: expected an experiment: a map of key: value"));
  EXPECT_THAT(run_refusal(write("empty.yaml", "")), HasSubstr("empty.yaml"));
}

TEST_F(BadInput, AModelThatContradictsItselfPointsIntoItsConfig) {
  const std::string config = write("config.json", R"({"model_type": "deepseek_v3", "hidden_size": 64, "intermediate_size": 128, "moe_intermediate_size": 32,
 "num_hidden_layers": 2, "first_k_dense_replace": 0, "n_routed_experts": 6,
 "num_experts_per_tok": 8,
 "n_group": 4, "topk_group": 2, "num_attention_heads": 4, "vocab_size": 100, "kv_lora_rank": 8, "q_lora_rank": 8,
 "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 4, "tie_word_embeddings": false})");
  for (const std::string& said : {run_refusal(experiment(config)), run_refusal(experiment("config.json")), refusal({"model", config})}) {
    EXPECT_THAT(said, HasSubstr(config + ":3:2: error: top_k is 8, but there are 6 experts"));
    EXPECT_THAT(said, HasSubstr(config + ":4:2: error: 4 groups do not divide 6 experts"));
    EXPECT_THAT(said, HasSubstr("2 problems; nothing was run"));
  }
}

TEST_F(BadInput, APlacementThatCannotBeNamesItsOptions) {
  const std::string loads = write("loads.json", R"({"logical_count": [[1, 2, 3, 4, 5, 6]]})");
  EXPECT_THAT(refusal({"place", "--loads", loads, "--slots", "8", "--ranks", "2", "--nodes", "1", "--groups", "4", "--policy", "eplb"}),
              HasSubstr("--groups:1:1: error: 6 experts do not divide into 4 groups of equal size"));
  EXPECT_THAT(refusal({"place", "--loads", loads, "--slots", "4", "--ranks", "2", "--nodes", "1", "--policy", "eplb"}),
              HasSubstr("--slots:1:1: error: 4 slots are fewer than the 6 experts"));
  EXPECT_THAT(refusal({"place", "--loads", path("none.json"), "--slots", "8", "--ranks", "2", "--nodes", "1", "--policy", "eplbb"}),
              AllOf(HasSubstr("none.json: error: no such file"), HasSubstr("did you mean `eplb`?")));
}

TEST_F(BadInput, LoadsThatNothingCanBePlacedByAreRefused) {
  const auto said = [&](const std::string& loads, const std::string& nodes) { return refusal({"place", "--loads", loads, "--ranks", "8", "--nodes", nodes, "--policy", "contiguous"}); };
  const std::string counts = write("loads.json", R"({"logical_count": [[1, 2, 3, 4, 5, 6, 7, 8]]})");
  EXPECT_THAT(said(counts, "3"), HasSubstr("--nodes:1:1: error: 8 ranks do not divide into 3 nodes of equal size"));
  EXPECT_THAT(said(write("zero.json", R"({"logical_count": [[0, 0, 0, 0, 0, 0, 0, 0]]})"), "1"), HasSubstr("zero.json: error: all counts are 0"));
  EXPECT_THAT(said(write("dump.json", R"({"logical_count": [[[1, 2], [3, 4]]]})"), "1"), HasSubstr("`epsim import FILE --out loads.json` does"));
  NpzWriter npz;
  const std::vector<std::int32_t> ids = {0, 1};
  npz.add("expert_ids", {1, 1, 2}, std::span<const std::int32_t>(ids));
  const std::string trace = write("trace.npz", npz.bytes());
  EXPECT_THAT(said(trace, "1"), AllOf(HasSubstr("is an .npz, expected JSON with `logical_count`: `epsim import " + trace), Not(HasSubstr("PK"))));
}

TEST_F(BadInput, ATruncatedTraceIsNamed) {
  NpzWriter npz;
  const std::vector<std::int32_t> ids = {0, 1, 2, 3, 4, 5, 6, 7};
  npz.add("expert_ids", {4, 1, 2}, std::span<const std::int32_t>(ids));
  const std::string whole = npz.bytes();
  const std::string file = experiment("mixtral-8x7b", "{single_switch: {ranks: 2, device: h100}}", "{trace: {file: trace.npz}}");
  write("trace.npz", whole);
  EXPECT_EQ(testing::run_program({"run", file}).status, 0);
  write("trace.npz", std::string("\x93NUMPY\x01\0", 8));
  EXPECT_THAT(run_refusal(file), AllOf(HasSubstr("is a bare .npy array"), HasSubstr("trace.npz --from vllm --out trace.npz` makes one of it")));
  NpzWriter other;
  other.add("routed", {4, 1, 2}, std::span<const std::int32_t>(ids));
  write("trace.npz", other.bytes());
  EXPECT_THAT(run_refusal(file), AllOf(HasSubstr("has no array `expert_ids`, but `routed` [4, 1, 2]"), HasSubstr("`epsim import`")));
  for (std::size_t length = 0; length < whole.size(); length += 1 + whole.size() / 16) {
    write("trace.npz", whole.substr(0, length));
    EXPECT_THAT(run_refusal(file), AllOf(HasSubstr(file + ":4:24: error: "), HasSubstr("trace.npz"))) << length << " bytes";
  }
}

TEST_F(BadInput, BrokenGraphmlPointsAtItsPlace) {
  const std::string file = experiment("mixtral-8x7b", "{graphml: {file: graph.xml, device: h100}}");
  const std::string graph = write("graph.xml", "<graphml>\n <graph edgedefault=\"directed\">\n  <node id=\"a\">\n </graph>\n</graphml>\n");
  EXPECT_THAT(run_refusal(file), HasSubstr(graph + ":4:2: error: is not XML: expected </node>"));
  write("graph.xml", "<graphml/>");
  EXPECT_THAT(run_refusal(file), HasSubstr(graph));
}

TEST_F(BadInput, AFileThatCannotBeReadIsNamed) {
  fs::create_directory(path("folder"));
  EXPECT_THAT(run_refusal(path("none.yaml")), HasSubstr(path("none.yaml") + ": error: no such file"));
  EXPECT_THAT(run_refusal(path("folder")), HasSubstr(path("folder") + ": error: is a folder, expected a file"));
  EXPECT_THAT(run_refusal(experiment("none/config.json")), HasSubstr("none/config.json"));
  EXPECT_THAT(run_refusal(experiment("mixtral-8x7c")), AllOf(HasSubstr("experiment.yaml:1:8: error: "), HasSubstr("did you mean `mixtral-8x7b`?")));
  for (const char* source : {"{trace: {file: none.npz}}", "{loads: {tokens: 4, file: none.json}}"}) {
    const std::string file = experiment("mixtral-8x7b", "{single_switch: {ranks: 2, device: h100}}", source);
    EXPECT_THAT(run_refusal(file), AllOf(HasSubstr(file + ":4:"), HasSubstr(path("none")), HasSubstr("no such file")));
  }
  EXPECT_THAT(run_refusal(experiment("mixtral-8x7b", "{graphml: {file: folder, device: h100}}")), HasSubstr(path("folder") + ": error: is a folder"));
}

TEST_F(BadInput, AnOutputThatCannotBeWrittenIsRefused) {
  const std::string file = experiment(), below = path("experiment.yaml/below/out");
  for (const std::string& out : {below, file}) {
    EXPECT_THAT(refusal({"run", file, "--out", out}), HasSubstr("--out " + out + ": error: "));
    EXPECT_THAT(refusal({"compare", file, "--over", "placement=contiguous,random", "--out", out}), HasSubstr("--out " + out + ": error: "));
  }
  EXPECT_EQ(testing::run_program({"run", file, "--out", path("made/out")}).status, 0);
  EXPECT_EQ(std::distance(fs::directory_iterator(path("made/out")), {}), 6);
}

TEST_F(BadInput, MatricesThatNoFileTakesAreRefusedBeforeAnythingIsSimulated) {
  // 32 layers x 1,000 batches, 2 links a rank or more, 10,000 parts of 16 bytes: 20 GB or more.
  const std::string file = experiment();
  const std::vector<std::string> many = {"run", file, "--set", "layers=0-31", "--set", "batches=1000", "--out", path("made/out")};
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.begin(), many.begin(), many.end());
    return refusal(more);
  };
  EXPECT_THAT(with({"--bins", "10000", "--trace-layers", "100000"}), AllOf(HasSubstr("--bins 10000: error: "), HasSubstr("matrices.npz would take"), HasSubstr("at most 4 GiB"), HasSubstr("fewer --bins or --trace-layers")));
}

// What `execute` does not play forwards as the framework does has no gradients either.
TEST_F(BadInput, BackwardOfWhatIsNotExecuted) {
  const std::string file = std::string(EPSIM_SOURCE_DIR) + "/examples/execute.yaml";
  const auto backward = [&](const std::string& setting) { return refusal({"execute", file, "--backward", "--set", setting}); };
  EXPECT_THAT(backward("capacity={megablocks: {form: moe, factor: 1}}"), AllOf(HasSubstr("capacity={megablocks"), HasSubstr("before anything is sent")));
  EXPECT_THAT(backward("source={zipf: {tokens: 16777216}}"), HasSubstr("fewer than 16777216 tokens"));
}

}  // namespace
}  // namespace epsim
