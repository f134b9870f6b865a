#pragma once
#include <memory>
#include <vector>

#include "sim/compute/compute.h"
#include "sim/network/network.h"
#include "sim/timeline.h"

namespace epsim {

/// Plays schedules on one network and one set of ranks, so that schedules may overlap (two micro-batches, migration beside tokens).
class Engine {
 public:
  Engine(const Topology& topology, Network& network, const ComputeModel& compute, Precision precision, Timeline::Detail detail = Timeline::Detail::rank);
  ~Engine();
  /// Adds a schedule; each rank begins it when it is done with every schedule in `after`. Gives its number. The schedule must outlive `run`.
  int add(const Schedule& schedule, std::vector<int> after = {});
  /// Runs until nothing is left; gives one Timeline a schedule. Throws std::logic_error on a schedule that cannot finish.
  std::vector<Timeline> run();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// One schedule by itself.
Timeline simulate(const Schedule& schedule, const Topology& topology, const NetworkModel& network, const ComputeModel& compute, Precision precision,
                  Timeline::Detail detail = Timeline::Detail::rank);

}  // namespace epsim
