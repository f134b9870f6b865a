#pragma once
#include <memory>
#include <string>
#include <vector>

#include "policies/compression.h"

namespace epsim {

/// What becomes of a model's experts, layer by layer, as a file holds it.
struct CompressionFile {
  std::vector<int> layers;      ///< model layer index of each map, all different
  std::vector<ExpertMap> maps;  ///< at least one; all leave as many experts and prune as many
};

/// Reads JSON with `layers` [layer], `becomes` [[layer][expert]], the expert left that each becomes, -1 where it is pruned, and, if there, `skip_below` [layer]. Throws InputError with line and column.
CompressionFile read_compression(const std::shared_ptr<const SourceText>& file);
/// Writes it.
std::string to_json(const CompressionFile& compression);

}  // namespace epsim
