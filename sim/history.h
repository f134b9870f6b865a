#pragma once
#include <deque>
#include <memory>

#include "policies/placement.h"

namespace epsim {

/// What has been seen of one layer, batch by batch, as far as its placement is made from it.
class LayerHistory {
 public:
  LayerHistory() = default;
  /// Adds a batch: copies to compute [R][E], and its choices where the policy wants them.
  void add(Matrix<std::int64_t> counts, std::shared_ptr<const Routing> tokens);
  /// Lets go of the oldest batches until `count` are left.
  void keep(std::size_t count);
  /// Multiplies what was counted so far, before the next batch is added. The batches become one.
  void fade(double decay);

  LayerHistory oldest() const;               ///< its first batch alone
  std::vector<std::int64_t> loads() const;   ///< [E] over all batches and sources
  std::size_t batches() const { return each_.size(); }
  /// Adds this layer to a problem: its sums, its batches, its tokens.
  void tell(int layer, Problem& problem) const;

 private:
  struct Seen {
    Matrix<std::int64_t> counts;
    std::shared_ptr<const Routing> tokens;
  };
  std::deque<Seen> each_;
  Matrix<double> faded_;  // of `fade`; empty without
};

}  // namespace epsim
