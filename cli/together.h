#pragma once
#include <functional>

#include "sim/mpi/world.h"

namespace epsim {

/// What a verb does on the MPI processes that a launcher started, all of which call alike; on this one alone where there was no launcher.
struct TogetherWork {
  std::function<void(const World&)> read;  ///< reads and checks the input; throws InputError where it is wrong
  std::function<void()> prepare;           ///< what the root does before anything is computed, such as making folders; throws InputError likewise
  std::function<int(World&)> work;         ///< gives the exit status
};

/// Starts MPI and does one after the other. Where one process finds the input wrong, all stop, and the first that has something to say says it: exit status 2. Any other exception ends all processes at once.
int run_together(const TogetherWork& todo);

}  // namespace epsim
