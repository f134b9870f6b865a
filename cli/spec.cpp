#include "cli/spec.h"

#include <algorithm>
#include <array>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

namespace epsim {
namespace {

/// Told by the text alone: a file or folder that happens to be named like a part must not hide the part.
bool names_file(const std::string& text) {
  constexpr std::array<std::string_view, 3> kEndings = {".yaml", ".yml", ".json"};
  return text.find('{') == std::string::npos && (text.find('/') != std::string::npos || std::ranges::any_of(kEndings, [&](std::string_view ending) { return text.ends_with(ending); }));
}

constexpr std::array<std::string_view, 2> kRanges = {"fit", "eval"};

}  // namespace

void add_batch_ranges(CLI::App& verb, const std::shared_ptr<std::vector<std::string>>& overrides) {
  const auto add = [&](const std::string& key, const std::string& help) {
    verb.add_option_function<std::string>("--" + key, [overrides, key](const std::string& range) { overrides->push_back(fmt::format("{}='{}'", key, range)); }, help + "; short for --set " + key + "=")->type_name("A:B");
  };
  add("fit", "batches that placements are made from, such as 0:50%");
  add("eval", "batches that are played, such as 50%:100%");
}

Location as_typed(const Location& at) {
  if (!at.source || at.source->name != "--set") return at;
  for (const std::string_view key : kRanges)
    if (const std::string made = fmt::format("{}='", key); at.source->text.starts_with(made))
      return {std::make_shared<SourceText>(SourceText{fmt::format("--{}", key), at.source->text.substr(made.size(), at.source->text.size() - made.size() - 1)}), 1, 1};
  return at;
}

Setting setting_of(const std::string& text, const std::string& option) {
  return parse_yaml(names_file(text) ? read_text(text) : std::make_shared<const SourceText>(SourceText{option, text}));
}

}  // namespace epsim
