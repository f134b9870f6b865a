#pragma once
#include <cstdint>

namespace epsim {

/// The seed of a part that draws and has a `seed` of its own: of the experiment's and the part's; without the latter (0) the experiment's.
constexpr std::uint64_t seed_of(std::uint64_t experiment, std::uint64_t part) { return experiment + part * 0x9e3779b97f4a7c15U; }

}  // namespace epsim
