#pragma once
#include <span>

namespace epsim {

/// What one step showed.
struct StepRecord {
  double loss = 0;            ///< cross entropy and losses, before the step's update
  double cross_entropy = 0;   ///< nats a byte
  double gradient_norm = 0;   ///< of all weights together, before clipping
  double drop_rate = 0;       ///< share of all layers' choices that capacity drops
  double imbalance = 0;       ///< choices of the most chosen expert over the mean of a layer's, mean over layers; this and the next of experts that compute
  double unused_experts = 0;  ///< share of all layers' experts that no token of the batch chose
  double held_out_loss = 0;   ///< of `evaluate`, after the step; NaN where nobody looked
  double similarity = 0;      ///< likewise
};

/// A column of steps.csv.
struct RecordColumn {
  const char* name;
  const char* title;  ///< what an axis says, with its unit
  double StepRecord::*value;
};
std::span<const RecordColumn> record_columns();

}  // namespace epsim
