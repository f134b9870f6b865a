#pragma once
#include <memory>
#include <string>

#include "base/setting.h"

namespace epsim::testing {

/// Makes the part that a line of YAML names; throws InputError where the line is wrong, with the line's columns.
template <class Catalog, class... Context>
auto part_from_yaml(const Catalog& catalog, const std::string& yaml, Context... context) {
  Diagnostics problems;
  const Setting setting = parse_yaml(std::make_shared<SourceText>(SourceText{"test.yaml", yaml}));
  auto part = catalog.make(setting, problems, context...);
  problems.check();
  return part;
}

/// The message of the InputError that `work` throws, or "" where it throws none.
template <class Work>
std::string input_error(Work&& work) {
  try {
    work();
  } catch (const InputError& e) {
    return e.what();
  }
  return "";
}

}  // namespace epsim::testing
