#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/matrix.h"

namespace epsim {

class RowCounts;
struct Schedule;

/// How an all-to-all algorithm carries rows that nobody adds up or leaves out on the way: in rounds, hop by hop. All is said by the last hop of each pair of ranks: what comes before it is the way from the
/// source to the rank that sends it. Rounds rise along a way.
struct Journey {
  struct Round {
    std::vector<int> after;       ///< earlier rounds whose rows must have come to a rank before it begins this one
    std::vector<int> after_sent;  ///< earlier rounds whose messages from a rank must have arrived before it begins this one
    std::string name;             ///< empty: its number
  };
  std::vector<Round> rounds;
  std::int64_t rows_per_message = 0;  ///< as in Phase
  bool one_sided = false;

  struct LastHop {
    std::int32_t round = 0;
    Rank from;
  };
  /// The last hop of a row from `source` to `destination`, another rank.
  std::function<LastHop(Rank source, Rank destination)> last;

  struct Hop {
    std::int32_t round = 0;
    Rank from, to;
    friend bool operator==(const Hop&, const Hop&) = default;
  };
  /// Writes the hops of a row from `source` to `destination` in order of travel; none where they are one rank.
  void find(Rank source, Rank destination, std::vector<Hop>& hops) const;
  /// Adds rows [source][destination] to the counts of the rounds that carry them, on every hop. O(R^2) for any length of ways.
  void count(const Matrix<std::int64_t>& rows, std::span<RowCounts> of_rounds) const;
  /// The name of a round's phase: `stage` alone where there is one round.
  std::string name(const std::string& stage, int round) const;
};

/// The schedule that carries a matrix of bytes [source][destination] along a journey: one phase a round.
Schedule carry(const Journey& journey, const Matrix<std::int64_t>& bytes);

}  // namespace epsim
