#pragma once
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace epsim {

/// A text that a user gave us, and the name we call it by in messages (a path, or "--set placement.slots=12").
struct SourceText {
  std::string name;
  std::string text;
};

/// Where something stands in a source text; line and column count from 1, 0 means the text as a whole.
struct Location {
  std::shared_ptr<const SourceText> source;
  int line = 0;
  int column = 0;
};

/// One thing that is wrong with the input.
struct Diagnostic {
  Location at;
  std::string message;
};

/// Input that cannot be used: every problem that was found in one pass. The command line prints it and exits with 2.
class InputError : public std::runtime_error {
 public:
  explicit InputError(std::vector<Diagnostic> problems);
  InputError(Location at, std::string message);
  const std::vector<Diagnostic>& problems() const { return problems_; }

 private:
  std::vector<Diagnostic> problems_;
};

/// Collects problems so that all of them can be said at once.
class Diagnostics {
 public:
  void add(Location at, std::string message) { problems_.push_back({std::move(at), std::move(message)}); }
  void add(const InputError& e) { problems_.insert(problems_.end(), e.problems().begin(), e.problems().end()); }
  std::size_t size() const { return problems_.size(); }
  /// Throws InputError if anything was added.
  void check() const;

 private:
  std::vector<Diagnostic> problems_;
};

/// "file:14:9: error: message", then the line itself with a caret, where the place is known.
std::string render(const Diagnostic& d);

/// The known name that what was typed is most likely meant to be; null where none is near enough.
const std::string* nearest(std::string_view typed, const std::vector<std::string>& known);

/// ", did you mean `top_k`?" if a known name is near enough to what was typed, else a list of the known names.
std::string suggest(std::string_view typed, const std::vector<std::string>& known);

/// The location of byte `offset` of a text.
Location locate(std::shared_ptr<const SourceText> source, std::size_t offset);

/// Reads a whole file; throws InputError naming the path when it is missing, unreadable, a folder or over `limit` bytes.
std::shared_ptr<const SourceText> read_text(const std::string& path, std::size_t limit = std::size_t{1} << 30);

/// A broken invariant of our own (never the user's fault): throws std::logic_error.
void ensure(bool holds, std::string_view what);

}  // namespace epsim
