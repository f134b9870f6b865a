#pragma once
#include <memory>
#include <vector>

#include "sim/compute/compute.h"
#include "sim/network/network.h"
#include "sim/timeline.h"

namespace epsim {

/// Plays schedules on one network and one set of ranks, so that schedules may overlap (two micro-batches, migration beside tokens).
/// A rank begins a phase when it is done with every phase in `after` and all its own messages of every transfer in `after_sent` have arrived. It then sends all its messages of a transfer at once, and is done with the transfer when it has begun it and every message to it
/// has arrived; one that receives nothing is done when it begins. Rows of 0 bytes are no message. Kernels and reduces of a rank run one at a time, reduces first, else in the order they become ready
/// (at one picosecond: in the order of the schedules and phases that they waited for); calls of one phase run in their order. A rank without rows in a kernel phase, or bytes in a reduce, is done when it begins. What happens at one picosecond is handled in rank order.
class Engine {
 public:
  /// All arguments must outlive `run`. The network must be fresh.
  Engine(const Topology& topology, Network& network, const ComputeModel& compute, Precision precision, Timeline::Detail detail = Timeline::Detail::rank);
  ~Engine();
  /// Adds a schedule; each rank begins it when it is done with every schedule in `after`. Gives its number. The schedule must outlive `run`.
  /// Throws std::logic_error where a phase or schedule waits for itself or a later one, a shape does not fit the ranks, or a count is negative.
  int add(const Schedule& schedule, std::vector<int> after = {});
  /// Runs until nothing is left, once; gives one Timeline a schedule, all on one clock. Throws std::logic_error on a schedule that cannot finish or needs more than 100 days.
  std::vector<Timeline> run();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// One schedule by itself.
Timeline simulate(const Schedule& schedule, const Topology& topology, const NetworkModel& network, const ComputeModel& compute, Precision precision,
                  Timeline::Detail detail = Timeline::Detail::rank);

}  // namespace epsim
