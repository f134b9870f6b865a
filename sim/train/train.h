#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "sim/train/record.h"
#include "sim/train/training.h"
#include "workloads/import/recording.h"

namespace epsim {

/// Everything that the next step depends on, and what was recorded.
struct TrainState {
  int step = 0;  ///< steps done
  TextModelWeights weights, mean, square;  ///< AdamW's means of the gradients and of their squares
  std::vector<std::vector<float>> bias;    ///< [layers][columns]; empty where no loss keeps one
  std::vector<StepRecord> records;
  std::vector<std::int64_t> choices, kept;  ///< [steps][layers][columns]
};
TrainState begin_training(const Training& training);

/// One step: a batch forwards and backwards, and AdamW's update. Where the model computes a block of the experts, weights of others are not updated, until `gather_experts`.
void step(const Training& training, TrainState& state);

/// Batches of the training text, those of the first `count` steps.
std::vector<TextBatch> training_batches(const Training& training, int count);
/// Batches of held-out text, spread evenly over it, that `evaluate` looks at.
std::vector<TextBatch> evaluation_batches(const Training& training);
/// Batches of held-out text whose choices are recorded.
std::vector<TextBatch> trace_batches(const Training& training);

/// What the held-out text shows.
struct Evaluation {
  double loss = 0;        ///< cross entropy, nats a byte
  double similarity = 0;  ///< of experts: mean cosine between two experts' outputs for the same token, over pairs, tokens and layers; 0 with one expert
};
Evaluation evaluate(const Training& training, const TrainState& state);

/// Gives every process the experts' numbers that others computed.
void gather_experts(const Training& training, TrainState& state);

/// Choices of held-out text, settled, and their weights unless these are unwanted; all tokens in whole batches, up to `trace_tokens`. None where the router leaves choices open, where some are of experts that compute nothing, or where nothing is wanted.
std::optional<Recording> held_out_choices(const Training& training, const TrainState& state);

/// Trainable numbers, and those of them that one token computes with at most; a gate of one expert, which changes nothing, is not counted.
struct ParameterCount {
  std::int64_t all = 0, active = 0;
};
ParameterCount count_parameters(const Training& training);

}  // namespace epsim
