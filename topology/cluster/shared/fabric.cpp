#include "topology/cluster/shared/fabric.h"

#include <fmt/format.h>

namespace epsim {

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
