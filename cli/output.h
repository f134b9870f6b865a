#pragma once
#include <filesystem>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

namespace epsim {

/// What is wrong with a folder's name on the command line (an empty one would mean "none" by accident); nothing when it can be one.
inline std::string names_a_folder(const std::string& name) { return name.empty() ? "expected the name of a folder" : ""; }

/// A folder of results that appears all at once. Files are written to a hidden folder beside the final place and moved in `commit`; without it, also when an exception passes or the
/// program is interrupted (SIGINT, SIGTERM, SIGHUP), nothing is left. One at a time. Existing files of the same names are replaced, others stay.
class OutputFolder {
 public:
  /// Checks now that `path` can be made and written, so that nothing is computed in vain. Throws InputError naming `option`, such as "--out".
  OutputFolder(const std::string& path, const std::string& option);
  ~OutputFolder();
  OutputFolder(const OutputFolder&) = delete;
  OutputFolder& operator=(const OutputFolder&) = delete;

  /// A binary stream to a new file; it lives until `commit`. Throws InputError where a folder of that name is in the way.
  std::ostream& file(const std::string& name);
  /// A whole file.
  void write(const std::string& name, const std::string& bytes) { file(name).write(bytes.data(), static_cast<std::streamsize>(bytes.size())); }
  /// Closes the files and moves them into place. Throws std::runtime_error that names the file and the reason, leaving nothing half-written, when one could not be written whole.
  void commit();

 private:
  struct File;
  struct Interrupted;
  /// Tells the handler of signals what to remove: what it knew and this file.
  void publish(const std::string& new_file);
  void forget();
  std::filesystem::path final_, pending_;
  std::string option_;
  bool existed_ = false;
  std::vector<std::filesystem::path> made_;  ///< parents that were missing, outermost first
  std::vector<std::unique_ptr<File>> files_;
  std::unique_ptr<Interrupted> interrupted_;
};

}  // namespace epsim
