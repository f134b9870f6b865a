#pragma once
#include <string>
#include <vector>

#include "sim/experiment.h"

namespace epsim {

/// The settings in force as a file of their own in `folder`, a key a line. Paths are relative to that folder, so that the file can be read again; those that were absolute remain so.
/// `texts` stand in place of a training's `text`, where there are any.
std::string saved_settings(Setting settings, const std::string& folder, const Catalogs& catalogs, const std::vector<std::string>& texts = {});

}  // namespace epsim
