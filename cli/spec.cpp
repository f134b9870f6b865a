#include "cli/spec.h"

#include <filesystem>

namespace epsim {

Setting setting_of(const std::string& text, const std::string& option) {
  const bool file = !text.starts_with('{') && (std::filesystem::exists(text) || text.find('/') != std::string::npos || text.ends_with(".yaml") || text.ends_with(".yml"));
  return parse_yaml(file ? read_text(text) : std::make_shared<const SourceText>(SourceText{option, text}));
}

}  // namespace epsim
