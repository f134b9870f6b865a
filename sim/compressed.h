#pragma once
#include <map>
#include <memory>
#include <mutex>

#include "policies/compression.h"
#include "sim/rebalance.h"

namespace epsim {

/// A model before its experts are made fewer, and what may be seen of it.
struct Uncompressed {
  Source source;
  Router router;  ///< of a source of scores
  int experts = 0, top_k = 0;
  std::uint64_t seed = 0;
  BatchRange seen;  ///< batches that maps are decided from
};

/// The maps of a model whose experts are made fewer, decided layer by layer when they are first asked for; from any number of threads.
class Compressed {
 public:
  Compressed(Compression compression, Uncompressed whole) : compression_(std::move(compression)), whole_(std::move(whole)) {}

  /// Experts that the gate still has: all of a source of ready choices, else all that are not pruned.
  int columns() const { return whole_.source.yields == Source::Yields::choices ? whole_.experts : whole_.experts - compression_.pruned; }
  /// What becomes of a layer's experts, and the same of those that the gate still has.
  struct Layer {
    ExpertMap map, of_columns;
  };
  const Layer& layer(int layer) const;
  const Uncompressed& whole() const { return whole_; }

 private:
  Compression compression_;
  Uncompressed whole_;
  mutable std::mutex mutex_;
  mutable std::map<int, Layer> layers_;
};

/// The model's source as its gate sees it without pruned experts: their scores are left out. One of ready choices stays as it is.
Source without_pruned(const std::shared_ptr<const Compressed>& compressed);

/// Rewrites the choices of home ranks [begin, end).
void compress(const Compressed& compressed, int layer, int begin, int end, Routing& routing);

}  // namespace epsim
