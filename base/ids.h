#pragma once
#include <cstdint>

namespace epsim {

/// A tagged integer: reads as a number (it may index arrays), but is only made explicitly, so a Slot can never be passed for a Rank.
template <class Tag>
struct Id {
  std::int32_t value = -1;
  constexpr Id() = default;
  constexpr explicit Id(std::int64_t v) : value(static_cast<std::int32_t>(v)) {}
  constexpr operator std::int32_t() const { return value; }
  constexpr bool valid() const { return value >= 0; }
};

/// The ids 0 .. count-1, for loops: `for (Rank r : ids<Rank>(n))`. (Half a range library is not worth compiling into every file.)
template <class Id>
struct IdRange {
  struct Iterator {
    std::int64_t at;
    constexpr Id operator*() const { return Id(at); }
    constexpr Iterator& operator++() { return ++at, *this; }
    constexpr bool operator!=(const Iterator& other) const { return at != other.at; }
  };
  std::int64_t count;
  constexpr Iterator begin() const { return {0}; }
  constexpr Iterator end() const { return {count}; }
};
template <class Id>
constexpr IdRange<Id> ids(std::int64_t count) {
  return {count};
}

using Rank = Id<struct RankTag>;  ///< one plan rank, simulated or hosted by an MPI process
using Node = Id<struct NodeTag>;  ///< a group of ranks

}  // namespace epsim
