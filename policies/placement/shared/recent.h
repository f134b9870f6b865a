#pragma once
#include "policies/placement.h"

namespace epsim {

/// How many of the last batches foretell later ones best: all, a half, a quarter and so on, at least two; all where fewer than eight are known, among which one odd batch would look like a trend.
/// Judged by what happened: from each batch of the later half on, the mean load of all batches before, of the later half of them and so on is held against every batch that followed (rolling origin, Tashman 2000), by the
/// squares of what shares of the load are wrong, over all layers. Where popularity stays as it is, more batches are the better mean; where it drifts, old ones mislead.
std::size_t telling_batches(const Problem& problem);

}  // namespace epsim
