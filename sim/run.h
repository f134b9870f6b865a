#pragma once
#include <functional>
#include <memory>

#include "sim/experiment.h"
#include "sim/foresight.h"
#include "sim/history.h"
#include "sim/timeline.h"

namespace epsim {

/// What it cost a layer to be placed anew before a batch.
struct Relocation {
  bool decided = false;      ///< the policy was asked
  std::int64_t changed_slots = 0, moved_experts = 0, peers = 0;
  Bytes bytes = 0;           ///< of weights that moved between ranks
  std::int64_t restored_experts = 0;  ///< that no rank held any more and that came from hosts
  Bytes restored_bytes = 0;
  double moving_s = 0;       ///< from the first byte to the last
  double waited_s = 0;       ///< before the layer could begin: blocking moves
  double slowed_s = 0;       ///< that the layer itself took longer: overlapped moves, in its timeline
  /// In the first batch under a placement whose weights had to be waited for, or travelled beside tokens: what that cost, and the time that the layer takes less than it would have under the placement before.
  bool paid = false;
  double paid_s = 0, gained_s = 0;
};

/// One simulated layer of one batch: who went where, what each rank did, and when.
struct LayerRun {
  int batch = 0;
  Plan plan;
  Schedule schedule;
  Timeline timeline;
  double lower_bound_s = 0;
  Relocation relocation;
  std::vector<double> speeds;  ///< [R] of the ranks in this batch; empty: all alike
  int ranks_up = 0;
  std::int64_t rehomed_tokens = 0, lost_tokens = 0;  ///< of ranks that are down
};

/// Routes one layer of a batch for home ranks [begin, end).
void route_layer(const Experiment& experiment, int batch, int layer, int begin, int end, Routing& routing);
/// Whether what fits into no replica of its expert becomes a choice of another (`overflow: other_replica_or_next_best`): how much fits is up to the placement.
bool chooses_after_placing(const Experiment& experiment);
/// Routes a layer of a batch anew, for all ranks, where it `chooses_after_placing`.
Routing choose_again(const Experiment& experiment, int batch, int layer, const Placement& placement);
/// Lowers and simulates one planned layer. `plan` numbers ranks as the era's survivors do; the run is on the whole machine.
LayerRun run_plan(const Experiment& experiment, Plan plan, Timeline::Detail detail, const Era& era = {});

/// An experiment in progress: takes routed layers batch by batch, makes placements as `fit` and `rebalance` say, and plays each layer. It holds what placements are made from and nothing else;
/// several experiments whose tokens choose alike can be fed with the same routing. Not for several threads at once.
class Run {
 public:
  explicit Run(const Experiment& experiment);  ///< the experiment must outlive the run

  /// The batches to give, in order: first those of `fit` to `see`, then those of `eval` to `plan` or `play`; of each, every layer in order.
  void see(std::size_t layer, std::shared_ptr<const Routing> routing);
  /// Settles a layer of a batch, for the ranks that are up then and as they number themselves.
  Plan plan(int batch, std::size_t layer, Routing routing);
  /// Settles, lowers and simulates a layer of a batch.
  LayerRun play(int batch, std::size_t layer, Routing routing, Timeline::Detail detail);

  /// Clock seconds that the placement policy took so far. No output that must be the same every time may hold it.
  double placing_seconds() const { return placing_s_; }

 private:
  void remember(std::size_t layer, Matrix<std::int64_t> kept, std::shared_ptr<const Routing> tokens);
  void begin_batch(int batch);
  void decide(int batch);
  std::vector<Placement> place(const std::vector<std::size_t>& layers, const std::vector<const LayerHistory*>& histories);
  void change(std::size_t layer, Placement placement);
  /// What a layer is placed from when its turn comes.
  LayerHistory shown_now(std::size_t layer, const Routing& routing, Matrix<std::int64_t> kept) const;

  /// A layer's placements, on the whole machine.
  struct InForce {
    Placement now;     // without slots before the first
    Placement coming;  // whose weights travel beside this batch; without slots where none do
    Placement before;  // that was in force up to the batch before, where its end had to be paid for
    double paid_s = 0;         // for its end
    bool other_ranks = false;  // than `now` was made for
  };
  const Experiment& experiment_;
  std::vector<LayerHistory> histories_;  // [layers]
  std::vector<InForce> placements_;      // [layers]
  std::vector<Relocation> relocations_;  // [layers] before this batch
  Foresight foresight_;                  // of predicted statistics
  Era era_;                              // of this batch
  int batch_ = -1;
  std::size_t next_layer_ = 0;           // that a decision may change, where it may not change all
  double placing_s_ = 0;
};

/// All layers of all batches of an experiment in order, one at a time in memory. `each` may move from its argument; returning false stops.
void run(const Experiment& experiment, Timeline::Detail detail, const std::function<bool(LayerRun&)>& each);
/// Routes every layer of the batches of `fit` and shows it to all `runs`, whose experiments' tokens choose alike.
void fit(const Experiment& experiment, const std::vector<Run*>& runs);

}  // namespace epsim
