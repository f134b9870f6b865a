#pragma once
#include <vector>

#include "base/rng.h"
#include "policies/schedule.h"
#include "sim/moe/expert_rows.h"

namespace epsim {

/// Plays a schedule with data in one process, in a random order among all that its dependencies allow: every message between two ranks, every kernel call and every reduce is one step, and
/// buffers are NaN until written. Gives the result of all tokens [T][hidden]. It is the main test of an exchange: an order that the dependencies should have forbidden shows as a NaN.
/// Throws std::logic_error where the dependencies leave something that can never start.
std::vector<float> rehearse(const Plan& plan, const Schedule& schedule, const std::vector<RankRows>& rows, const ExpertBank& experts, const std::vector<float>& x, Rng& order);

/// The gradients of sum(y * r), `r` being [T][hidden]: plays the same schedule forwards, and then with r for x and each expert's Jacobian transposed for the expert, every time in another random order.
/// `experts` are packed for both passes.
PlanGradients rehearse_backward(const Plan& plan, const Schedule& schedule, const std::vector<RankRows>& rows, bool shared_expert, const ExpertBank& experts, const std::vector<float>& x,
                                const std::vector<float>& r, Rng& order);

}  // namespace epsim
