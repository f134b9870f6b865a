#pragma once
#include <vector>

#include "sim/experiment.h"
#include "sim/moe/planned.h"
#include "sim/moe/two_passes.h"
#include "sim/mpi/player.h"

namespace epsim {

/// What playing a schedule some times gave. `result` [T][hidden] and the sum of rows are the root's. What home ranks add by themselves is in the result, and not in the times.
struct Played {
  StageSeconds measured;  ///< median over repeats of the slowest process
  std::vector<float> result;
  bool rows_match_plan = false;
  std::int64_t rows_moved = 0;
};

/// One process's part in executing a layer: its ranks' rows and experts, and the plays of the schedule. All processes call alike.
class Passes {
 public:
  /// Packs the experts for both passes where there is to be a `backward`. All must outlive this.
  Passes(World& world, const Experiment& experiment, const Plan& plan, const Schedule& schedule, const Hosts& hosts, bool both, int repeats);

  Played forward();
  /// After `forward`: the gradients of sum(y * r), `gradients.x` with what comes through the gate, and, where the gate has one, the gate's; `result` is left out. `weights` [T][k] are those of choices before any drop.
  /// Everything is brought to the root; every process has those of its experts, of the shared one, of constant ones and of the gate.
  Played backward(const std::vector<float>& weights, PlanGradients& gradients, std::vector<float>& of_gate);

 private:
  template <class Make>
  std::vector<std::vector<float>> of_ranks(const Make& make) const;
  std::span<float> rows_of(std::vector<float>& hosted, int rank) const;
  std::vector<std::int64_t> counts(std::int64_t width) const;
  Played play(const std::vector<std::vector<float>>& home, const CallWork& work);

  World& world_;
  const Experiment& e_;
  const Plan& plan_;
  const Hosts& hosts_;
  bool both_;
  int repeats_;
  int begin_, end_;  // plan ranks
  std::vector<RankRows> rows_;
  ExpertBank bank_;
  IdleBank idle_;
  Player player_;
  TwoPasses passes_;
  std::vector<std::int64_t> tokens_;  // of each process
};

}  // namespace epsim
