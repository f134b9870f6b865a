#pragma once
#include <compare>
#include <span>
#include <vector>

#include "policies/placement.h"

namespace epsim {

/// The rows that a layer's tokens send to other ranks under a placement without replicas, one to each rank that any of a token's experts is on, kept up while experts move: O(tokens of the expert x k + R) a move.
class RemoteRows {
 public:
  /// What is made less: the largest sum of rows into or out of a rank, then the rows of the busiest pair of ranks, then all of them (`busiest`); or all of them, then the largest sum into a rank, then the busiest pair (`all`).
  enum class Order { busiest, all };
  struct Cost {
    std::int64_t first = 0, second = 0, third = 0;
    friend auto operator<=>(const Cost&, const Cost&) = default;
  };

  /// Takes the tokens of all batches that the problem knows of the layer. `rank` [E].
  RemoteRows(const Problem& problem, std::size_t layer, std::vector<Rank> rank);

  void move(int expert, Rank to);
  Cost cost(Order order) const;
  Rank rank_of(int expert) const { return rank_[static_cast<std::size_t>(expert)]; }
  const std::vector<Rank>& ranks() const { return rank_; }
  Rank busiest() const;  ///< with the largest sum of rows into or out of it
  /// How many rows less there would be in all if an expert were on each rank, against one on which none of its tokens is or has another expert: [R].
  std::vector<std::int64_t> affinity(int expert) const;

 private:
  /// Tokens of one home that chose the same experts.
  struct Bundle {
    Rank home;
    std::int64_t tokens = 0;
  };
  std::span<const std::uint16_t> experts_of(std::size_t bundle) const { return std::span(expert_).subspan(bundle * top_k_, top_k_); }
  /// Adds a bundle's rows to a rank, and takes them away where `tokens` are negative.
  void add(const Bundle& bundle, Rank to, std::int64_t tokens);
  void settle(Rank to);

  std::vector<Rank> rank_;                        // [E]
  std::size_t top_k_ = 0;
  std::vector<Bundle> bundles_;
  std::vector<std::uint16_t> expert_;             // [bundles][k], ascending; padded with the first
  std::vector<std::vector<std::uint32_t>> of_expert_;  // [E] bundles
  Matrix<std::int64_t> rows_;                     // [to][from]
  std::vector<std::int64_t> in_, out_, most_to_;  // [R]
  std::int64_t all_ = 0;
};

/// Moves experts and swaps pairs, at most `changes` times, as long as the cost becomes less: the first change found that does. Ranks keep `least` to `most` experts.
std::vector<Rank> fewer_remote_rows(RemoteRows rows, RemoteRows::Order order, int least, int most, std::int64_t changes);

}  // namespace epsim
