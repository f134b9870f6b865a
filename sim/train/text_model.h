#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "policies/loss.h"
#include "sim/moe/layer.h"

namespace epsim {

/// Classes of a byte-level model.
inline constexpr std::int64_t kBytes = 256;

/// The sizes of a byte-level language model: an embedding, blocks, a norm and a head. A block is x += mix(norm(x)), then x += moe(norm(x)), where mix(u) = (silu(u gate) convolved(u)) out
/// sees the last `taps` positions, and moe is an MoE layer.
struct TextModelShape {
  int layers = 0;  ///< blocks
  int taps = 0;    ///< of each mixer's convolution
  LayerShape moe;  ///< of each block; its `hidden` is the model's
};

/// The trainable numbers of a block, or their gradients.
struct TextBlockWeights {
  std::vector<float> mixer_norm;   ///< [hidden]
  std::vector<float> mixer_taps;   ///< [taps][hidden]
  std::vector<float> mixer_gate;   ///< [hidden][hidden]
  std::vector<float> mixer_out;    ///< [hidden][hidden]
  std::vector<float> moe_norm;     ///< [hidden]
  LayerWeights moe;
};

/// The trainable numbers of a model, or their gradients.
struct TextModelWeights {
  std::vector<float> embedding;  ///< [256][hidden]
  std::vector<TextBlockWeights> blocks;
  std::vector<float> norm;  ///< [hidden]
  std::vector<float> head;  ///< [hidden][256]
};

/// A named array of TextModelWeights.
struct TextModelTensor {
  enum class Role { gain, matrix, router, experts };  ///< gain: also the vectors of constant experts; router: also their gates; experts: one part for each expert, one after another
  std::string name;
  std::vector<std::int64_t> shape;
  std::vector<float>* values;
  Role role;
};
/// All arrays of a model of this shape, in a fixed order; arrays that are empty although their shape is not are left out.
std::vector<TextModelTensor> tensors(const TextModelShape& shape, TextModelWeights& weights);

/// How weights begin.
struct TextModelInit {
  std::uint64_t seed = 0;
  double router_scale = 1;    ///< of the gate's weights, whose variance is its square over hidden
  bool same_experts = false;  ///< all experts of a layer begin as copies of the first
};
TextModelWeights make_weights(const TextModelShape& shape, const TextModelInit& init);

/// The model, with how it routes; each block's MoE layer alike.
struct TextModel {
  TextModelShape shape;
  MoeLayer moe;              ///< its shape is `shape.moe`
  std::vector<Loss> losses;  ///< beside the cross entropy; summed over layers
};

/// Sequences of equal length that the model reads: each byte but a sequence's last is a token, and the next byte is what it is to foretell.
struct TextBatch {
  std::int64_t sequences = 0, length = 0;
  std::vector<std::uint8_t> bytes;  ///< [sequences][length + 1]
  std::uint64_t seed = 0;           ///< of routers that draw
  std::int64_t first_token = 0;     ///< global number of the first token
  bool training = false;

  std::int64_t tokens() const { return sequences * length; }
};

/// What a block's backward pass needs to know.
struct TextBlockForward {
  std::vector<float> in, scale, normed, convolved, gate, mixed;  ///< of the mixer
  std::vector<float> moe_in, moe_scale, moe_normed;
  LayerForward moe;
};

/// What a model gave.
struct TextForward {
  std::vector<std::int64_t> token_ids;  ///< [T]
  std::vector<std::uint8_t> targets;    ///< [T]
  std::vector<TextBlockForward> blocks;
  std::vector<float> out, scale, normed, logits;
  double cross_entropy = 0;  ///< mean, in nats a byte
};

/// `bias` [layers][columns] is added to scores for choosing only; empty: none.
TextForward forward(const TextModel& model, const TextModelWeights& weights, const TextBatch& batch, std::span<const std::vector<float>> bias = {});
/// The batch as the router of a layer sees it.
GateBatch gate_batch(const TextModel& model, const TextBatch& batch, const TextForward& forward, int layer, std::span<const std::vector<float>> bias);

struct TextGradients {
  TextModelWeights weights;
  double losses = 0;  ///< the model's losses, which are part of what the gradients are of
};
/// The gradients of cross entropy plus losses.
TextGradients backward(const TextModel& model, const TextModelWeights& weights, const TextBatch& batch, const TextForward& forward, std::span<const std::vector<float>> bias = {});

}  // namespace epsim
