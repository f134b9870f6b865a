#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "sim/moe/expert.h"

namespace epsim {

/// Rows that an expert computes in both passes: what it keeps of them forwards, and makes of them backwards. Rows travel unweighted, forwards and back: y = sum of w FFN(x), dx = sum of w J^T dy.
struct ExpertRows {
  std::vector<std::int64_t> place;       ///< of each row: its choice in [T][k], or its token where the expert is the shared one
  std::vector<float> x, dy;              ///< [rows][hidden]
  std::vector<float> g, u, a, dg, du;    ///< [rows][ffn], as FfnRows has them
  std::vector<float> d_weight;           ///< [rows] FFN(x) . dy: the gradient of the weight that the row's result is added with

  /// out = FFN(in) of each row, [rows][hidden].
  void forward(const ExpertBank& experts, int expert, std::span<const float> in, std::span<float> out);
  /// out = J^T in of each row, J being the derivative of FFN at the row's x; after `forward`, with an expert that was added for both passes.
  void backward(const ExpertBank& experts, int expert, std::span<const float> in, std::span<float> out);
};

/// The gradients of w1, w3 and w2 behind one another, from all rows of an expert (or of one of its replicas), which may be spread over several calls. Rows are taken in order of `place`, whatever the order in which they
/// came, and summed in chunks of kChunkRows. `weight` [T][k] is what their results are added with; empty: 1.
std::vector<float> weight_gradients(const FfnShape& shape, std::span<const ExpertRows* const> calls, std::span<const float> weight);

/// The gradients of weights that several hold, each from its own tokens: parts[0] + parts[1] + ... in this order.
std::vector<float> add_replicas(std::span<const std::vector<float>> parts);

/// The gradients of sum(y * r) of a planned layer, y being what `reference` computes.
struct PlanGradients {
  std::vector<float> x;         ///< [T][hidden] through the experts: the weights of choices are constant
  std::vector<float> d_weight;  ///< [T][k] of the weights of choices; 0 where a choice was not made, or dropped
  std::vector<std::vector<float>> experts;  ///< [E] of w1, w3 and w2 behind one another: each slot's from its own rows, slots added in the order of Placement::slots_of_expert
  std::vector<float> shared;                ///< likewise: each rank's from the tokens it computes, ranks added in order; empty: there is no shared expert
  std::vector<float> constant, constant_gate;  ///< of constant experts (LayerWeights): each rank's from its own tokens, ranks added in order
};

}  // namespace epsim
