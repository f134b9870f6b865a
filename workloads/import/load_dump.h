#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "base/check.h"

namespace epsim {

/// Recorded expert counts: what serving frameworks dump for their placement programs.
struct LoadDump {
  std::vector<std::vector<std::int64_t>> logical_count;  ///< [layer][expert], tokens; all rows equally long
  std::vector<int> layers;                               ///< model layer index of each row; empty where the file does not say

  int experts() const { return logical_count.empty() ? 0 : static_cast<int>(logical_count.front().size()); }
};

/// Reads JSON with `logical_count` [[layer][expert]] and optional `layers`; other keys are left alone. Counts are whole and not negative.
/// Throws InputError with line and column.
LoadDump read_load_dump(std::shared_ptr<const SourceText> file);

}  // namespace epsim
