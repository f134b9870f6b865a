#include "cli/spec.h"

#include <algorithm>
#include <array>

namespace epsim {
namespace {

/// Told by the text alone: a file or folder that happens to be named like a part must not hide the part.
bool names_file(const std::string& text) {
  constexpr std::array<std::string_view, 3> kEndings = {".yaml", ".yml", ".json"};
  return text.find('{') == std::string::npos && (text.find('/') != std::string::npos || std::ranges::any_of(kEndings, [&](std::string_view ending) { return text.ends_with(ending); }));
}

}  // namespace

Setting setting_of(const std::string& text, const std::string& option) {
  return parse_yaml(names_file(text) ? read_text(text) : std::make_shared<const SourceText>(SourceText{option, text}));
}

}  // namespace epsim
