#include "topology/faults.h"

#include <fmt/format.h>

#include <algorithm>

namespace epsim {
namespace {

bool matches(std::string_view pattern, std::string_view text) {
  // After a mismatch the last * takes one letter more; earlier ones need not move.
  std::size_t p = 0, t = 0, star = std::string_view::npos, resume = 0;
  while (t < text.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++, resume = t;
    } else if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == text[t])) {
      ++p, ++t;
    } else if (star != std::string_view::npos) {
      p = star + 1, t = ++resume;
    } else {
      return false;
    }
  }
  return pattern.find_first_not_of('*', p) == std::string_view::npos;
}

/// Which links a fault means.
std::vector<bool> meant(const Fault& fault, const std::vector<Vertex>& vertices, const std::vector<Link>& links) {
  std::vector<bool> out;
  for (const Link& link : links) {
    const auto is_rank = [&](std::int32_t v) { return vertices[static_cast<std::size_t>(v)].rank == fault.nic; };
    out.push_back(fault.link.empty() ? link.tier != "nvlink" && link.tier != "ub" && (is_rank(link.from) || is_rank(link.to)) : matches(fault.link, link.name));
  }
  return out;
}

Topology with_fault(const Topology& t, const Fault& fault) {
  std::vector<Vertex> vertices(t.vertices().begin(), t.vertices().end());
  std::vector<Link> links(t.links().begin(), t.links().end());
  Diagnostics problems;
  apply({fault}, vertices, links, problems);
  problems.check();
  Topology out(std::move(vertices), std::move(links), t.device(), fault.at, t.path_rule());
  out.summary = t.summary;
  return out;
}

}  // namespace

void apply(const std::vector<Fault>& faults, const std::vector<Vertex>& vertices, std::vector<Link>& links, Diagnostics& problems) {
  constexpr std::size_t kMaxSuggested = 100'000;  // a distance is taken to each
  std::vector<bool> removed(links.size());
  for (const Fault& fault : faults) {
    const std::vector<bool> hit = meant(fault, vertices, links);
    if (std::find(hit.begin(), hit.end(), true) == hit.end()) {
      if (fault.link.empty()) {
        problems.add(fault.at, fmt::format("rank {} has no NIC of its own", fault.nic.value));
      } else {
        std::vector<std::string> names;
        for (std::size_t l = 0; l < std::min(links.size(), kMaxSuggested); ++l) names.push_back(links[l].name);
        std::string nearest = suggest(fault.link, names);
        if (!nearest.starts_with(", did you mean")) nearest = names.empty() ? "" : fmt::format("; `{}` is one of {}", names.front(), links.size());
        problems.add(fault.at, fmt::format("there is no link `{}`{}", fault.link, nearest));
      }
    }
    for (std::size_t l = 0; l < links.size(); ++l)
      if (hit[l] && fault.scale == 0)
        removed[l] = true;
      else if (hit[l])
        links[l].bandwidth *= fault.scale;
  }
  std::size_t kept = 0;
  for (std::size_t l = 0; l < links.size(); ++l) {
    if (removed[l]) continue;
    if (kept != l) links[kept] = std::move(links[l]);
    ++kept;
  }
  links.resize(kept);
}

Topology scaled(const Topology& topology, const std::string& link, double scale) {
  ensure(scale > 0, "a link's bandwidth is scaled by more than 0");
  Fault fault;
  fault.at.source = std::make_shared<SourceText>(SourceText{"scaled", link});
  fault.link = link;
  fault.scale = scale;
  return with_fault(topology, fault);
}

Topology without(const Topology& topology, const std::string& link) {
  Fault fault;
  fault.at.source = std::make_shared<SourceText>(SourceText{"without", link});
  fault.link = link;
  return with_fault(topology, fault);
}

Topology without_ranks(const Topology& topology, const std::vector<Rank>& down) {
  ensure(static_cast<int>(down.size()) < topology.ranks(), "a topology keeps a rank");
  std::vector<Vertex> vertices;
  std::vector<std::int32_t> number;  // of each old vertex; -1: gone
  std::vector<std::int32_t> rank_number(static_cast<std::size_t>(topology.ranks()), -1), node_number(static_cast<std::size_t>(topology.nodes()), -1);
  for (const Rank r : ids<Rank>(topology.ranks()))
    if (std::find(down.begin(), down.end(), r) == down.end()) rank_number[r] = node_number[topology.node_of(r)] = 0;
  for (std::vector<std::int32_t>* numbers : {&rank_number, &node_number}) {
    std::int32_t next = 0;
    for (std::int32_t& n : *numbers)
      if (n == 0) n = next++;
  }
  for (Vertex v : topology.vertices()) {
    const bool gone = v.rank.valid() && rank_number[v.rank] < 0;
    number.push_back(gone ? -1 : static_cast<std::int32_t>(vertices.size()));
    if (gone) continue;
    if (v.rank.valid()) v.node = Node(node_number[v.node]), v.rank = Rank(rank_number[v.rank]);
    vertices.push_back(std::move(v));
  }
  std::vector<Link> links;
  for (Link l : topology.links()) {
    l.from = number[static_cast<std::size_t>(l.from)], l.to = number[static_cast<std::size_t>(l.to)];
    if (l.from >= 0 && l.to >= 0) links.push_back(std::move(l));
  }
  Topology out(std::move(vertices), std::move(links), topology.device(), {}, topology.path_rule());
  out.summary = topology.summary;
  return out;
}

Topology as_one_node(const Topology& topology) {
  std::vector<Vertex> vertices(topology.vertices().begin(), topology.vertices().end());
  for (Vertex& v : vertices)
    if (v.rank.valid()) v.node = Node(0);
  Topology out(std::move(vertices), {topology.links().begin(), topology.links().end()}, topology.device(), {}, topology.path_rule());
  out.summary = topology.summary;
  return out;
}

}  // namespace epsim
