#pragma once
#include <compare>
#include <cstdint>
#include <functional>
#include <ranges>

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

/// The ids 0 .. count-1, for loops: `for (Rank r : ids<Rank>(n))`.
template <class Id>
constexpr auto ids(std::int64_t count) {
  return std::views::iota(std::int64_t{0}, count) | std::views::transform([](std::int64_t v) { return Id(v); });
}

using Rank = Id<struct RankTag>;  ///< one plan rank, simulated or hosted by an MPI process
using Node = Id<struct NodeTag>;  ///< a group of ranks

}  // namespace epsim
