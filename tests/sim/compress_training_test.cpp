// Experts of a trained model merged and pruned.
#include "sim/train/compress.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "base/npz.h"
#include "tests/support/moe_oracle.h"
#include "tests/support/program.h"
#include "workloads/import/ours.h"

namespace epsim {
namespace {

using ::testing::Each;

constexpr const char* kSmall = R"(
model: {layers: 2, hidden: 16, experts: 4, expert_ffn: 12, top_k: 2}
batch: 4
sequence: 32
trace_tokens: 256
held_out_batches: 2
)";

class CompressTrainingTest : public ::testing::Test {
 protected:
  Training training(const std::vector<std::string>& set = {}) const {
    return read_training(std::make_shared<SourceText>(SourceText{"small.yaml", kSmall}), set, {text_}, builtin_catalogs()).runs.front();
  }
  static std::string simple_text() {
    std::string text;
    for (int i = 0; text.size() < 4000; ++i) text += i * i % 7 < 3 ? "expert " : i % 2 ? "token " : "rank ";
    return text;
  }

  testing::Workspace space_{"epsim_compress_training"};
  std::string text_ = space_.write("text.txt", simple_text());
};

// What is seen, from its definitions in double precision.
TEST_F(CompressTrainingTest, SeesSaliencyAndMeanOutputs) {
  const Training t = training();
  const TrainState state = begin_training(t);
  const std::vector<TextBatch> batches = training_batches(t, 2);
  const std::vector<ExpertsSeen> seen = see_experts(t, state, batches);
  ASSERT_EQ(seen.size(), 2U);
  const LayerShape& s = t.model.shape.moe;
  for (std::size_t l = 0; l < 2; ++l)
    for (std::int64_t e = 0; e < 4; ++e) {
      double saliency = 0;
      std::int64_t choices = 0;
      std::vector<double> mean(16);
      for (const TextBatch& batch : batches) {
        const TextForward f = forward(t.model, state.weights, batch);
        const testing::OracleLayer oracle(s, state.weights.blocks[l].moe, f.blocks[l].moe_normed);
        const Routed& r = f.blocks[l].moe.routed;
        for (std::int64_t token = 0; token < batch.tokens(); ++token) {
          std::vector<double> y(16);
          oracle.add_expert(2, s.ffn, e, oracle.x.data() + token * 16, 1, 1, y.data());
          for (std::size_t i = 0; i < 16; ++i) mean[i] += y[i] / 256;
          for (std::int64_t c = token * 2; c < token * 2 + 2; ++c)
            if (r.expert[static_cast<std::size_t>(c)] == e) {
              ++choices;
              saliency += double{r.weight[static_cast<std::size_t>(c)]} * std::sqrt(std::inner_product(y.begin(), y.end(), y.begin(), 0.0));
            }
        }
      }
      EXPECT_EQ(seen[l].choices[static_cast<std::size_t>(e)], choices);
      EXPECT_NEAR(seen[l].saliency[static_cast<std::size_t>(e)], choices > 0 ? saliency / static_cast<double>(choices) : 0, 1e-5);
      for (std::int64_t i = 0; i < 16; ++i) EXPECT_NEAR(seen[l].mean_output(e, i), mean[static_cast<std::size_t>(i)], 1e-5);
    }
}

TEST_F(CompressTrainingTest, LeavesAModelAsItIsWhereNothingChanges) {
  const Training t = training();
  const TrainState state = begin_training(t);
  const std::vector<ExpertsSeen> seen = see_experts(t, state, training_batches(t, 1));
  const CompressedTraining same = compressed(t, state, {unchanged(4), unchanged(4)}, seen, true);
  const CompressionMeasure m = measure(t, state, same);
  EXPECT_EQ(m.held_out_loss, evaluate(t, state).loss);
  EXPECT_THAT(m.error, Each(0));
  EXPECT_EQ(m.choices, 2);
  EXPECT_EQ(same.parameters, count_parameters(t).all);
  EXPECT_EQ(compressed_trace(same), to_trace(held_out_choices(t, state).value()));
  const Training bare = training({"trace_weights=false"});
  EXPECT_EQ(compressed_trace(compressed(bare, state, {unchanged(4), unchanged(4)}, seen, true)), to_trace(held_out_choices(bare, state).value()));
}

// Experts that begin as copies of one give the same merged, to the bit, and a token goes to fewer of them.
TEST_F(CompressTrainingTest, MergingEqualExpertsChangesNothing) {
  const Training t = training({"model.experts_init=same"});
  const TrainState state = begin_training(t);
  const std::vector<ExpertsSeen> seen = see_experts(t, state, training_batches(t, 1));
  const CompressedTraining made = compressed(t, state, {{2, {0, 1, 0, 1}, 0}, {2, {0, 0, 1, 1}, 0}}, seen, true);
  const CompressionMeasure m = measure(t, state, made);
  EXPECT_EQ(m.held_out_loss, evaluate(t, state).loss);
  EXPECT_THAT(m.error, Each(0));
  EXPECT_LT(m.choices, 2);
  EXPECT_EQ(made.parameters, count_parameters(t).all - 2 * 2 * 3 * 16 * 12);  // two experts of three matrices in each layer
}

TEST_F(CompressTrainingTest, PruningAnExpertThatNobodyChoosesChangesNothing) {
  const Training t = training(), fewer = training({"model.experts=3"});
  TrainState state = begin_training(t);
  for (TextBlockWeights& b : state.weights.blocks) b.moe.linear_bias = {0, 0, -1000, 0};
  const std::vector<ExpertsSeen> seen = see_experts(t, state, training_batches(t, 1));
  EXPECT_EQ(seen[0].choices[2], 0);
  const ExpertMap without{3, {0, 1, kNoExpert, 2}, 0};
  const CompressedTraining made = compressed(fewer, state, {without, without}, seen, false);
  const CompressionMeasure m = measure(t, state, made);
  EXPECT_EQ(m.held_out_loss, evaluate(t, state).loss);
  EXPECT_THAT(m.error, Each(0));
  EXPECT_EQ(compressed_trace(made), to_trace(held_out_choices(t, state).value()));  // by the numbers of the whole model
}

// Experts that compute nothing stay: in the gate, in the bias and behind the experts that are left.
TEST_F(CompressTrainingTest, ExpertsThatComputeNothingStay) {
  const std::vector<std::string> idle = {"router={zero_experts: {zero: 1, identity: 1, constant: 1}}", "losses=[bias_update]"};
  const Training t = training(idle), fewer = training({idle[0], idle[1], "model.experts=3"});
  TrainState state = begin_training(t);
  for (TextBlockWeights& b : state.weights.blocks) b.moe.linear_bias = {0, 0, -1000, 0, 0, 0, 0};
  const std::vector<ExpertsSeen> seen = see_experts(t, state, training_batches(t, 1));
  EXPECT_EQ(seen[0].choices[2], 0);
  EXPECT_EQ(seen[0].gate_products.columns, 4);
  EXPECT_LT(std::accumulate(seen[0].choices.begin(), seen[0].choices.end(), std::int64_t{0}), 2 * 128);
  const ExpertMap without{3, {0, 1, kNoExpert, 2}, 0};
  const CompressedTraining made = compressed(fewer, state, {without, without}, seen, false);
  EXPECT_EQ(made.state.bias[0].size(), 6U);
  EXPECT_EQ(made.state.weights.blocks[0].moe.linear_bias, (std::vector<float>{0, 0, 0, 0, 0, 0}));
  const CompressionMeasure m = measure(t, state, made);
  EXPECT_EQ(m.held_out_loss, evaluate(t, state).loss);
  EXPECT_THAT(m.error, Each(0));
  EXPECT_LT(m.choices, 2);  // of experts that compute
  EXPECT_EQ(compressed_trace(made), "");
  // All that compute merged into one: a token goes to one of them at most.
  const CompressedTraining one = compressed(t, state, {{1, {0, 0, 0, 0}, 0}, {1, {0, 0, 0, 0}, 0}}, seen, false);
  EXPECT_LT(measure(t, state, one).choices, 1);
}

// A pruned model is the one whose gate and experts were cut by hand.
TEST_F(CompressTrainingTest, PrunedExpertsLeaveTheGate) {
  const Training t = training(), fewer = training({"model.experts=3"});
  const TrainState state = begin_training(t);
  const std::vector<ExpertsSeen> seen = see_experts(t, state, training_batches(t, 1));
  const ExpertMap without{3, {kNoExpert, 0, 1, 2}, 0};
  const CompressedTraining made = compressed(fewer, state, {without, without}, seen, false);
  for (std::size_t l = 0; l < 2; ++l) {
    const LayerWeights &old = state.weights.blocks[l].moe, &now = made.state.weights.blocks[l].moe;
    for (std::size_t i = 0; i < 16; ++i)
      for (std::size_t e = 0; e < 3; ++e) EXPECT_EQ(now.gate[i * 3 + e], old.gate[i * 4 + e + 1]);
    EXPECT_EQ(now.experts.w2, std::vector<float>(old.experts.w2.begin() + 12 * 16, old.experts.w2.end()));
  }
  const CompressionMeasure m = measure(t, state, made);
  EXPECT_GT(m.error[0], 0);
  EXPECT_EQ(m.choices, 2);
}

TEST_F(CompressTrainingTest, ErrorIsTheRelativeLengthOfTheChange) {
  const Training t = training();
  TrainState state = begin_training(t), halved = state;
  const std::vector<ExpertsSeen> seen = see_experts(t, state, training_batches(t, 1));
  CompressedTraining made = compressed(t, state, {unchanged(4), unchanged(4)}, seen, false);
  for (float& w : made.state.weights.blocks[1].moe.experts.w2) w *= 0.5F;  // y becomes y / 2
  const CompressionMeasure m = measure(t, state, made);
  EXPECT_EQ(m.error[0], 0);
  EXPECT_NEAR(m.error[1], 0.5, 1e-6);
}

// All second choices skipped: what a top-1 gate with weights of 1 gives.
TEST_F(CompressTrainingTest, SkippedChoicesLeaveTheirWeightToTheFirst) {
  const Training t = training(), top1 = training({"model.top_k=1"});
  const TrainState state = begin_training(t);
  const std::vector<ExpertsSeen> seen = see_experts(t, state, training_batches(t, 1));
  ExpertMap all = unchanged(4);
  all.skip_below = 1.01;
  const CompressedTraining made = compressed(t, state, {all, all}, seen, false);
  const CompressionMeasure m = measure(t, state, made);
  EXPECT_EQ(m.choices, 1);
  EXPECT_NEAR(m.held_out_loss, evaluate(top1, state).loss, 1e-5);
  const auto trace = read_npz(std::make_shared<SourceText>(SourceText{"trace.npz", compressed_trace(made)}));
  EXPECT_EQ(trace.at("expert_ids").shape, (std::vector<std::int64_t>{256, 2, 2}));  // before anything is skipped
}

}  // namespace
}  // namespace epsim
