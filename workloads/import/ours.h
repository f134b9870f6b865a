#pragma once
#include <optional>

#include "workloads/import/recording.h"

namespace epsim {

// A settled recording (workloads/import/settle.h) in the form that epsim reads.

/// Choices as the .npz of `source: trace`: `expert_ids` [tokens, layers, k], `expert_weights` where there are any, `layers` where they are known.
std::string to_trace(const Recording& recording);
/// Counts, or choices counted, as the JSON of `source: loads` and `epsim place --loads`: `logical_count` [[layer][expert]] over all steps, `layers` where they are known.
std::string to_loads(const Recording& recording);
/// A placement as the JSON of `placement: given`: `physical_to_logical` and `first_slot` by layer, `layers` where they are known.
std::string to_placement(const Recording& recording);
/// Bytes between ranks as the CSV of `epsim alltoall`: of one exchange, or of all together.
std::string to_matrix_csv(const Recording& recording, std::optional<std::int64_t> exchange);

}  // namespace epsim
