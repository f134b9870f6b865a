#pragma once
#include <functional>
#include <memory>

#include "sim/experiment.h"
#include "sim/history.h"
#include "sim/timeline.h"

namespace epsim {

/// What it cost a layer to be placed anew before a batch.
struct Relocation {
  bool decided = false;      ///< the policy was asked
  std::int64_t changed_slots = 0, moved_experts = 0, peers = 0;
  Bytes bytes = 0;           ///< of weights that moved between ranks
  double moving_s = 0;       ///< from the first byte to the last
  double waited_s = 0;       ///< before the layer could begin: blocking moves
  double slowed_s = 0;       ///< that the layer itself took longer: overlapped moves, in its timeline
};

/// One simulated layer of one batch: who went where, what each rank did, and when.
struct LayerRun {
  int batch = 0;
  Plan plan;
  Schedule schedule;
  Timeline timeline;
  double lower_bound_s = 0;
  Relocation relocation;
};

/// Routes one layer of a batch for home ranks [begin, end).
void route_layer(const Experiment& experiment, int batch, int layer, int begin, int end, Routing& routing);
/// Lowers and simulates one planned layer.
LayerRun run_plan(const Experiment& experiment, Plan plan, Timeline::Detail detail);

/// An experiment in progress: takes routed layers batch by batch, makes placements as `fit` and `rebalance` say, and plays each layer. It holds what placements are made from and nothing else;
/// several experiments whose tokens choose alike can be fed with the same routing. Not for several threads at once.
class Run {
 public:
  explicit Run(const Experiment& experiment);  ///< the experiment must outlive the run

  /// The batches to give, in order: first those of `fit` to `see`, then those of `eval` to `plan` or `play`; of each, every layer in order.
  void see(std::size_t layer, std::shared_ptr<const Routing> routing);
  /// Settles a layer of a batch.
  Plan plan(int batch, std::size_t layer, Routing routing);
  /// Settles, lowers and simulates a layer of a batch.
  LayerRun play(int batch, std::size_t layer, Routing routing, Timeline::Detail detail);

  /// Clock seconds that the placement policy took so far. No output that must be the same every time may hold it.
  double placing_seconds() const { return placing_s_; }

 private:
  void remember(std::size_t layer, Matrix<std::int64_t> kept, std::shared_ptr<const Routing> tokens);
  void decide(int batch);
  std::vector<Placement> place(const std::vector<std::size_t>& layers, const std::vector<const LayerHistory*>& histories);
  void change(std::size_t layer, Placement placement);

  const Experiment& experiment_;
  std::vector<LayerHistory> histories_;  // [layers]
  std::vector<Placement> placements_;    // [layers] in force; empty before the first
  std::vector<Placement> coming_;        // [layers] whose weights travel beside this batch; without slots where none do
  std::vector<Relocation> relocations_;  // [layers] before this batch
  int decided_batch_ = -1;
  std::size_t next_layer_ = 0;           // that a decision may change, where it may not change all
  double placing_s_ = 0;
};

/// All layers of all batches of an experiment in order, one at a time in memory. `each` may move from its argument; returning false stops.
void run(const Experiment& experiment, Timeline::Detail detail, const std::function<bool(LayerRun&)>& each);
/// Routes every layer of the batches of `fit` and shows it to all `runs`, whose experiments' tokens choose alike.
void fit(const Experiment& experiment, const std::vector<Run*>& runs);

}  // namespace epsim
