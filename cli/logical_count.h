#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "base/check.h"

namespace epsim {

/// How often each expert of each layer was chosen, as a load dump tells it.
struct LogicalCount {
  std::vector<std::vector<std::int64_t>> count;  ///< [layer][expert]; rows are equally long
  std::vector<int> layers;                       ///< model layer index of each row; 0, 1, .. where the file has none
};

/// Reads a load dump: JSON with `logical_count [[layer][expert]]` and, optionally, `layers`; other keys are let be. Counts are whole and not negative.
/// Throws InputError with line and column.
LogicalCount read_logical_count(std::shared_ptr<const SourceText> file);

}  // namespace epsim
