// part_matrix MODELS: plays a covering set of routers, capacities and exchanges (tests/support/part_matrix.h) on the processes that mpirun started, in both passes where the parts allow it, and says on a line each
// what was planned. Exit status 1 where a result differs from the serial reference's bits, or rows from the plan's.
#include <cstdlib>
#include <exception>

#include "sim/mpi/execute.h"
#include "tests/support/part_matrix.h"

int main(int argc, char** argv) {
  using namespace epsim;
  if (argc != 2) return 2;
  const std::string models = argv[1];
  setenv("EPSIM_THREADS", "1", 0);  // processes share the machine already
  World world(argc, argv);
  bool good = true;
  try {
    const Catalogs catalogs = builtin_catalogs();
    for (const testing::Combination& c : testing::covering(catalogs)) {
      const Experiment e = c.read(models, catalogs);
      ExecuteOptions options;
      options.repeats = 1, options.backward = testing::backward_refusal(c).empty();
      check_execution(world, e, options);
      for (const LayerExecution& l : execute(world, e, options)) {
        if (!world.root()) continue;
        const bool proven = l.bit_identical && l.rows_match_plan && (!options.backward || (l.backward->bit_identical && l.backward->rows_match_plan));
        good = good && proven;
        fmt::print("{}: plan {}, {} rows, {}{}\n", c.name(), l.plan_digest, l.rows_moved, proven ? "the reference's bits" : "NOT THE REFERENCE'S BITS", options.backward ? " in both passes" : "");
      }
    }
  } catch (const std::exception& error) {
    fmt::print(stderr, "process {}: {}\n", world.rank(), error.what());
    World::abort(1);
  }
  return good ? 0 : 1;
}
