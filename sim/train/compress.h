#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "policies/compression.h"
#include "sim/train/train.h"

namespace epsim {

/// What is seen of each layer's experts while a trained model reads some batches: [layers].
std::vector<ExpertsSeen> see_experts(const Training& training, const TrainState& state, const std::vector<TextBatch>& batches);

/// A trained model whose experts were made fewer, as one that can be computed: its gate has the columns of the experts that are not pruned and of those that compute nothing, and in the place of each of them are the weights of the expert that it becomes.
struct CompressedTraining {
  Training training;
  TrainState state;             ///< weights and bias alone
  std::vector<ExpertMap> maps;  ///< [layers]
  Router gate;                  ///< which chooses before any choice is skipped
  std::int64_t parameters = 0;  ///< trainable numbers, those of merged experts counted once
};
/// `columns` is the training with as many experts as the gate has columns left, and `state` that of the whole model. The capacity must be without limits: one of a merged expert is not that of its places.
CompressedTraining compressed(Training columns, const TrainState& state, std::vector<ExpertMap> maps, const std::vector<ExpertsSeen>& seen, bool align);

/// What became of a model on held-out text.
struct CompressionMeasure {
  double held_out_loss = 0;   ///< nats a byte, of the batches that `evaluate` looks at
  std::vector<double> error;  ///< [layers] length of the change of the MoE layer's output over the length of the output, over all tokens of these batches, on the inputs that it has in the whole model
  double imbalance = 0;       ///< choices of the most chosen of the experts that are left and compute over their mean, mean over layers
  double choices = 0;         ///< different experts that a token goes to, mean over tokens and layers
};
CompressionMeasure measure(const Training& whole, const TrainState& state, const CompressedTraining& compressed);

/// Choices of held-out text as the .npz of `source: trace`, by the numbers that experts have in the whole model and before any is merged or skipped: with the maps as `compression: given` they are those of the compressed model.
/// Empty where the gate leaves choices open, where some are of experts that compute nothing, or where nothing is wanted.
std::string compressed_trace(const CompressedTraining& compressed);

}  // namespace epsim
