#pragma once
#include <optional>
#include <string>
#include <vector>

#include "sim/experiment.h"
#include "sim/mpi/player.h"

namespace epsim {

/// What executing the backward pass of a layer showed. Filled in on the root process.
struct BackwardExecution {
  bool bit_identical = false;      ///< every gradient equals the serial reference's to the last bit
  double max_abs_error = 0;        ///< largest difference
  bool rows_match_plan = false;    ///< rows received of every pair and phase equal the schedule's, which is the forward pass's
  std::int64_t rows_moved = 0, bytes_moved = 0;  ///< by the schedule, in float32; sums of gradients of weights travel besides
  StageSeconds measured;           ///< of the schedule: median over repeats of the slowest process
};

/// What executing one layer showed. Filled in on the root process.
struct LayerExecution {
  int layer = 0;
  std::string plan_digest;         ///< agreed by all processes
  bool bit_identical = false;      ///< the result equals the serial reference to the last bit
  double max_abs_error = 0;        ///< largest difference from the serial reference
  double max_abs_error_plain = 0;  ///< the same, where the reference adds in plain choice order
  bool rows_match_plan = false;    ///< rows received of every pair and phase equal the schedule's
  std::int64_t rows_moved = 0;     ///< rows that crossed between ranks
  std::int64_t bytes_moved = 0;    ///< their bytes, in float32
  StageSeconds measured;           ///< median over repeats of the slowest process
  StageSeconds simulated;          ///< the same schedule priced at float32 and the real sizes, on the file's cluster
  std::optional<BackwardExecution> backward;
};

struct ExecuteOptions {
  std::string dump;  ///< folder for dump.npz; empty: none. Needs exactly one layer
  int repeats = 3;   ///< times each layer is played, for measuring (the first also warms up)
  bool backward = false;  ///< also plays the backward pass of sum(y * r) with seeded r
};

/// Reports what stands in the way of a backward pass.
void check_backward(const Experiment& experiment, Diagnostics& problems);

/// Throws InputError where there are more processes than plan ranks, a dump is wanted of more than one layer, this machine cannot hold the layer, or a backward pass is wanted of what
/// has none here. All processes agree on it.
void check_execution(const World& world, const Experiment& experiment, const ExecuteOptions& options);

/// Executes every layer of the experiment with real experts on the processes of `world`, each hosting a contiguous block of plan ranks, and compares with the serial reference.
/// Throws std::runtime_error where processes disagree on a plan.
std::vector<LayerExecution> execute(World& world, const Experiment& experiment, const ExecuteOptions& options);

}  // namespace epsim
