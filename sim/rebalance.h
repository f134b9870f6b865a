#pragma once
#include <string>

#include "base/params.h"

namespace epsim {

/// A part of the batches, [first, last).
struct BatchRange {
  int first = 0, last = 0;
  int count() const { return last - first; }
};

/// When placements are made anew while batches pass, from what, and what moving the weights costs.
struct Rebalance {
  enum class Statistics {
    exact,   ///< the batch itself, before it runs: what no server knows, but some planners count on between gate and dispatch
    window,  ///< the sum of the last batches (vLLM's and SGLang's recorders)
    ema,     ///< a sum that forgets: sum x decay + batch (TensorRT-LLM)
    lagged,  ///< one batch, some batches ago
    predicted,  ///< what the batch's choices in the layer before foretell of this one (sim/foresight.h)
    fit      ///< the batches of `fit`, once
  } statistics = Statistics::exact;
  enum class Moving {
    free,        ///< weights are there at once
    blocking,    ///< the layer waits until its weights have come
    overlapped,  ///< they travel beside the layer's tokens and are used from the next batch on
  } moving = Moving::free;
  int window = 8;
  double decay = 0.9;
  int lag = 1;
  int every = 1;             ///< batches from one decision to the next
  double threshold = 0;      ///< a layer is placed anew where max/mean of its rank loads, by the statistics and under the placement in force, is above it
  int layers_per_batch = 0;  ///< layers that a decision may change, in turn; 0: all

  /// Whether a layer is placed when its turn in the batch comes, and not with all others before the batch.
  bool in_turn() const { return statistics == Statistics::exact || statistics == Statistics::predicted; }
};

/// Reads the section `rebalance`; `fits` tells whether the experiment has batches to fit, `events` whether ranks fail or join. A knob that the chosen statistics do not use is an error.
Rebalance read_rebalance(Params& section, bool fits, bool events);
/// Reads "a:b", each end a batch or a percentage of `batches` such as 50%, or left out. Empty where nothing was typed.
BatchRange read_batches(Params& params, const std::string& key, const std::string& text, int batches);

}  // namespace epsim
