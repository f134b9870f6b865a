#pragma once
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "policies/idle_experts.h"
#include "policies/routed.h"
#include "sim/moe/dispatch.h"
#include "sim/moe/ffn.h"

namespace epsim {

/// The trainable numbers of an MoE layer, or their gradients, by the names that .npz files give them. Empty: the layer has none.
struct LayerWeights {
  std::vector<float> gate;         ///< [hidden][columns]
  std::vector<float> linear_bias;  ///< [columns], added to the gate's logits
  ExpertWeights experts;           ///< of all experts, one after another
  ExpertWeights shared;            ///< of the shared expert, which every token goes to
  std::vector<float> shared_gate;  ///< [hidden]: the shared expert's result is weighed by sigmoid(x shared_gate) (Qwen2-MoE); else by 1
  std::vector<float> constant;       ///< [constant experts][hidden]: their vectors v
  std::vector<float> constant_gate;  ///< [constant experts][hidden][2]: their matrices W
};

/// The sizes of an MoE layer and how it computes.
struct LayerShape {
  std::int64_t hidden = 0, ffn = 0;
  int experts = 0;  ///< that compute
  std::int64_t shared_ffn = 0;  ///< width of the shared expert; 0: there is none. Several shared experts are one of their summed width
  Activation activation = Activation::swiglu;
  bool weigh_input = false;  ///< a choice gives FFN(weight x), as in Llama 4, instead of weight FFN(x)
  Precision precision = Precision::fp32;  ///< of the experts' matrix products; the gate is always float32
  IdleExperts idle = {};  ///< behind the others; what they give is always weighed after

  int columns() const { return experts + idle.count(); }  ///< of the gate
  FfnShape expert() const { return {hidden, ffn, activation, precision}; }
  FfnShape shared() const { return {hidden, shared_ffn, activation, precision}; }
};

/// A named array of LayerWeights with its shape.
struct LayerTensor {
  std::string name;
  std::vector<std::int64_t> shape;
  std::vector<float>* values;
};
/// All arrays that a layer of this shape may have, also those that are empty, always in the same order.
std::vector<LayerTensor> tensors(const LayerShape& shape, LayerWeights& weights);
/// Zeros, as many as the weights are.
LayerWeights zeros_like(const LayerWeights& weights);

/// The experts that one of several processes computes, all of which have all tokens and do the rest of the layer alike. Bits do not depend on who computes which expert.
struct ExpertBlock {
  int first = 0, last = 0;  ///< experts [first, last)
  /// Fills in what other processes computed: values of `width` to a row, where rows [first_row[e], first_row[e + 1]) are expert e's. All processes call it together.
  std::function<void(std::span<float> values, std::int64_t width, std::span<const std::int64_t> first_row)> complete;
};

/// A Mixture-of-Experts layer: y = the sum over a token's kept choices of weight FFN(x), or weight times what an idle expert gives, in choice order, and then the shared expert's result.
struct MoeLayer {
  LayerShape shape;
  Router router;
  Capacity capacity;
  std::optional<ExpertBlock> block;  ///< none: this process computes all experts. Else only their weights are used, and only their gradients are given
};

/// The tokens of a batch that a layer computes.
struct LayerTokens {
  std::span<const float> x;  ///< [T][hidden]
  GateBatch batch;           ///< what the router needs to know besides; the layer itself fills in tokens, experts and logits
};

/// What a layer gave, and what its backward pass needs to know.
struct LayerForward {
  std::vector<float> y;       ///< [T][hidden]
  std::vector<float> logits;  ///< [T][columns]
  Routed routed;
  Dispatch dispatch;
  std::vector<float> g, u;                ///< [rows][ffn] of the dispatched rows
  std::vector<float> shared_g, shared_u;  ///< [T][shared_ffn]
  std::vector<float> shared_scale;        ///< [T]; empty where the shared expert is not weighed
};

struct LayerGradients {
  std::vector<float> x;  ///< [T][hidden]
  LayerWeights weights;
};

/// The batch as the router sees it, with the logits of `forward`.
GateBatch gate_batch(const MoeLayer& layer, const LayerTokens& tokens, std::span<const float> logits);

/// Computes the layer. Rows do not depend on their neighbours (but for what the router makes of a batch), and nothing depends on the number of threads.
LayerForward forward(const MoeLayer& layer, const LayerWeights& weights, const LayerTokens& tokens);

/// The gradients of a loss whose gradient to y is `dy`, and to the logits, besides what comes through y, `dlogits` (of balance losses; empty: none).
/// Sums over tokens are made in chunks of kChunkRows rows of each expert (of all tokens, for the gate) in token order.
LayerGradients backward(const MoeLayer& layer, const LayerWeights& weights, const LayerTokens& tokens, const LayerForward& forward, std::span<const float> dy,
                        std::span<const float> dlogits = {});

}  // namespace epsim
