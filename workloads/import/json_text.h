#pragma once
#include <memory>
#include <string>
#include <vector>

#include "base/check.h"

namespace epsim {

/// Where the value under a path of keys and indices ("logical_count", "2", "17") starts in a valid JSON text; the key itself where the last step is a key.
/// The nearest enclosing value where the path ends early. The JSON library keeps no places.
Location json_location(const std::shared_ptr<const SourceText>& file, const std::vector<std::string>& path);

}  // namespace epsim
