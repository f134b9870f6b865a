#pragma once
#include "policies/placement.h"

namespace epsim {

/// The settings of DeepSeek's EPLB.
struct EplbSettings {
  std::int64_t slots = 0;   ///< 0: one redundant slot a rank
  std::int64_t groups = 0;  ///< 0: the model's
  std::string mode;         ///< auto, hierarchical or global
};

/// Reads `slots`, `groups` and `mode`.
EplbSettings read_eplb(Params& params);
/// Reports settings that EPLB cannot use with the shape, which may be null.
void check_eplb(Params& params, const EplbSettings& settings, const Shape* shape);

struct EplbSizes {
  int experts, slots, ranks, nodes, groups;
};
/// Sizes of a problem; one group on one node where groups do not divide by nodes, or `mode` is global.
EplbSizes eplb_sizes(const EplbSettings& settings, const Problem& problem);

/// Equally many items on each pack, heaviest first, each on the lightest pack with room (ties: lowest pack). With one item a pack nothing is sorted: item i is
/// pack i.
struct EvenPacking {
  std::vector<int> pack;      ///< of each item
  std::vector<int> position;  ///< of each item in its pack, in fill order
};
EvenPacking pack_evenly(std::span<const float> weight, int packs);

/// Experts renumbered node by node after packing groups onto nodes by load; inside a group the order stays: [E] the expert at each place.
std::vector<int> experts_by_node(std::span<const std::int64_t> loads, int groups, int nodes);

/// DeepSeek's three steps for one layer: groups to nodes, replicas in each node, replicas to the node's ranks. float32 as in the original.
Placement eplb_layer(std::span<const std::int64_t> loads, const EplbSizes& sizes);

/// `eplb_layer` of every layer.
std::vector<Placement> eplb_all_layers(const Problem& problem, const EplbSizes& sizes);

}  // namespace epsim
