#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "policies/routing.h"

namespace epsim {

/// What becomes of the experts of a layer when they are made fewer: each becomes one of those that are left, or none.
struct ExpertMap {
  int experts = 0;                ///< that are left, numbered from 0
  std::vector<std::uint16_t> to;  ///< [E] the expert that it becomes; kNoExpert: it is pruned
  double skip_below = 0;          ///< a token's further choices whose weights are below this many times its first one's are not made; 0: all are

  int pruned() const;
  /// The same for a model that has no pruned experts any more, such as one whose gate has lost their columns.
  ExpertMap of_the_rest() const;
  /// Throws std::logic_error unless each expert that is left is what some expert becomes.
  void check() const;
};

/// A map that leaves `experts` as they are.
ExpertMap unchanged(int experts);

/// Rewrites the choices [k] of one token, kNoExpert where none is made. Choices that are skipped or whose expert is pruned are not made, and what they weighed goes to the token's others in proportion.
/// Experts behind those of the map compute nothing: they are kept, behind the experts that are left.
/// Choices that become one expert are one choice with the sum of their weights, in the place of the first. So a token has at most k choices of different experts, the made ones first, in the order that they were made in; they
/// weigh together what they weighed before, unless none is left.
void compress(const ExpertMap& map, std::span<std::uint16_t> experts, std::span<float> weights);

/// What was seen of a layer's experts on some tokens. What nobody asked for or knows is empty.
struct ExpertsSeen {
  int layer = 0;                      ///< model layer index
  int experts = 0;
  std::vector<std::int64_t> choices;  ///< [E]
  std::vector<float> second_shares;   ///< of each token with two choices, the second one's weight over the first one's
  Matrix<double> gate_products;       ///< [E][E] sums over tokens of products of two experts' gate logits; where only choices are known, of the weights that tokens gave the two
  std::vector<double> saliency;       ///< [E] mean over the tokens that chose an expert of weight times length of its output; 0 where none did
  Matrix<double> mean_output;         ///< [E][hidden] over all tokens, whether they chose the expert or not

  explicit ExpertsSeen(int layer_index, int count) : layer(layer_index), experts(count), choices(static_cast<std::size_t>(count)) {}
  ExpertsSeen() = default;

  /// Adds a routing's choices and second shares.
  void add(const Routing& routing);
  /// Adds to the products: of logits [T][E], or of the weights of a routing's choices.
  void add_products(std::span<const float> logits);
  void add_products(const Routing& routing);
  /// Cosine of the vectors over tokens that `gate_products` are the products of; 0 where one of them is zero.
  double likeness(int a, int b) const;
};

/// A way to make the experts of a layer fewer, decided from what was seen of them.
struct Compression {
  std::string_view summary;
  /// What it must see: nothing, or choices and perhaps more. `outputs` are those of trained experts: no source knows them.
  enum class Sees { nothing, choices, weights, gate, outputs } sees = Sees::nothing;
  int experts = 0;     ///< that are left
  int pruned = 0;      ///< of the others; the rest is merged
  bool skips = false;  ///< choices, too
  bool align = false;  ///< merged experts' hidden units are brought into the order of the most chosen one's before their weights are averaged
  std::function<ExpertMap(const ExpertsSeen&)> decide;  ///< null: nothing changes
};

using CompressionCatalog = Catalog<Compression, const Shape*>;
CompressionCatalog builtin_compressions();

}  // namespace epsim
