#pragma once
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "base/matrix.h"

namespace epsim {

/// Rows that cross between nodes at least, whatever lies where, when a token goes once to each node that computes some of its copies, its own aside. A token with k copies that spread over nodes needs the fewer rows the more of them its own
/// node computes, and the more pairs of them one node computes; both are bounded for all tokens together:
/// - copies that the tokens' own nodes compute: for each expert those of the node that wants it most, with a replica those of one node more; or for each node those of the experts that it wants most, as many as it has slots;
/// - pairs of copies that one node computes: an expert has no more than m - 1 others beside it in a node of m slots, with a replica as many again, and shares with each as many tokens as want both. Without replicas, also what the
///   nodes' loads allow: were choices independent, experts of L copies in one node had g L^2 / 2 pairs with the same g everywhere, less those of an expert with itself; what they have beyond that is a quadratic form of the experts in a node,
///   so no more than its largest eigenvalue times what it is measured in, copies (as in spectral bounds on graph partitions: Donath and Hoffman, 1973).
/// The bound is the Lagrange dual of spreading each token as it would like to under these two totals, over all prices.
class FewestCrossings {
 public:
  /// `wanted`: [E][nodes] copies by expert and the node of their tokens; `together`: [E][E] tokens with copies of both; `tokens`: [k] of so many copies; `slots`: of the node that has most. O(E^2 log E).
  FewestCrossings(const Matrix<std::int64_t>& wanted, const Matrix<std::int64_t>& together, std::span<const std::int64_t> tokens, std::int64_t slots);
  /// Finds what `balanced` and `touched` rest on. O(E^3) for up to 512 experts; they say little for more.
  void find_excess(const Matrix<std::int64_t>& wanted, const Matrix<std::int64_t>& together);
  /// With at most so many replicas. `own_of_replica`: copies that one more replica lets the tokens' own nodes compute, at most, where that is known to be less than what is wanted there. O((log E)^2 k^2) for each number of copies that tokens have.
  double with(std::int64_t replicas, double own_of_replica = std::numeric_limits<double>::infinity()) const;
  /// Without replicas, where no node computes more than `most` copies.
  double balanced(double most) const;
  /// Tokens, of whatever home, of which a node computes something that computes so many copies, without replicas; rises. They are the square of copies over copies and twice their pairs (Cauchy and Schwarz).
  double touched(double copies) const;

 private:
  /// A way to spread a token's copies.
  struct Spread {
    double rows, pairs, own;  ///< to other nodes; pairs beside each other; copies in its own node
  };
  double dual(double pair_price, double own_price, double pairs, double own) const;
  double rows(double pairs, double own) const;

  std::vector<std::pair<double, std::vector<Spread>>> tokens_;  // how many, and what each of them can do
  double pairs_ = 0, own_ = 0, most_own_ = 0;                   // without replicas; of the nodes' slots
  std::vector<double> more_pairs_, more_own_;                   // what the first replicas add at most, summed
  double copies_ = 0, squares_ = 0;                             // of all experts; of each, squared
  double density_ = 0, excess_ = std::numeric_limits<double>::infinity();  // g; pairs beyond it, twice, for each copy
};

}  // namespace epsim
