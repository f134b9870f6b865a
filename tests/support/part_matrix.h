#pragma once
#include <algorithm>
#include <string>
#include <vector>

#include "base/units.h"
#include "sim/experiment.h"
#include "tests/support/part_forms.h"

namespace epsim::testing {

/// A layer of 8 experts, with a real gate, replicas and, where tokens choose two, a shared expert: a router, a capacity and an exchange on a machine of one node or several.
struct Combination {
  PartForm router, capacity, exchange;
  int top_k = 2;  ///< of the model: 1 or 2
  int nodes = 2, ranks_per_node = 3;

  std::string name() const { return fmt::format("{} x {} x {}, top_k {}, {} node{}", router.yaml(), capacity.yaml(), exchange.yaml(), top_k, nodes, nodes == 1 ? "" : "s"); }
  /// `folder`, an absolute path, holds the models.
  std::string yaml(const std::string& folder) const {
    const int ranks = nodes * ranks_per_node;
    return fmt::format(
        "seed: 7\nmodel: {}/{}-of-eight.json\ncluster: {{two_tier: {{nodes: {}, ranks_per_node: {}, device: cpu}}}}\nsource: {{gate: {{tokens_per_rank: 12, skew: 1}}}}\n"
        "router: {}\ncapacity: {}\nplacement: {{eplb: {{slots: {}}}}}\nexchange: {}\nnetwork: ideal\n",
        folder, top_k == 1 ? "one" : "two", nodes, ranks_per_node, router.yaml(), capacity.yaml(), (8 + ranks) / ranks * ranks, exchange.yaml());
  }
  Experiment read(const std::string& folder, const Catalogs& catalogs) const { return read_experiment(std::make_shared<SourceText>(SourceText{name(), yaml(folder)}), {}, catalogs); }
};

/// What the documented rules (docs/routing.md, docs/exchanges.md) have against a combination, as a part of the message that says so; empty: nothing.
inline std::string refusal(const Combination& c) {
  const auto divides = [&](const std::string& by) { return c.top_k % parse_integer(by).value_or(1) == 0; };
  if (c.router.part == "base" && c.top_k != 1) return "this router assigns 1 expert";
  if (c.router.part == "gshard" && c.top_k != 2) return "this router chooses 2 experts";
  if (c.router.part == "moge" && !divides(c.router["groups"])) return "groups do not divide top_k";
  if (c.router.part == "grouped_topk" && c.router["group_score"] == "share" && !divides(c.router["groups_kept"])) return "kept groups do not divide top_k";
  if (c.router.part == "quantile" && (c.router["jitter"] != "0" || c.router["noise"] != "0")) return "quantile balancing has no noise";
  const std::string group = c.capacity["group"];
  const std::string overflow = c.capacity["overflow"];
  const bool by_replica = overflow == "other_replica" || overflow == "other_replica_or_next_best";
  if (by_replica && !group.empty() && group != "0") return "replicas of an expert hold for a source rank";
  if (by_replica && c.capacity.part == "fastmoe" && c.capacity["gate"] != "gshard") return "a capacity over all ranks says nothing about replicas";
  if (c.capacity["overflow"] == "dense" && c.capacity.part == "fastmoe" && c.capacity["gate"] != "gshard") return "of a capacity over all ranks no rank has a share to send";
  if (c.capacity["overflow"] == "dense" && (c.exchange.part == "hierarchical" || c.exchange.part == "allgather_reducescatter" || c.exchange.part == "one_sided_nvlink" || c.exchange["dedup"] == "rank"))
    return "take an exchange that sends every copy by itself";
  if (c.capacity.part == "megablocks" && c.capacity["form"] == "dmoe" && c.capacity.given.contains("arithmetic")) return "`dmoe` has no capacity";
  // Choices that are taken back after they have filled a place do not follow from scores and choices.
  if ((overflow == "next_best" || overflow == "other_replica_or_next_best") && c.router.part == "gshard" && c.router["second"] == "fastmoe") return "needs a router whose weights follow from a token's scores and choices alone";
  if (c.exchange.part == "one_sided_nvlink" && c.nodes > 1) return "all ranks must share one scale-up domain";
  return "";
}

/// What the rules of docs/layer.md have against its backward pass.
inline std::string backward_refusal(const Combination& c) {
  if (c.capacity.part == "megablocks" && c.capacity["form"] != "dmoe") return "--backward needs a capacity that drops before anything is sent";
  return "";
}

/// Combinations that nothing stands against, on 8 ranks, so that real processes can play them in a short time: every pair of a capacity and an exchange, and each form of a router, a capacity and an exchange
/// that is legal at all, at least once.
inline std::vector<Combination> covering(const Catalogs& catalogs) {
  const std::vector<PartForm> routers = part_forms(catalogs.router), capacities = part_forms(catalogs.capacity), exchanges = part_forms(catalogs.exchange);
  std::vector<Combination> all;
  std::size_t next = 0;  // router
  const auto add = [&](const PartForm& capacity, const PartForm& exchange) {
    for (std::size_t tried = 0; tried < routers.size(); ++tried, ++next) {
      Combination c{routers[next % routers.size()], capacity, exchange, 2, 2, 4};
      if (c.router.part == "base") c.top_k = 1;
      if (exchange.part == "one_sided_nvlink") c.nodes = 1, c.ranks_per_node = 8;
      if (!refusal(c).empty()) continue;
      all.push_back(c), ++next;
      return;
    }
  };
  for (const PartForm& capacity : first_forms(capacities))
    for (const PartForm& exchange : first_forms(exchanges)) add(capacity, exchange);
  for (std::size_t i = 0; i < std::max(capacities.size(), exchanges.size()); ++i) add(capacities[i % capacities.size()], exchanges[i % exchanges.size()]);
  return all;
}

}  // namespace epsim::testing
