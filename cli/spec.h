#pragma once
#include <string>

#include "base/setting.h"

namespace epsim {

/// A setting given on the command line: YAML, or the path of a file that holds it, which has a slash or ends in .yaml, .yml or .json. `option` names it in messages. Throws InputError.
Setting setting_of(const std::string& text, const std::string& option);

}  // namespace epsim
