#pragma once
#include "policies/placement.h"

namespace epsim {

/// What a layer's time would be under a placement, guessed from the tokens of its batches and brought up to date when an expert changes place: what a search tries thousands of.
/// The rank that takes longest to wait for a way's latency, take in its rows, compute, and give the results, half in the mean over batches and half for all batches together, which an outlier disturbs less; or the rank whose own tokens' rows
/// take longest, and then the mean of computing. Rows go by a rank's ports into its node and to other nodes. Copies of an expert with several places go to them in turn, as the replica rule `round_robin` deals.
/// Waiting for others and the links behind the ports are left out: a simulation must judge what the guess proposes.
class LayerGuess {
 public:
  /// What an exchange sends once: a row for each copy, for each rank that a token reaches, or for each node it reaches (and then one for each rank inside).
  enum class Rows { copy, rank, node };

  /// Whether the batches shown are to be fast, or others. In others an expert has as many copies in the mean, and far more or none by chance, for tokens of a text choose alike: their number is taken as geometric, which varies as much as it is large.
  /// An expert that is seldom chosen is then read from memory now and then; judged by its mean alone it would be in every batch.
  enum class Batches { shown, to_come };

  /// Places are slots that may stay empty: [first[r], first[r+1]) are those of rank r. Without tokens it goes by counts, without `expert_seconds` by copies, and without a machine transfers cost nothing.
  LayerGuess(const Problem& problem, std::size_t layer, std::vector<std::int32_t> first, Rows rows, Batches of);

  /// -1: empty.
  static constexpr int kEmpty = -1;
  /// Begins anew with these experts: [places].
  void set(std::vector<int> expert_of_place);
  const std::vector<int>& experts() const { return expert_of_place_; }
  int copies(int expert) const { return static_cast<int>(places_of_[static_cast<std::size_t>(expert)].size()); }
  int rank_of_place(int place) const { return rank_of_place_[static_cast<std::size_t>(place)]; }
  std::span<const std::int32_t> first() const { return first_; }

  /// Exchanges the experts of two places.
  void swap(int a, int b);
  /// Puts another expert, or none, in a place. The expert that leaves must have another place.
  void put(int place, int expert);
  /// Takes back the last `swap` or `put`, once.
  void undo();

  double seconds() const;
  int slowest_rank() const;   ///< the one that computes longest, over all batches
  int busiest_rank() const;   ///< the one whose port is busiest
  double load_of(int expert) const { return static_cast<double>(choices_first_[static_cast<std::size_t>(expert) + 1] - choices_first_[static_cast<std::size_t>(expert)]); }

 private:
  struct Choice {
    std::uint32_t token;
    std::uint32_t ordinal;  ///< which place of the expert's: ordinal mod places
  };
  struct Ports {
    std::int64_t node_in = 0, node_out = 0, far_in = 0, far_out = 0;  ///< rows
  };

  /// Seconds of a batch that a rank's rows take, both exchanges together: of those that it serves, and of its own tokens'.
  struct Turns {
    double serves = 0, home = 0;
  };

  /// What the last change has changed, as it was.
  struct Change {
    std::vector<std::pair<int, std::vector<int>>> sent;  ///< experts and their places, in the order of the change
    std::vector<std::pair<int, int>> held;               ///< places and their experts
    std::vector<int> ranks;
    std::vector<double> compute_s;                       ///< of those ranks, one after another
    std::vector<Ports> ports;
  };

  void count_row(int home, int rank, bool on_node, std::int64_t sign);
  void come(std::uint32_t token, int rank);
  void leave(std::uint32_t token, int rank);
  template <typename Move>
  void deal(int expert, const std::vector<int>& before, const std::vector<int>& places, Move&& move);
  void send(int expert, std::vector<int> places);
  void forget_change();
  void refresh();
  double seconds_of(double copies) const;      // of those looked at
  double expert_seconds(double copies) const;  // the same, from a table
  double mean_seconds(double copies) const;    // of so many in the mean
  void expect();
  Turns turns(const Ports& p) const;

  const Problem& problem_;
  Rows rows_;
  int top_k_ = 0, batches_ = 0;
  double scale_ = 1;                           // tokens for each token that is looked at
  double near_wait_s_ = 0, far_wait_s_ = 0;    // latency of the longest way inside a node, and of any, there and back
  double near_row_s_ = 0, far_row_s_ = 0;      // seconds a row keeps a port busy, both exchanges
  std::vector<std::int32_t> first_;            // [R+1]
  std::vector<std::int32_t> rank_of_place_;    // [places]
  std::vector<std::int32_t> node_of_;          // [R]
  Matrix<std::int32_t> gateway_;               // [R][nodes] where the rows of a home rank enter another node: at the rank that has the sender's place. Only for Rows::node
  std::vector<std::uint32_t> choices_first_;   // [E+1]
  std::vector<Choice> choices_;                // by expert
  std::vector<std::uint16_t> batch_of_, home_; // [T]
  Matrix<std::uint16_t> on_rank_, on_node_;    // [T][R], [T][nodes] copies of a token there
  std::vector<int> expert_of_place_;
  std::vector<std::vector<int>> places_of_;    // [E], ascending
  Matrix<std::int32_t> copies_;                // [places][batches], of those looked at
  Matrix<std::int32_t> looked_at_;             // [E][batches] copies of those looked at
  Matrix<double> weight_;                      // [E][batches] what a copy that is looked at stands for beyond the mean: loads are exact where tokens are sampled
  std::vector<Ports> ports_;                   // [R]
  std::vector<double> cost_of_copies_;         // seconds by number of copies that are looked at
  std::vector<double> expected_s_;             // seconds by mean copies, where they come by chance
  Matrix<double> compute_s_;                   // [R][batches + 1]; the last: all batches together
  std::vector<char> stale_;                    // [R] whose compute_s_ must be added up again
  std::vector<int> stale_ranks_;
  mutable std::vector<double> serves_s_;       // [R] of `seconds`
  Change last_;
};

}  // namespace epsim
