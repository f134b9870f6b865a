#pragma once
#include <string>
#include <vector>

#include "sim/run.h"

namespace epsim {

/// Load spread over ranks (or experts); every name says its formula, because the field uses one word for several of them.
struct LoadMetrics {
  double max_over_mean = 1;             ///< PAR; 1 is ideal
  double max_minus_mean_over_mean = 0;  ///< "imbalance ratio" of TensorRT-LLM; 0 is ideal
  double mean_over_max = 1;             ///< "balancedness" of SGLang
  double max_plus_1_over_min_plus_1 = 1; ///< FastMoE
  double std_over_mean = 0;             ///< coefficient of variation, population standard deviation
  double max_minus_min_over_tokens = 0; ///< IS of MoGE (Pangu)
};
/// `tokens`: the batch's tokens, for the last formula. All loads 0: the ideal values.
LoadMetrics load_metrics(const std::vector<std::int64_t>& loads, std::int64_t tokens);

struct LinkLoad {
  std::int32_t link = 0;  ///< index in the topology
  double dispatch_bytes = 0, combine_bytes = 0;
};

struct MemoryUse {
  double weights_bytes = 0;      ///< routed experts in the rank's slots, and the shared expert
  double activations_bytes = 0;  ///< rows held at the fullest moment: home tokens, received, computed and returned rows
};

/// What one simulated layer means. docs/output.md documents every field that is written from it.
struct LayerMetrics {
  int layer = 0;
  double dispatch_s = 0, compute_s = 0, combine_s = 0, layer_s = 0, lower_bound_s = 0;
  std::int64_t tokens = 0, choices = 0, copies = 0;
  DropCounts drops;
  LoadMetrics rank_load, expert_load;
  double distinct_ranks_per_token = 0, distinct_nodes_per_token = 0;  ///< mean over tokens with a kept copy
  Matrix<std::int64_t> dispatch_rank_bytes, combine_rank_bytes;       ///< [R][R] bytes that cross between ranks, every hop of every phase counted where it is sent
  Matrix<std::int64_t> dispatch_node_bytes, combine_node_bytes;       ///< [N][N] the same between nodes
  std::vector<LinkLoad> links;                                        ///< [links]
  std::vector<MemoryUse> memory;                                      ///< [R]
  std::vector<std::int64_t> rank_copies;                              ///< [R]
  std::string bottleneck;                                             ///< "dispatch is bound by the uplink of node 3, 1.9x the mean"
};
LayerMetrics measure(const Experiment& experiment, const LayerRun& run);

/// A whole run, without the matrices of every layer.
struct RunMetrics {
  std::vector<LayerMetrics> layers;
  double total_s = 0;
  std::string bottleneck;  ///< of the layer that takes longest
};

}  // namespace epsim
