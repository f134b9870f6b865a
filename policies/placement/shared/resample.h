#pragma once
#include "policies/placement.h"

namespace epsim {

/// The problem without every folds-th batch, beginning with batch `fold`, or with these batches only. It must know tokens; counts become those of its choices.
struct Fold {
  Problem seen, unseen;
};
Fold fold_of(const Problem& problem, std::size_t fold, std::size_t folds);

/// The problem with its tokens dealt to batches anew: each batch gets as many tokens of each home rank as before, but any of that rank's from all batches, and this `times` over, so that there are `times` as many batches.
/// What holds of the mixed batches holds of the tokens and not of how they happened to meet. It must know tokens; counts become those of its choices.
Problem mixed(const Problem& problem, int times);

}  // namespace epsim
