#pragma once
#include <map>
#include <string>

#include "base/npz.h"

namespace epsim {

/// Reads the arrays of a safetensors file: eight bytes of length, a JSON header {name: {dtype, shape, data_offsets}}, the values. Integers and F16, BF16, F32, F64.
/// Throws InputError naming file and array.
std::map<std::string, NpyArray> read_safetensors(const std::shared_ptr<const SourceText>& file);

}  // namespace epsim
