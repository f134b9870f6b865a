#pragma once
#include <optional>
#include <string>
#include <vector>

#include "policies/optimum.h"
#include "sim/run.h"

namespace epsim {

/// Load spread over ranks (or experts); every name says its formula, because the field uses one word for several of them.
struct LoadMetrics {
  double max_over_mean = 1;              ///< PAR; 1 is ideal
  double max_minus_mean_over_mean = 0;   ///< "imbalance ratio" of TensorRT-LLM; 0 is ideal
  double mean_over_max = 1;              ///< "balancedness" of SGLang
  double max_plus_1_over_min_plus_1 = 1; ///< FastMoE
  double std_over_mean = 0;              ///< coefficient of variation, population standard deviation
  double max_minus_min_over_tokens = 0;  ///< IS of MoGE (Pangu)
};
/// `tokens`: the batch's tokens, for the last formula. All loads 0 (or none): the ideal values.
LoadMetrics load_metrics(const std::vector<std::int64_t>& loads, std::int64_t tokens);

struct LinkLoad {
  std::int32_t link = 0;  ///< index in the topology
  double dispatch_bytes = 0, combine_bytes = 0;
};

/// The link that a stage keeps busy longest (ties: lowest index); `name` is empty when the stage moves nothing.
struct BusiestLink {
  std::string name;
  double bytes = 0;
  double busy_s = 0;              ///< bytes / bandwidth
  double busy_over_tier_mean = 1; ///< against the links of its tier
  std::int64_t peers = 0;         ///< links that are busy as long to within 1 %, itself among them
  /// How near an exchange of `time_s` is to its busiest link's time, at which it would be 1; 1 where nothing moves.
  double efficiency(double time_s) const { return busy_s > 0 && time_s > 0 ? busy_s / time_s : 1; }
};

struct MemoryUse {
  double weights_bytes = 0;      ///< routed experts in the rank's slots, and the shared expert
  double activations_bytes = 0;  ///< rows held at the fullest moment: home tokens, received, computed and returned rows
  int slots = 0;                 ///< filled
};

/// What one simulated layer means. docs/output.md documents every field that is written from it.
struct LayerMetrics {
  int batch = 0, layer = 0;
  double dispatch_s = 0, compute_s = 0, combine_s = 0, layer_s = 0, lower_bound_s = 0;
  double arrival_error = 0;            ///< Timeline::arrival_error
  std::int64_t tokens = 0, choices = 0, copies = 0;
  DropCounts drops;
  LoadMetrics rank_load, expert_load;  ///< of copies computed on a rank; of choices that name an expert
  double distinct_ranks_per_token = 0, distinct_nodes_per_token = 0;  ///< mean over tokens with a kept copy
  Matrix<std::int64_t> dispatch_rank_bytes, combine_rank_bytes;       ///< [R][R] bytes that cross between ranks, every hop of every phase counted where it is sent; diagonal 0
  Matrix<std::int64_t> dispatch_node_bytes, combine_node_bytes;       ///< [N][N] the same between nodes; the diagonal is between ranks of one node
  std::int64_t dispatch_bytes = 0, combine_bytes = 0;                        ///< sums of the rank matrices
  std::int64_t dispatch_cross_node_bytes = 0, combine_cross_node_bytes = 0;  ///< sums of the node matrices without their diagonals
  std::vector<LinkLoad> links;                                               ///< [links]
  BusiestLink dispatch_busiest, combine_busiest;
  OptimumBounds optimum;                                                     ///< what no placement into the same slots can pass, whatever the replica rule
  double dispatch_transfer_s = 0, combine_transfer_s = 0;                    ///< from the first message of the stage that begins to the last that has arrived
  std::vector<MemoryUse> memory;                                             ///< [R]
  std::vector<std::int64_t> rank_copies;                                     ///< [R] copies computed
  std::vector<std::int64_t> rank_shared_rows;                                ///< [R] tokens whose shared expert is computed there; 0 without one
  double rank_rows_max_over_mean = 1;                                        ///< of both together
  std::int64_t shared_visits = 0;                                            ///< tokens whose shared expert another rank than theirs computes
  std::vector<std::int64_t> expert_choices;                                  ///< [E] choices made, dropped ones included
  Relocation relocation;                                                     ///< what placing the layer anew before the batch cost
  int ranks_up = 0;
  std::int64_t rehomed_tokens = 0, lost_tokens = 0;                          ///< of ranks that are down
  std::string bottleneck;                                                    ///< "dispatch is bound by the uplink of node 3, 1.9x the mean"

  /// Share of the choices that were dropped; 0 where there are none.
  double drop_rate() const { return choices > 0 ? static_cast<double>(drops.choices) / static_cast<double>(choices) : 0; }
  std::int64_t max_rank_copies() const;                                                ///< on the fullest rank
  double busiest_links_s() const { return dispatch_busiest.busy_s + combine_busiest.busy_s; }
  double optimum_links_s() const { return optimum.dispatch_s.value + optimum.combine_s.value; }
};
/// How far a figure is above what no placement can pass, in parts of that; 0 where there is nothing to pass.
double gap(double value, double bound);
/// `cuts`: of the experiment's machine, found once for all layers (policies/optimum.h).
LayerMetrics measure(const Experiment& experiment, const LayerRun& run, const MachineCuts& cuts);
inline LayerMetrics measure(const Experiment& experiment, const LayerRun& run) { return measure(experiment, run, cuts_of(experiment.topology, experiment.exchange)); }

/// Batches after which weights that moved have paid for themselves: what a move cost (waiting, and slowing the layer) over what a batch gains by it, in the mean over all moves that had to be paid for. Nothing where
/// none had to, infinite where moving gains nothing.
struct BreakEven {
  double cost_s = 0;  ///< of all moves
  double gain_s = 0;  ///< in the first batch under each new placement, against the placement before
  std::int64_t moves = 0;

  void add(const Relocation& moved);
  std::optional<double> batches() const;
};

/// A whole run, without the rank and node matrices of every layer.
struct RunMetrics {
  std::vector<LayerMetrics> layers;
  double total_s = 0;      ///< layers one after another, with the time that they waited for weights
  double placing_s = 0;    ///< clock seconds that the placement policy took: not for outputs that must be the same every time
  int slowest_batch = -1, slowest_layer = -1;  ///< the layer that takes longest (ties: the first) and its batch; -1 when there is none
  double slowest_s = -1;   ///< time of that layer
  std::string bottleneck;  ///< of that layer
  BreakEven break_even;

  int batches() const { return layers.empty() ? 0 : layers.back().batch - layers.front().batch + 1; }

  /// Adds a layer and lets go of its rank and node matrices.
  void add(LayerMetrics layer);
};

}  // namespace epsim
