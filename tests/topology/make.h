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

/// What each link carries when every rank sends 1 to every other.
inline std::vector<double> all_to_all(const Topology& t) {
  std::vector<double> load(t.links().size());
  for (const Rank s : ids<Rank>(t.ranks()))
    for (const Rank d : ids<Rank>(t.ranks())) t.for_each_share(s, d, [&](std::int32_t link, double share) { load[static_cast<std::size_t>(link)] += share; });
  return load;
}

/// The links of a tier.
inline std::vector<std::size_t> tier(const Topology& t, const std::string& name) {
  std::vector<std::size_t> links;
  for (std::size_t l = 0; l < t.links().size(); ++l)
    if (t.links()[l].tier == name) links.push_back(l);
  return links;
}

}  // namespace epsim
