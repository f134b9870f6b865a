#pragma once
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "topology/topology.h"

namespace epsim {

inline std::shared_ptr<const SourceText> text(std::string content, std::string name = "test.yaml") {
  return std::make_shared<SourceText>(SourceText{std::move(name), std::move(content)});
}

/// The cluster that a YAML value of `cluster:` describes; throws what is wrong with it.
inline Topology make(const std::string& yaml) {
  Diagnostics problems;
  Topology t = builtin_clusters().make(parse_yaml(text(yaml)), problems);
  problems.check();
  return t;
}

/// What is wrong with a cluster, as the user sees it; empty when nothing is.
inline std::string complaint(const std::string& yaml) {
  try {
    make(yaml);
  } catch (const InputError& e) {
    return e.what();
  }
  return {};
}

/// The names of the links of a path.
inline std::vector<std::string> path(const Topology& t, int s, int d) {
  std::vector<std::string> names;
  t.for_each_link(Rank(s), Rank(d), [&](std::int32_t link) { names.push_back(t.links()[static_cast<std::size_t>(link)].name); });
  return names;
}

}  // namespace epsim
