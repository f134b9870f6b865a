#include "topology/cluster/shared/fabric.h"

#include <fmt/format.h>

#include <algorithm>

namespace epsim {
namespace {

const std::vector<std::string> kRules = {"dmodk", "first", "ecmp", "spread"};  // in the order of PathRule::Kind

PathRule read_rule(const Setting& value, Diagnostics& problems) {
  const std::size_t before = problems.size();
  PathRule rule;
  const PartChoice choice = part_choice(value, problems);
  if (problems.size() != before) return rule;
  const auto known = std::find(kRules.begin(), kRules.end(), choice.name);
  if (known == kRules.end()) {
    problems.add(choice.at, fmt::format("there is no routing `{}`{}", choice.name, suggest(choice.name, kRules)));
    return rule;
  }
  rule.kind = static_cast<PathRule::Kind>(known - kRules.begin());
  Params p(choice.settings, fmt::format("routing `{}`", choice.name), problems);
  if (rule.kind == PathRule::Kind::ecmp) rule.seed = static_cast<std::uint64_t>(p.integer("seed", "of the hash", 1));
  p.finish();
  return rule;
}

void read_fault(const Setting& value, std::vector<Fault>& faults, Diagnostics& problems) {
  if (!value.is_map()) return problems.add(value.at, "a fault is {link: NAME, scale: SHARE}, {link: NAME, failed: true} or {nic: RANK}");
  const std::size_t before = problems.size();
  Params p(value, "a fault", problems);
  Fault fault;
  fault.at = value.at;
  fault.link = p.text("link", "a name, or a pattern with * and ?", "");
  if (p.has("nic")) {
    fault.nic = Rank(p.integer("nic", "the rank whose NIC has failed", 0, 0, kMaxRanks));
    if (p.has("link")) p.error("nic", "a fault is of a `link` or of a `nic`, not of both");
  } else {
    const bool failed = p.flag("failed", "the link is gone", false);
    fault.scale = p.number("scale", "share of the bandwidth that is left", 0, 1e-9, 1e9);
    if (fault.link.empty()) p.error("link", "a fault needs a `link` or a `nic`");
    if (failed == p.has("scale")) p.error("failed", "a fault of a link needs either `scale` or `failed: true`");
  }
  p.finish();
  if (problems.size() == before) faults.push_back(std::move(fault));
}

}  // namespace

Paths read_paths(Params& p, PathRule::Kind fallback) {
  Paths paths;
  paths.rule.kind = fallback;
  p.custom("routing", "dmodk, first, ecmp: {seed} or spread", kRules[static_cast<std::size_t>(fallback)],
           "which of equal next hops traffic takes: the destination's (dmodk), the first, a hash of the pair's (ecmp), or all of them evenly (spread)",
           [&](const Setting& value, Diagnostics& problems) { paths.rule = read_rule(value, problems); });
  p.custom("faults", "a list", "[]", "what is broken: {link: NAME, scale: SHARE}, {link: NAME, failed: true}, {nic: RANK}; * and ? in a name stand for any text and any letter",
           [&](const Setting& value, Diagnostics& problems) {
             if (value.kind != Setting::Kind::list) return problems.add(value.at, "`faults` must be a list");
             for (const Setting& item : value.items) read_fault(item, paths.faults, problems);
           });
  return paths;
}

std::int32_t Fabric::add_rank(Node node) {
  vertices.push_back({fmt::format("rank {}", ranks_), Rank(ranks_), node});
  ++ranks_;
  return static_cast<std::int32_t>(vertices.size()) - 1;
}

std::int32_t Fabric::add_switch(std::string name) {
  vertices.push_back({std::move(name), {}, {}});
  return static_cast<std::int32_t>(vertices.size()) - 1;
}

void Fabric::add_link(std::int32_t from, std::int32_t to, std::string_view tier, Port port, std::string name) {
  if (name.empty()) name = fmt::format("{} -> {}", vertices[static_cast<std::size_t>(from)].name, vertices[static_cast<std::size_t>(to)].name);
  links.push_back({std::move(name), std::string(tier), from, to, port.bandwidth, port.latency});
}

void Fabric::add_cable(std::int32_t a, std::int32_t b, std::string_view tier, Port port) {
  add_link(a, b, tier, port);
  add_link(b, a, tier, port);
}

std::int32_t Fabric::add_node(Node node, std::int64_t ranks, Port port) {
  const std::int32_t hub = add_switch(fmt::format("nvswitch {}", node.value));
  for (std::int64_t i = 0; i < ranks; ++i) add_cable(add_rank(node), hub, "nvlink", port);
  return hub;
}

Topology Fabric::build(const Device& device, const Paths& paths, const Location& at, std::string_view summary) {
  Diagnostics problems;
  apply(paths.faults, vertices, links, problems);
  problems.check();
  // What faults have cut off is said where they were written.
  Topology t(std::move(vertices), std::move(links), device, paths.faults.empty() ? at : paths.faults.front().at, paths.rule);
  t.summary = summary;
  return t;
}

const Device& read_device(Params& p) { return *find_device(p.choice("device", "hardware profile of a rank", device_names())); }

Port read_scale_up(Params& p, const Device& device) {
  return {
      p.bandwidth("bandwidth", "rate of a rank's port inside its node, one direction", device.scale_up_bandwidth.value, "the device's scale-up rate"),
      p.time("latency", "time of one hop inside the node; a path has two", time_from_seconds(device.scale_up_latency.value), "the device's scale-up latency")};
}

void check_ranks(Params& p, std::string_view key, std::int64_t ranks) {
  if (ranks > kMaxRanks) p.error(key, fmt::format("a cluster has at most {} ranks, got {}", kMaxRanks, ranks));
}

}  // namespace epsim
