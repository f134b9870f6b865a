#include "cli/output.h"

#include <cerrno>
#include <cstring>
#include <fstream>

#include <fmt/format.h>
#include <unistd.h>

#include "base/check.h"

namespace epsim {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void refuse(const std::string& option, const fs::path& path, const std::string& why) {
  throw InputError({std::make_shared<SourceText>(SourceText{option + " " + path.string(), ""}), 0, 0}, why);
}

}  // namespace

struct OutputFolder::File {
  std::string name;
  std::ofstream stream;
};

OutputFolder::OutputFolder(const std::string& path, const std::string& option) : option_(option) {
  if (path.empty()) refuse(option, path, "expected the name of a folder");
  std::error_code error;
  final_ = fs::absolute(path).lexically_normal();
  if (!final_.has_filename()) final_ = final_.parent_path();
  const fs::file_status status = fs::status(final_, error);
  existed_ = fs::exists(status);
  if (existed_ && !fs::is_directory(status)) refuse(option, path, "is there already and is no folder");

  for (fs::path parent = existed_ ? fs::path() : final_.parent_path(); !parent.empty() && !fs::exists(parent, error); parent = parent.parent_path())
    made_.insert(made_.begin(), parent);
  // Inside an existing folder, which may be the only place we may write to; else beside the folder to be, so that it can be moved as one.
  pending_ = existed_ ? final_ / fmt::format(".epsim-{}", ::getpid()) : final_.parent_path() / fmt::format(".{}.epsim-{}", final_.filename().string(), ::getpid());
  std::vector<fs::path> wanted = made_;
  wanted.push_back(pending_);
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    if (fs::create_directory(wanted[i], error)) continue;
    for (std::size_t made = i; made-- > 0;) {
      std::error_code ignored;
      fs::remove(wanted[made], ignored);
    }
    refuse(option, path, fmt::format("cannot be written: {}", error ? error.message() : "a folder of ours is already there"));
  }
}

OutputFolder::~OutputFolder() {
  files_.clear();
  if (pending_.empty()) return;
  std::error_code ignored;
  fs::remove_all(pending_, ignored);
  for (auto parent = made_.rbegin(); parent != made_.rend(); ++parent) fs::remove(*parent, ignored);
}

std::ostream& OutputFolder::file(const std::string& name) {
  if (existed_ && fs::is_directory(final_ / name)) refuse(option_, final_ / name, "is a folder, but a file of this name is to be written");
  files_.push_back(std::make_unique<File>(File{name, std::ofstream(pending_ / name, std::ios::binary)}));
  if (!files_.back()->stream) throw std::runtime_error(fmt::format("{}: cannot be written: {}", (pending_ / name).string(), std::strerror(errno)));
  return files_.back()->stream;
}

void OutputFolder::commit() {
  for (const auto& file : files_) {
    file->stream.close();
    if (!file->stream) throw std::runtime_error(fmt::format("{} could not be written whole (is the disk full?)", (final_ / file->name).string()));
  }
  if (existed_) {
    for (const auto& file : files_) fs::rename(pending_ / file->name, final_ / file->name);
    fs::remove(pending_);
  } else {
    fs::rename(pending_, final_);
  }
  files_.clear();
  pending_.clear();
  made_.clear();
}

}  // namespace epsim
