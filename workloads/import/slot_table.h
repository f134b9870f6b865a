#pragma once
#include "workloads/import/recording.h"

namespace epsim {

/// Which expert each slot holds, by layer: what `epsim import` writes of a placement, `epsim place --format json` prints and SGLang reads.
struct SlotTable {
  std::vector<int> layers;  ///< model layer index of each row; empty where the file does not say
  RecordedSlots slots;
};

/// Reads JSON with `physical_to_logical` (or SGLang's `physical_to_logical_map`) [[layer][slot]] and, if there, `first_slot` [[layer][rank and end]] and `layers`.
/// Without `first_slot` the slots lie evenly on `ranks`. Throws InputError with line and column.
SlotTable read_slot_table(const std::shared_ptr<const SourceText>& file, int ranks);

}  // namespace epsim
