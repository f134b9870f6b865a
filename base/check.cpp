#include "base/check.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <tuple>

#include <fmt/format.h>

namespace epsim {
namespace {

std::string join(const std::vector<Diagnostic>& problems) {
  std::string all;
  for (const Diagnostic& d : problems) all += (all.empty() ? "" : "\n") + render(d);
  return all;
}

/// Levenshtein distance where swapping two neighbours costs 1.
std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::vector<std::size_t>> d(a.size() + 1, std::vector<std::size_t>(b.size() + 1));
  for (std::size_t i = 0; i <= a.size(); ++i) d[i][0] = i;
  for (std::size_t j = 0; j <= b.size(); ++j) d[0][j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i)
    for (std::size_t j = 1; j <= b.size(); ++j) {
      d[i][j] = std::min({d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + (a[i - 1] != b[j - 1])});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
    }
  return d[a.size()][b.size()];
}

std::string line_of(const std::string& text, int line) {
  std::size_t begin = 0;
  for (int i = 1; i < line; ++i) {
    begin = text.find('\n', begin);
    if (begin == std::string::npos) return {};
    ++begin;
  }
  return text.substr(begin, std::min(text.find('\n', begin), text.size()) - begin);
}

}  // namespace

InputError::InputError(std::vector<Diagnostic> problems) : std::runtime_error(join(problems)), problems_(std::move(problems)) {}
InputError::InputError(Location at, std::string message) : InputError(std::vector<Diagnostic>{{std::move(at), std::move(message)}}) {}

void Diagnostics::check() const {
  if (problems_.empty()) return;
  // In the order a reader meets them: text by text as first named, then from top to bottom.
  std::vector<Diagnostic> sorted = problems_;
  const auto text = [&](const Diagnostic& d) {
    const auto name = [](const Diagnostic& x) { return x.at.source ? std::string_view(x.at.source->name) : std::string_view(); };
    return std::find_if(problems_.begin(), problems_.end(), [&](const Diagnostic& o) { return name(o) == name(d); }) - problems_.begin();
  };
  std::stable_sort(sorted.begin(), sorted.end(),
                   [&](const Diagnostic& a, const Diagnostic& b) { return std::make_tuple(text(a), a.at.line, a.at.column) < std::make_tuple(text(b), b.at.line, b.at.column); });
  throw InputError(std::move(sorted));
}

std::string render(const Diagnostic& d) {
  const Location& at = d.at;
  if (!at.source) return fmt::format("error: {}", d.message);
  if (at.line == 0) return fmt::format("{}: error: {}", at.source->name, d.message);
  std::string out = fmt::format("{}:{}:{}: error: {}", at.source->name, at.line, at.column, d.message);
  std::string line = line_of(at.source->text, at.line);
  std::replace_if(line.begin(), line.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f; }, ' ');
  if (!line.empty() && line.size() <= 200 && at.column >= 1 && static_cast<std::size_t>(at.column) <= line.size() + 1)
    out += fmt::format("\n  {}\n  {}^", line, std::string(at.column - 1, ' '));
  return out;
}

const std::string* nearest(std::string_view typed, const std::vector<std::string>& known) {
  const std::string* best = nullptr;
  std::size_t best_distance = std::max<std::size_t>(1, std::min<std::size_t>(typed.size(), 64) / 3) + 1;
  if (typed.size() <= 64)
    for (const std::string& name : known)
      if (const std::size_t d = edit_distance(typed, name); d < best_distance) best = &name, best_distance = d;
  return best;
}

std::string suggest(std::string_view typed, const std::vector<std::string>& known) {
  if (const std::string* best = nearest(typed, known)) return fmt::format(", did you mean `{}`?", *best);
  if (known.empty()) return "; nothing can be set here";
  std::string list;
  for (const std::string& name : known) list += (list.empty() ? "" : ", ") + name;
  return "; known: " + list;
}

Location locate(std::shared_ptr<const SourceText> source, std::size_t offset) {
  offset = std::min(offset, source->text.size());
  const auto begin = source->text.begin();
  const int line = 1 + static_cast<int>(std::count(begin, begin + static_cast<std::ptrdiff_t>(offset), '\n'));
  const std::size_t newline = offset == 0 ? std::string::npos : source->text.rfind('\n', offset - 1);
  const int column = static_cast<int>(newline == std::string::npos ? offset + 1 : offset - newline);
  return {std::move(source), line, column};
}

std::shared_ptr<const SourceText> read_text(const std::string& path, std::size_t limit) {
  const auto named = [&] { return Location{std::make_shared<SourceText>(SourceText{path, {}}), 0, 0}; };
  std::error_code ec;
  const auto status = std::filesystem::status(path, ec);
  if (!std::filesystem::exists(status)) throw InputError(named(), "no such file");
  if (std::filesystem::is_directory(status)) throw InputError(named(), "is a folder, expected a file");
  std::ifstream in(path, std::ios::binary);
  if (!in) throw InputError(named(), fmt::format("cannot be read: {}", std::strerror(errno)));
  auto source = std::make_shared<SourceText>();
  source->name = path;
  char chunk[1 << 16];
  while (in.read(chunk, sizeof chunk), in.gcount() > 0) {
    source->text.append(chunk, static_cast<std::size_t>(in.gcount()));
    if (source->text.size() > limit) throw InputError(named(), fmt::format("is larger than the limit of {} bytes", limit));
  }
  if (in.bad()) throw InputError(named(), fmt::format("cannot be read: {}", std::strerror(errno)));
  return source;
}

void ensure(bool holds, std::string_view what) {
  if (!holds) throw std::logic_error(fmt::format("epsim invariant broken: {}", what));
}

}  // namespace epsim
