#include "cli/output.h"

#include <atomic>
#include <cerrno>
#include <csignal>
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

/// What an interrupted program leaves behind: files, then folders, innermost first. Once published it never changes, so that a signal handler may read it at any moment.
struct Litter {
  std::vector<std::string> files, folders;
};
std::atomic<const Litter*> litter{nullptr};
constexpr int kEndings[] = {SIGINT, SIGTERM, SIGHUP};

/// Only calls that POSIX allows in a handler. The signal then ends the program as it would have.
extern "C" void clean_up(int signal) {
  if (const Litter* const all = litter.load()) {
    for (const std::string& file : all->files) ::unlink(file.c_str());
    for (const std::string& folder : all->folders) ::rmdir(folder.c_str());
  }
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

/// A file's buffer that remembers why bytes could not be written: by the time somebody asks, `errno` says something else.
class NotingBuffer : public std::filebuf {
 public:
  int reason = 0;

 protected:
  int_type overflow(int_type c) override { return note(std::filebuf::overflow(c), traits_type::eof()); }
  std::streamsize xsputn(const char* bytes, std::streamsize count) override {
    const std::streamsize put = std::filebuf::xsputn(bytes, count);
    note(put == count, false);
    return put;
  }
  int sync() override { return note(std::filebuf::sync(), -1); }

 private:
  template <class T>
  T note(T result, T failure) {
    if (result == failure && reason == 0) reason = errno;
    return result;
  }
};

}  // namespace

struct OutputFolder::File {
  File(std::string of_file, const fs::path& path) : name(std::move(of_file)) {
    if (!buffer.open(path, std::ios::out | std::ios::binary)) stream.setstate(std::ios::badbit);
  }
  std::string name;
  NotingBuffer buffer;
  std::ostream stream{&buffer};
};

struct OutputFolder::Interrupted {
  std::vector<std::unique_ptr<Litter>> published;  // the handler may still be reading an old one
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
  interrupted_ = std::make_unique<Interrupted>();
  publish("");
  for (const int signal : kEndings)
    if (std::signal(signal, clean_up) == SIG_IGN) std::signal(signal, SIG_IGN);  // as under nohup
}

void OutputFolder::publish(const std::string& new_file) {
  auto next = interrupted_->published.empty() ? std::make_unique<Litter>() : std::make_unique<Litter>(*interrupted_->published.back());
  if (next->folders.empty()) {
    next->folders.push_back(pending_.string());
    for (auto parent = made_.rbegin(); parent != made_.rend(); ++parent) next->folders.push_back(parent->string());
  }
  if (!new_file.empty()) next->files.push_back((pending_ / new_file).string());
  litter = next.get();
  interrupted_->published.push_back(std::move(next));
}

void OutputFolder::forget() {
  litter = nullptr;
  for (const int signal : kEndings)
    if (std::signal(signal, SIG_DFL) == SIG_IGN) std::signal(signal, SIG_IGN);
}

OutputFolder::~OutputFolder() {
  files_.clear();
  if (pending_.empty()) return;
  std::error_code ignored;
  fs::remove_all(pending_, ignored);
  forget();
  for (auto parent = made_.rbegin(); parent != made_.rend(); ++parent) fs::remove(*parent, ignored);
}

std::ostream& OutputFolder::file(const std::string& name) {
  if (existed_ && fs::is_directory(final_ / name)) refuse(option_, final_ / name, "is a folder, but a file of this name is to be written");
  publish(name);
  files_.push_back(std::make_unique<File>(name, pending_ / name));
  if (!files_.back()->stream) throw std::runtime_error(fmt::format("{}: cannot be written: {}", (pending_ / name).string(), std::strerror(errno)));
  return files_.back()->stream;
}

void OutputFolder::commit() {
  for (const auto& file : files_) {
    const bool closed = file->buffer.close();
    if (!closed || !file->stream) throw std::runtime_error(fmt::format("{} cannot be written: {}", (final_ / file->name).string(), std::strerror(file->buffer.reason ? file->buffer.reason : errno)));
  }
  if (existed_) {
    for (const auto& file : files_) fs::rename(pending_ / file->name, final_ / file->name);
    fs::remove(pending_);
  } else {
    fs::rename(pending_, final_);
  }
  forget();
  files_.clear();
  pending_.clear();
  made_.clear();
}

}  // namespace epsim
