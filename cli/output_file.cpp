#include "cli/output_file.h"

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <memory>
#include <system_error>

#include <fmt/format.h>

#include "base/check.h"

namespace epsim {

void write_file(const std::string& path, const std::string& option, const std::string& bytes) {
  const auto fail = [&](const std::string& message) { throw InputError({std::make_shared<const SourceText>(SourceText{option, path}), 1, 1}, message); };
  std::error_code error;
  if (path.empty() || std::filesystem::is_directory(path, error)) fail("expected the name of a file");
  // A device or a pipe cannot be replaced.
  const bool special = std::filesystem::exists(path, error) && !std::filesystem::is_regular_file(path, error);
  const std::string pending = special ? path : path + ".part";
  errno = 0;
  std::ofstream file(pending, std::ios::binary);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  file.close();
  std::error_code reason(file ? 0 : errno, std::generic_category());
  if (file && !special) std::filesystem::rename(pending, path, reason);
  if (file && !reason) return;
  if (!special) std::filesystem::remove(pending, error);
  fail(fmt::format("the file cannot be written{}{}", reason ? ": " : "", reason ? reason.message() : ""));
}

}  // namespace epsim
