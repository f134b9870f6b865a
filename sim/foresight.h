#pragma once
#include <memory>
#include <vector>

#include "policies/routing.h"

namespace epsim {

/// What the choices in one layer foretell of the next: how often a token that chose one expert chose each expert of the layer after it, in all batches seen so far. Prefetchers of experts ask the same
/// (MoE-Infinity of activations by sequence; Megatron-LM's `analyze_routing_predictability` of the gate itself).
class Foresight {
 public:
  explicit Foresight(std::size_t layers) : followed_(layers) {}

  /// The routing of a layer of a batch; layers come in order. What it follows is learnt, and it is what the next layer is foretold from.
  void see(std::size_t layer, const Routing& routing);
  /// Choices that a layer is expected to get, [R][E], from what the batch chose in the layer before: whole numbers, each rounded. Empty where nothing is known: of the first layer, and before any batch was seen.
  Matrix<std::int64_t> of(std::size_t layer) const;

 private:
  struct Choices {
    std::vector<std::int64_t> first_token;
    std::vector<std::uint16_t> expert;
    int top_k = 1, experts = 0;
  };
  Choices last_;                                // of the layer before
  std::size_t next_ = 0;                        // the layer that follows it
  std::vector<Matrix<std::int64_t>> followed_;  // [layers][E before][E]; empty: not seen
};

}  // namespace epsim
