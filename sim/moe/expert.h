#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <vector>

namespace epsim {

/// The matrices of one SwiGLU expert, y = (silu(x w1) * (x w3)) w2: w1 and w3 are [hidden][ffn], w2 is [ffn][hidden], row-major.
struct ExpertWeights {
  std::vector<float> w1, w3, w2;
};

/// The id under which the shared expert keeps its weights.
inline constexpr int kSharedExpert = -1;

/// Seeded weights of an expert of a layer, uniform with variance 1/hidden (w1, w3) and 1/ffn (w2). They depend on (seed, layer, expert) alone.
ExpertWeights make_expert_weights(std::uint64_t seed, int layer, int expert, std::int64_t hidden, std::int64_t ffn);

/// Real experts in float32. A row's result does not depend on the rows beside it: every matrix product runs on tiles of one fixed number of rows, zero-padded,
/// because libraries may round differently for different row counts.
class ExpertBank {
 public:
  static constexpr int kTileRows = 32;

  explicit ExpertBank(std::int64_t hidden);
  ~ExpertBank();
  ExpertBank(const ExpertBank&) = delete;
  ExpertBank& operator=(const ExpertBank&) = delete;

  /// Packs an expert's weights for use; replaces those of the same id.
  void add(int expert, std::int64_t ffn, const ExpertWeights& weights);
  void remove(int expert);
  bool holds(int expert) const;
  std::int64_t hidden() const { return hidden_; }
  /// Computes rows [n][hidden] with an expert it holds. `out` has the same size and may not overlap `rows`.
  void forward(int expert, std::span<const float> rows, std::span<float> out) const;

 private:
  struct Product;
  struct Packed;
  std::int64_t hidden_;
  std::map<std::int64_t, std::shared_ptr<const Product>> products_;  // by ffn
  std::map<int, std::unique_ptr<const Packed>> experts_;
};

}  // namespace epsim
