#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/matrix.h"

namespace epsim {

struct Schedule;

/// How an all-to-all algorithm carries rows that nobody adds up or leaves out on the way: in rounds, hop by hop. A rank forwards a row in a later round than the one that brought it.
struct Journey {
  struct Hop {
    std::int32_t round = 0;
    Rank from, to;
    friend bool operator==(const Hop&, const Hop&) = default;
  };
  struct Round {
    std::vector<int> after;       ///< earlier rounds whose rows must have come to a rank before it begins this one
    std::vector<int> after_sent;  ///< earlier rounds whose messages from a rank must have arrived before it begins this one
    std::string name;             ///< empty: its number
  };
  std::vector<Round> rounds;
  std::int64_t rows_per_message = 0;  ///< as in Phase
  bool one_sided = false;
  /// Appends the hops of a row from `source` to `destination` in order of travel; none where they are one rank.
  std::function<void(Rank source, Rank destination, std::vector<Hop>& hops)> hops;

  /// The name of a round's phase: `stage` alone where there is one round.
  std::string name(const std::string& stage, int round) const;
};

/// The schedule that carries a matrix of bytes [source][destination] along a journey: one phase a round.
Schedule carry(const Journey& journey, const Matrix<std::int64_t>& bytes);

}  // namespace epsim
