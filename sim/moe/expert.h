#pragma once
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <vector>

#include "sim/moe/ffn.h"

namespace epsim {

/// The id under which the shared expert keeps its weights.
inline constexpr int kSharedExpert = -1;

/// Seeded weights of a SwiGLU expert of a layer, y = (silu(x w1) * (x w3)) w2, without biases, uniform with variance 1/hidden (w1, w3) and 1/ffn (w2). They depend on (seed, layer, expert) alone.
ExpertWeights make_expert_weights(std::uint64_t seed, int layer, int expert, std::int64_t hidden, std::int64_t ffn);

/// The numbers of constant experts (policies/idle_experts.h).
struct ConstantWeights {
  std::vector<float> vectors;   ///< [count][hidden]
  std::vector<float> matrices;  ///< [count][hidden][2]
};
/// Seeded ones of a layer, uniform with variance 1 (vectors) and 1/hidden (matrices). Those of an expert depend on (seed, layer, its place) alone.
ConstantWeights make_constant_weights(std::uint64_t seed, int layer, int count, std::int64_t hidden);

/// Real SwiGLU experts in float32, which compute one after another on one core: a process is one rank's worth of compute. A row's result does not depend on the rows beside it.
class ExpertBank {
 public:
  explicit ExpertBank(std::int64_t hidden) : hidden_(hidden) {}

  /// The passes that an expert is packed for.
  enum class Passes { forward, both };
  /// Packs an expert's weights for use; replaces those of the same id.
  void add(int expert, std::int64_t ffn, const ExpertWeights& weights, Passes passes = Passes::forward);
  void remove(int expert);
  bool holds(int expert) const;
  std::int64_t hidden() const { return hidden_; }
  std::int64_t ffn(int expert) const { return held(expert).ffn; }
  FfnShape shape(int expert) const { return {hidden_, ffn(expert), Activation::swiglu, Precision::fp32}; }
  /// Computes rows [n][hidden] with an expert it holds. `out` has the same size and may not overlap `rows`.
  void forward(int expert, std::span<const float> rows, std::span<float> out) const;
  /// The same, which also gives x w1 and x w3, [n][ffn] each, for `backward`.
  void forward(int expert, std::span<const float> rows, std::span<float> out, std::span<float> g, std::span<float> u) const;
  /// Computes the gradients of rows, with an expert that was packed for both passes.
  void backward(int expert, const FfnRows& rows) const;

 private:
  struct Held {
    std::int64_t ffn;
    Ffn expert;
    std::optional<FfnBackward> backward;
  };
  const Held& held(int expert) const;
  std::int64_t hidden_;
  std::map<int, Held> experts_;
};

}  // namespace epsim
