#pragma once
#include <functional>

#include "policies/placement.h"

namespace epsim {

/// The problem with those of its batches for which `keeps` holds, oldest first from 0. It must know tokens; counts become those of its choices.
Problem with_batches(const Problem& problem, const std::function<bool(std::size_t batch)>& keeps);

/// The problem with its tokens dealt to batches anew: each batch gets as many tokens of each home rank as before, but any of that rank's from all batches, and this `times` over, so that there are `times` as many batches.
/// What holds of the mixed batches holds of the tokens and not of how they happened to meet. Where eight batches or more are known and experts are more popular in some of them than in others, beyond what chance makes of few tokens, it is so in the
/// mixed ones too, but of other experts: each is more or less popular in a batch by a lognormal factor of that variance, and tokens are drawn anew, as likely as the factors of their experts make them. It must know tokens; counts become those of its choices.
Problem mixed(const Problem& problem, int times);

}  // namespace epsim
