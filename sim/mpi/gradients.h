#pragma once
#include <functional>
#include <vector>

#include "policies/plan.h"
#include "sim/mpi/hosts.h"
#include "sim/mpi/world.h"

namespace epsim {

/// Moves the gradients [T][k] of the weights of choices from the processes that computed the copies, where they are filled in, to those that host the tokens. Nothing is added: it cannot change a bit.
void bring_home(World& world, const Hosts& hosts, const Plan& plan, std::vector<float>& d_weight);

/// Adds the gradients of each expert's slots, `size` numbers each, in the order of Placement::slots_of_expert, and gives all processes that host one of them the sum: [E], empty where this process hosts none.
/// `of_slot` is asked for the slots of this process. What is added, and in which order, depends on the plan alone.
std::vector<std::vector<float>> add_slots(World& world, const Hosts& hosts, const Plan& plan, std::size_t size, const std::function<std::vector<float>(Slot)>& of_slot);
/// Brings the root those sums that it lacks.
void gather_experts(World& world, const Hosts& hosts, const Plan& plan, std::size_t size, std::vector<std::vector<float>>& experts);

/// Adds what the ranks have, which are as many numbers each, in order of ranks, and gives all processes the sum. `parts` are those of the hosted ranks; they travel from process to process.
std::vector<float> add_ranks(World& world, std::vector<std::vector<float>> parts);

}  // namespace epsim
