#pragma once
#include "policies/placement.h"

namespace epsim {

/// How many of the last batches foretell later ones best: all, a half, a quarter and so on, at least two; all unless fewer miss a tenth less, and where fewer than eight are known, among which one odd batch would look like a trend.
/// Their mean load is to be near the mean of as many batches to come as are known. How near follows from how much batches differ that are so many apart (kriging of a block's mean from a variogram, Matheron 1963), by the squares of what shares of
/// the load differ, over all layers: where this grows with the distance for as long as there is anything to see, popularity drifts and old batches mislead; where it stays once a few batches are between, as with bursts, the last
/// batches tell no more of what comes than those before, and more of them are the better mean.
std::size_t telling_batches(const Problem& problem);

}  // namespace epsim
