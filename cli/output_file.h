#pragma once
#include <string>

namespace epsim {

/// Writes a whole file, or nothing: it appears under its name when it is complete. Throws InputError at `option` where it cannot be written.
void write_file(const std::string& path, const std::string& option, const std::string& bytes);

}  // namespace epsim
