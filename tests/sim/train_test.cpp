#include "sim/train/train.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "base/npz.h"
#include "sim/train/checkpoint.h"
#include "tests/support/part_from_yaml.h"
#include "tests/support/program.h"
#include "workloads/import/ours.h"

namespace epsim {
namespace {

using testing::input_error;

/// A text that is easy to learn: three words, drawn by a rule.
std::string simple_text() {
  std::string text;
  for (int i = 0; text.size() < 4000; ++i) text += i * i % 7 < 3 ? "expert " : i % 2 ? "token " : "rank ";
  return text;
}

constexpr const char* kSmall = R"(
model: {layers: 2, hidden: 16, experts: 4, expert_ffn: 16, top_k: 2}
losses: [balance: {coefficient: 0.01}]
steps: 30
batch: 4
sequence: 32
evaluate_every: 10
warmup: 0
)";

class TrainTest : public ::testing::Test {
 protected:
  TrainingFile read(const std::string& yaml, const std::vector<std::string>& set = {}) const {
    return read_training(std::make_shared<SourceText>(SourceText{"small.yaml", yaml}), set, {text_}, builtin_catalogs());
  }
  Training one(const std::vector<std::string>& set = {}) const { return read(kSmall, set).runs.front(); }
  std::string error(const std::string& yaml, const std::vector<std::string>& set = {}) const {
    return input_error([&] { read(yaml, set); });
  }

  testing::Workspace space_{"epsim_train"};
  std::string text_ = space_.write("text.txt", simple_text());
};

TEST_F(TrainTest, LearnsASimpleText) {
  const Training t = one({"steps=60", "learning_rate=0.02"});
  TrainState state = begin_training(t);
  const double before = evaluate(t, state).loss;
  EXPECT_NEAR(before, std::log(256), 0.3);  // the first guess is nearly even
  while (state.step < t.steps) step(t, state);
  EXPECT_LT(evaluate(t, state).loss, 2.0);
  EXPECT_LT(state.records.back().loss, state.records.front().loss);
}

// The first step of Adam moves every weight by the learning rate against its gradient's sign, whatever its size.
TEST_F(TrainTest, FirstStepOfAdamMovesByTheLearningRate) {
  const Training t = one({"learning_rate=0.01", "router_learning_rate=0.002", "weight_decay=0", "clip=0"});
  TrainState state = begin_training(t);
  TextModelWeights before = state.weights;
  step(t, state);
  const auto old = tensors(t.model.shape, before), now = tensors(t.model.shape, state.weights);
  for (std::size_t a = 0; a < now.size(); ++a) {
    const double rate = now[a].role == TextModelTensor::Role::router ? 0.002 : 0.01;
    int full = 0, moved = 0;
    for (std::size_t i = 0; i < now[a].values->size(); ++i) {
      const double by = std::abs(double{(*now[a].values)[i]} - (*old[a].values)[i]);
      EXPECT_LE(by, rate * 1.001) << now[a].name;
      moved += by > 0, full += by > 0.9 * rate;
    }
    EXPECT_GT(full, 0.9 * moved) << now[a].name;
    EXPECT_GT(moved, 0) << now[a].name;
  }
  // A gradient that is clipped far below Adam's epsilon of 1e-8 hardly moves anything.
  const Training clipped = one({"learning_rate=0.01", "weight_decay=0", "clip=1e-10"});
  TrainState other = begin_training(clipped);
  step(clipped, other);
  EXPECT_EQ(other.records.front().gradient_norm, state.records.front().gradient_norm);
  for (std::size_t i = 0; i < before.head.size(); ++i) EXPECT_NEAR(other.weights.head[i], before.head[i], 1e-4);
}

TEST_F(TrainTest, CountsWhatIsDropped) {
  const Training t = one({"capacity={megatron: {factor: 0.5}}"});
  TrainState state = begin_training(t);
  step(t, state);
  // 128 tokens, two choices each, four experts: each keeps at most 32 of the 64 that it gets in the mean.
  for (const std::int64_t kept : state.kept) EXPECT_LE(kept, 32);
  std::int64_t choices = 0, kept = 0;
  for (std::size_t i = 0; i < state.kept.size(); ++i) choices += state.choices[i], kept += state.kept[i];
  EXPECT_EQ(choices, 2 * 2 * 128);
  EXPECT_NEAR(state.records.front().drop_rate, 1 - static_cast<double>(kept) / static_cast<double>(choices), 1e-12);
  EXPECT_GE(state.records.front().drop_rate, 0.5);
}

TEST_F(TrainTest, BiasFollowsTheLoad) {
  const Training t = one({"losses=[{bias_update: {rate: 0.01}}]"});
  TrainState state = begin_training(t);
  step(t, state);
  for (std::size_t e = 0; e < 8; ++e) {
    const double mean = 2 * 128 / 4.0, by = static_cast<double>(state.kept[e]) < mean ? 0.01 : static_cast<double>(state.kept[e]) > mean ? -0.01 : 0;
    EXPECT_NEAR(state.bias[e / 4][e % 4], by, 1e-8);
  }
}

// Zero, identity and constant experts stand behind the others: in the gate, in the bias, and in what is counted.
TEST_F(TrainTest, TrainsExpertsThatComputeNothing) {
  const std::vector<std::string> idle = {"router={zero_experts: {zero: 1, identity: 1, constant: 2}}", "losses=[{bias_update: {rate: 0.01}}, {balance: {coefficient: 0.01}}]", "learning_rate=0.02", "capacity={megatron: {factor: 0.5}}"};
  const Training t = one(idle);
  TrainState state = begin_training(t);
  const TextModelWeights before = state.weights;
  const double first = evaluate(t, state).loss;
  step(t, state);
  ASSERT_EQ(state.choices.size(), 2U * 8);
  EXPECT_EQ(std::accumulate(state.choices.begin(), state.choices.end(), std::int64_t{0}), 2 * 2 * 128);
  for (const std::size_t e : {4U, 5U, 6U, 7U, 12U, 13U, 14U, 15U}) {
    EXPECT_GT(state.choices[e], 0);
    EXPECT_EQ(state.kept[e], state.choices[e]) << "they take no place of a capacity";
  }
  for (std::size_t e = 0; e < 16; ++e) EXPECT_NEAR(std::abs(state.bias[e / 8][e % 8]), 0.01, 0.0101);
  EXPECT_EQ(experts_csv(t, state).substr(0, experts_csv(t, state).find('\n')), "step,layer,choices,dropped,e0,e1,e2,e3,zero0,identity0,constant0,constant1");
  while (state.step < t.steps) step(t, state);
  EXPECT_LT(evaluate(t, state).loss, first - 2);
  for (std::size_t l = 0; l < 2; ++l) {
    EXPECT_EQ(state.weights.blocks[l].moe.constant.size(), 2U * 16);
    EXPECT_EQ(state.weights.blocks[l].moe.constant_gate.size(), 2U * 16 * 2);
    EXPECT_NE(state.weights.blocks[l].moe.constant, before.blocks[l].moe.constant);
    EXPECT_NE(state.weights.blocks[l].moe.constant_gate, before.blocks[l].moe.constant_gate);
  }
  EXPECT_FALSE(held_out_choices(t, state).has_value());
  const ParameterCount count = count_parameters(t), without = count_parameters(one());
  EXPECT_EQ(count.active, without.active + 2 * 4 * 16);                   // four columns more of each gate
  EXPECT_EQ(count.all, without.all + 2 * (4 * 16 + 2 * 16 + 2 * 2 * 16));  // and the vectors and matrices of constant experts
}

TEST_F(TrainTest, DenseTwinHasTheActiveParametersOfTheModel) {
  const std::vector<std::string> shared = {"model.shared_ffn=8"};
  const ParameterCount moe = count_parameters(one(shared)), dense = count_parameters(one({"model.shared_ffn=8", "model.dense=true"}));
  EXPECT_EQ(dense.all, dense.active);
  EXPECT_EQ(moe.active, dense.active + 2 * 16 * 4);  // but for the gates of two layers
  EXPECT_EQ(moe.all - moe.active, 2 * 2 * 3 * 16 * 16);  // two idle experts of three matrices in each layer
}

TEST_F(TrainTest, CopiesOfAnExpertAreAlike) {
  const Training same = one({"model.experts_init=same"});
  EXPECT_NEAR(evaluate(same, begin_training(same)).similarity, 1, 1e-6);
  const Training own = one();
  EXPECT_LT(std::abs(evaluate(own, begin_training(own)).similarity), 0.3);
}

class TrainTestOfRouters : public TrainTest, public ::testing::WithParamInterface<const char*> {};
INSTANTIATE_TEST_SUITE_P(TrainTest, TrainTestOfRouters, ::testing::Values("topk: {noise: 1}", "zero_experts: {zero: 1, identity: 1, constant: 2, noise: 1}"));

TEST_P(TrainTestOfRouters, CheckpointGoesOnWithTheSameBits) {
  const Training t = one({"losses=[{bias_update: {rate: 0.01}}, {balance: {coefficient: 0.01}}]", "router={" + std::string(GetParam()) + "}"});
  TrainState whole = begin_training(t);
  for (int i = 0; i < 8; ++i) step(t, whole);
  TrainState half = begin_training(t);
  for (int i = 0; i < 3; ++i) step(t, half);
  TrainState resumed = read_checkpoint(t, std::make_shared<SourceText>(SourceText{"checkpoint.npz", checkpoint(t, half)}));
  EXPECT_EQ(resumed.step, 3);
  for (int i = 3; i < 8; ++i) step(t, resumed);
  EXPECT_EQ(checkpoint(t, resumed), checkpoint(t, whole));
  EXPECT_EQ(steps_csv(resumed), steps_csv(whole));
}

TEST_F(TrainTest, ABiasThatNoChoiceGoesByIsRefused) {
  EXPECT_NE(error(kSmall, {"losses=[bias_update]", "router=top_p"}).find("a loss moves a bias by which this router does not choose"), std::string::npos);
  EXPECT_EQ(error(kSmall, {"losses=[bias_update]", "router=topk"}), "");
}

TEST_F(TrainTest, CheckpointOfAnotherTrainingIsRefused) {
  const Training t = one(), other = one({"learning_rate=0.5"});
  const auto bytes = std::make_shared<SourceText>(SourceText{"checkpoint.npz", checkpoint(t, begin_training(t))});
  EXPECT_NE(input_error([&] { read_checkpoint(other, bytes); }).find("checkpoint of another training"), std::string::npos);
  for (const char* same : {"checkpoint_every=3", "trace_tokens=3", "trace_weights=false"}) EXPECT_EQ(input_error([&] { read_checkpoint(one({same}), bytes); }), "") << same;
  EXPECT_NE(input_error([&] { read_checkpoint(t, std::make_shared<SourceText>(SourceText{"checkpoint.npz", bytes->text.substr(0, bytes->text.size() / 2)})); }), "");
}

TEST_F(TrainTest, TraceHoldsHeldOutChoices) {
  const Training t = one({"trace_tokens=300"});  // two batches of 128
  const auto arrays = read_npz(std::make_shared<SourceText>(SourceText{"trace.npz", to_trace(held_out_choices(t, begin_training(t)).value())}));
  EXPECT_EQ(arrays.at("expert_ids").shape, (std::vector<std::int64_t>{256, 2, 2}));
  EXPECT_EQ(arrays.at("expert_weights").shape, (std::vector<std::int64_t>{256, 2, 2}));
  EXPECT_EQ(arrays.at("layers").integers, (std::vector<std::int64_t>{0, 1}));
  const Training bare = one({"trace_tokens=300", "trace_weights=false"});
  const auto fewer = read_npz(std::make_shared<SourceText>(SourceText{"trace.npz", to_trace(held_out_choices(bare, begin_training(bare)).value())}));
  EXPECT_EQ(fewer.at("expert_ids").integers, arrays.at("expert_ids").integers);
  EXPECT_FALSE(fewer.contains("expert_weights"));
}

TEST_F(TrainTest, VariantsAndSeedsMakeRuns) {
  const TrainingFile f = read(std::string(kSmall) + "seeds: [4, 7]\nvariants:\n  plain: {losses: []}\n  wide: {model: {hidden: 32}}\n");
  ASSERT_EQ(f.runs.size(), 4U);
  EXPECT_EQ(f.runs[1].name, "plain-seed7");
  EXPECT_EQ(f.runs[1].seed, 7U);
  EXPECT_TRUE(f.runs[0].model.losses.empty());
  EXPECT_EQ(f.runs[3].model.shape.moe.hidden, 32);
  EXPECT_EQ(f.runs[3].model.shape.moe.experts, 4);  // what a variant does not change it keeps
  EXPECT_EQ(f.runs[3].model.losses.size(), 1U);
}

TEST_F(TrainTest, SaysWhatIsWrongWithSettings) {
  const auto says = [&](const std::string& yaml, const std::string& what, const std::vector<std::string>& set = {}) { EXPECT_NE(error(yaml, set).find(what), std::string::npos) << error(yaml, set); };
  says("trace_tokens: 0\ntrace_weights: false", "no choices are recorded (`trace_tokens: 0`): this has no effect");
  says("trace_weights: 3", "`trace_weights` must be");
  says("stepz: 3", "did you mean `steps`");
  says("model: {expertz: 3}", "did you mean `experts`");
  says("model: {top_k: 9}", "top_k");
  says("router: tokp", "did you mean `topk`");
  says("losses: [balanse]", "did you mean `balance`");
  says("learning_rate: -1", "learning_rate");
  says("sequence: 100000", "too few for a batch");
  says("seed: 3\nseeds: [1]", "`seed` has no effect");
  says("seeds: [1, 1]", "given once");
  says("panels: [los]", "did you mean `loss`");
  says("variants: {a: {text: x}}", "for all variants alike");
  says("variants: {a/b: {}}", "no slashes");
  says("[1]", "expected an experiment");
  says(kSmall, "expected key=value", {"steps"});
  // All in one pass, and what variants share once.
  const std::string all = error("stepz: 3\nmodel: {expertz: 3}\nvariants: {a: {}, b: {}}");
  EXPECT_NE(all.find("stepz"), std::string::npos);
  EXPECT_NE(all.find("expertz"), std::string::npos);
  EXPECT_EQ(all.find("`stepz`"), all.rfind("`stepz`"));
}

}  // namespace
}  // namespace epsim
