#pragma once
#include <memory>
#include <string>
#include <vector>

#include "base/setting.h"

namespace CLI {
class App;
}

namespace epsim {

/// A setting given on the command line: YAML, or the path of a file that holds it, which has a slash or ends in .yaml, .yml or .json. `option` names it in messages. Throws InputError.
Setting setting_of(const std::string& text, const std::string& option);

/// Adds `--fit` and `--eval`, which are short for overrides of these settings and end up among `overrides`.
void add_batch_ranges(CLI::App& verb, const std::shared_ptr<std::vector<std::string>>& overrides);
/// Where the user typed what stands at a place of an override: at `--fit` and `--eval` for what these made.
Location as_typed(const Location& at);

}  // namespace epsim
