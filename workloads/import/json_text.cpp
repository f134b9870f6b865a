#include "workloads/import/json_text.h"

#include <algorithm>
#include <string_view>

namespace epsim {
namespace {

/// Walks a text that is known to be valid JSON; not recursive, so nesting cannot exhaust the stack.
class Walker {
 public:
  explicit Walker(std::string_view text) : s_(text) {}

  std::size_t find(const std::vector<std::string>& path) {
    space();
    std::size_t found = at_;
    for (const std::string& step : path) {
      const char open = peek();
      if (open != '{' && open != '[') break;
      ++at_;
      const std::size_t here = open == '{' ? key(step) : index(step);
      if (here == std::string_view::npos) break;
      found = here;
    }
    return found;
  }

 private:
  char peek() const { return at_ < s_.size() ? s_[at_] : '\0'; }
  void space() {
    while (at_ < s_.size() && (s_[at_] == ' ' || s_[at_] == '\t' || s_[at_] == '\n' || s_[at_] == '\r')) ++at_;
  }
  std::string_view text() {
    const std::size_t begin = ++at_;
    while (at_ < s_.size() && s_[at_] != '"') at_ += s_[at_] == '\\' ? 2 : 1;
    const std::string_view out = s_.substr(begin, std::min(at_, s_.size()) - begin);
    ++at_;
    return out;
  }
  void skip() {
    int depth = 0;
    do {
      space();
      const char c = peek();
      if (c == '"') {
        text();
      } else if (c == '{' || c == '[') {
        ++depth, ++at_;
      } else if (c == '}' || c == ']') {
        --depth, ++at_;
      } else if (c == ',' || c == ':') {
        ++at_;
      } else {
        while (at_ < s_.size() && std::string_view(",:{}[]\" \t\r\n").find(s_[at_]) == std::string_view::npos) ++at_;
      }
    } while (depth > 0 && at_ < s_.size());
  }

  /// Moves into the value of a key; gives where the key stands. Of a key that is there twice the last counts, as for the JSON library.
  std::size_t key(std::string_view wanted) {
    std::size_t found = std::string_view::npos, value = 0;
    for (space(); peek() == '"'; space()) {
      const std::size_t here = at_;
      const bool match = text() == wanted;
      space();
      ++at_;  // ':'
      space();
      if (match) found = here, value = at_;
      skip();
      space();
      if (peek() != ',') break;
      ++at_;
    }
    if (found != std::string_view::npos) at_ = value;
    return found;
  }

  std::size_t index(const std::string& wanted) {
    space();
    if (peek() == ']') return std::string_view::npos;
    for (std::size_t i = 0;; ++i) {
      space();
      if (std::to_string(i) == wanted) return at_;
      skip();
      space();
      if (peek() != ',') return std::string_view::npos;
      ++at_;
    }
  }

  std::string_view s_;
  std::size_t at_ = 0;
};

}  // namespace

Location json_location(const std::shared_ptr<const SourceText>& file, const std::vector<std::string>& path) {
  return locate(file, Walker(file->text).find(path));
}

}  // namespace epsim
