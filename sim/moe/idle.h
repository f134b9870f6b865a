#pragma once
#include <cstdint>
#include <span>
#include <utility>

#include "sim/moe/layer.h"

namespace epsim {

/// What experts give that compute nothing (IdleExperts), and its gradients. An expert is named by its column of the gate.
class IdlePass {
 public:
  /// All must outlive this.
  IdlePass(const LayerShape& shape, const LayerWeights& weights, std::span<const float> x) : s_(shape), w_(weights), x_(x) {}

  /// What an expert gives for a token: a row of x, or one that is written to `room` [hidden]; null where it gives nothing.
  const float* row(std::int64_t token, int expert, float* room) const;

  /// Adds what comes of the kept choices of such experts to y [T][hidden], in choice order.
  void forward(const Routed& routed, std::span<float> y) const;
  /// Adds what comes through the kept choices of such experts to dx [T][hidden], and fills in their d_weight [T][k] and the gradients of `constant` and `constant_gate`, summed over an expert's choices as an
  /// expert's weights are.
  void backward(const Routed& routed, std::span<const float> dy, std::span<float> dx, std::span<float> d_weight, LayerWeights& gradients) const;

 private:
  enum class Kind { zero, identity, constant };
  Kind kind(int expert) const;
  std::size_t constant(int expert) const { return static_cast<std::size_t>(expert - s_.experts - s_.idle.zero - s_.idle.identity); }
  /// The shares (a1, a2) of the token and the vector.
  std::pair<float, float> shares(const float* x, std::size_t constant) const;

  const LayerShape& s_;
  const LayerWeights& w_;
  std::span<const float> x_;
};

}  // namespace epsim
