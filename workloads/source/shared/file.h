#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "workloads/source.h"

namespace epsim {

/// For each layer to be run, the row of a file that holds `rows` layers by position among the model's MoE layers. More layers than the file has is an error at
/// `file` unless they repeat; so are more layers than the model has. `what` names the file's rows in messages.
std::vector<std::pair<int, std::int64_t>> rows_by_position(Params& params, const SourceContext& context, std::int64_t rows, bool repeat,
                                                           const std::string& what);

/// For each layer to be run, the row that `layers` names it by; a layer that is not there is an error at `file`.
std::vector<std::pair<int, std::int64_t>> rows_by_name(Params& params, const SourceContext& context, const std::vector<int>& layers, const std::string& what);

/// Reports what is wrong with a file that `key` names, keeping the file's own places in the message.
void report_file(Params& params, const InputError& error);

}  // namespace epsim
