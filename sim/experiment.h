#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "policies/compression.h"
#include "policies/loss.h"
#include "policies/schedule.h"
#include "policies/shared_expert.h"
#include "sim/compute/compute.h"
#include "sim/network/network.h"
#include "sim/era.h"
#include "workloads/model.h"

namespace epsim {

class Compressed;

/// The tables of parts of every kind: a value. Add your own and pass it on.
struct Catalogs {
  ClusterCatalog cluster;
  SourceCatalog source;
  RouterCatalog router;
  CapacityCatalog capacity;
  PlacementCatalog placement;
  ReplicaCatalog replica;
  SharedExpertCatalog shared_expert;
  ExchangeCatalog exchange;
  NetworkCatalog network;
  ComputeCatalog compute;
  LossCatalog loss{"loss"};  ///< of `epsim route`; no key of an experiment
  CompressionCatalog compression{"compression"};
};
Catalogs builtin_catalogs();

/// Everything an experiment file says, read, checked and built.
struct Experiment {
  std::string name;        ///< the file's name without folder and ending
  std::uint64_t seed = 0;
  Model model;
  std::vector<int> layers;  ///< model layer indices to run
  int batches = 1;          ///< that the source gives
  BatchRange fit;           ///< batches that placements are made from; empty: none
  BatchRange eval{0, 1};    ///< batches that are played
  Rebalance rebalance;
  Changes changes;          ///< of ranks, as the file says
  std::vector<Era> eras;    ///< the same batch by batch, by their first batch; the first is that of the first batch played
  Topology topology;
  Source source;
  Router router;
  std::shared_ptr<const Compressed> compressed;  ///< where the model's experts are made fewer: the model, source and router are then those of what is left. Null: nothing changes
  Capacity capacity;
  bool chooses_all = false;  ///< without the capacity each token would make top_k choices: those that are not made found no expert with room
  PlacementPolicy placement;
  ReplicaRule replica;
  SharedExpertRule shared_expert;
  Exchange exchange;
  NetworkModel network;
  ComputeModel compute;
  Pricing pricing;
  Precision compute_precision = Precision::bf16;
  std::int64_t execute_hidden = 0, execute_ffn = 0;  ///< sizes that `execute` computes with; the model's unless the file says less
  std::vector<std::string> notes;  ///< what the reader guessed or should know; for stderr
  Setting resolved;         ///< the settings in force: the file's over the model's defaults, overrides applied

  /// The era of a batch; one where nothing ever changes, for an experiment without any.
  const Era& era(int batch) const;
  /// An empty Routing of one batch, for `route_layer`.
  Routing routing() const;
  /// The part in force for a kind, as the resolved settings spell it: "eplb" or "eplb {slots: 288}".
  std::string part(std::string_view kind) const;
};

/// The settings of an experiment that belong to no part (seed, layers, precision, ...), for listings.
std::vector<ParamDoc> experiment_settings();

/// Reads an experiment. Finds every problem in one pass and throws them as one InputError.
Experiment read_experiment(std::shared_ptr<const SourceText> file, const std::vector<std::string>& overrides, const Catalogs& catalogs);

}  // namespace epsim
