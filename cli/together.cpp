#include "cli/together.h"

#include <cstdio>
#include <cstdlib>
#include <optional>

#include <fmt/format.h>

#include "cli/cli.h"
#include "cli/output.h"

namespace epsim {

int run_together(const TogetherWork& todo) {
  static char name[] = "epsim";
  static char* arguments[] = {name, nullptr};
  int count = 1;
  char** values = arguments;
  setenv("EPSIM_THREADS", "1", 0);  // processes share the machine already
  World world(count, values);
  try {
    std::optional<InputError> problem;
    try {
      todo.read(world);
    } catch (const InputError& error) {
      problem = error;
    }
    // Mostly every process finds the same; but a file may be unreadable for one of them alone, and then all must stop.
    const double speaker = -world.max(problem ? -world.rank() : -world.size());
    if (speaker == world.rank()) print_problems(*problem);
    if (speaker < world.size()) return kBadInput;
    bool ready = true;
    if (world.root()) try {
        todo.prepare();
      } catch (const InputError& error) {
        print_problems(error);
        ready = false;
      }
    return world.all(ready) ? todo.work(world) : kBadInput;
  } catch (const std::exception& error) {
    // Others may be waiting for this process for ever: end them all.
    fmt::print(stderr, "epsim: process {} of {} failed: {}\n", world.rank(), world.size(), error.what());
    std::fflush(nullptr);
    World::abort(dynamic_cast<const InputError*>(&error) ? kBadInput : kFailed);
  }
}

}  // namespace epsim
