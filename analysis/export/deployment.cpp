#include "analysis/export/deployment.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "base/npz.h"

namespace epsim {
namespace {

/// None of the forms says which rank a slot is on: readers cut the slots into equal blocks. Shares of replicas are lost in all of them, and none of their programs plans them.
void check_equal(const Deployment& d, std::string_view who, const Location& at) {
  const int slots = d.placements.front().slots(), ranks = d.placements.front().ranks();
  for (std::size_t l = 0; l < d.placements.size(); ++l) {
    const Placement& p = d.placements[l];
    if (p.slots() != slots)
      throw InputError(at, fmt::format("{} takes equally many slots in every layer: layer {} has {}, layer {} has {}", who, d.layers.front(), slots, d.layers[l], p.slots()));
    for (int r = 0; r < ranks; ++r) {
      const int mine = p.first_slot[static_cast<std::size_t>(r) + 1] - p.first_slot[static_cast<std::size_t>(r)];
      if (mine * ranks != slots)
        throw InputError(at, fmt::format("{} takes equally many slots on every rank: in layer {} rank {} has {} of {} on {} ranks{}", who, d.layers[l], r, mine, slots, ranks,
                                         slots % ranks == 0 ? "; this policy fills ranks unevenly" : fmt::format("; {} or {} slots divide", slots / ranks * ranks, (slots / ranks + 1) * ranks)));
    }
  }
}

/// A row a line.
std::string row_list(const std::vector<std::string>& rows) { return fmt::format("[\n    {}\n  ]", fmt::join(rows, ",\n    ")); }

}  // namespace

std::string to_sglang_location(const Deployment& d, const Location& at) {
  check_equal(d, "SGLang", at);
  const int slots = d.placements.front().slots();
  std::vector<std::string> rows;
  for (std::size_t l = 0; l < d.placements.size(); ++l) {
    std::vector<int> trivial;
    for (int s = 0; s < slots; ++s) trivial.push_back(s % d.experts);
    while (static_cast<int>(rows.size()) < d.layers[l]) rows.push_back(nlohmann::json(trivial).dump());
    rows.push_back(nlohmann::json(d.placements[l].expert_of_slot).dump());
  }
  return fmt::format("{{\n  \"physical_to_logical_map\": {}\n}}\n", row_list(rows));
}

std::string to_ascend_expert_map(const Deployment& d, const Location& at) {
  check_equal(d, "vllm-ascend", at);
  std::vector<std::string> rows;
  for (std::size_t l = 0; l < d.placements.size(); ++l) {
    const Placement& p = d.placements[l];
    nlohmann::ordered_json devices = nlohmann::ordered_json::array();
    for (int r = 0; r < p.ranks(); ++r)
      devices.push_back({{"device_id", r},
                         {"device_expert", std::vector<int>(p.expert_of_slot.begin() + p.first_slot[static_cast<std::size_t>(r)], p.expert_of_slot.begin() + p.first_slot[static_cast<std::size_t>(r) + 1])}});
    rows.push_back(nlohmann::ordered_json{{"layer_id", l}, {"device_count", p.ranks()}, {"device_list", devices}}.dump());
  }
  return fmt::format("{{\n  \"moe_layer_count\": {},\n  \"layer_list\": {}\n}}\n", rows.size(), row_list(rows));
}

std::string to_tensorrt_balancer(const Deployment& d, const Location& at) {
  check_equal(d, "TensorRT-LLM", at);
  std::string out = fmt::format("num_slots: {}\nlayer_updates_per_iter: 0\ninitial_global_assignments:\n", d.placements.front().slots());
  for (std::size_t l = 0; l < d.placements.size(); ++l) out += fmt::format("  {}: [{}]\n", d.layers[l], fmt::join(d.placements[l].expert_of_slot, ", "));
  return out;
}

std::string to_eplb_arrays(const Deployment& d, const Location& at) {
  check_equal(d, "EPLB", at);
  const auto layers = static_cast<std::int64_t>(d.placements.size()), experts = static_cast<std::int64_t>(d.experts), slots = static_cast<std::int64_t>(d.placements.front().slots());
  std::size_t width = 0;
  for (const Placement& p : d.placements)
    for (const auto& replicas : p.slots_of_expert) width = std::max(width, replicas.size());
  std::vector<std::int64_t> physical, logical, count, index(d.layers.begin(), d.layers.end());
  for (const Placement& p : d.placements) {
    physical.insert(physical.end(), p.expert_of_slot.begin(), p.expert_of_slot.end());
    for (const auto& replicas : p.slots_of_expert) {
      for (std::size_t i = 0; i < width; ++i) logical.push_back(i < replicas.size() ? replicas[i].value : -1);
      count.push_back(static_cast<std::int64_t>(replicas.size()));
    }
  }
  NpzWriter out;
  out.add("phy2log", {layers, slots}, std::span<const std::int64_t>(physical));
  out.add("log2phy", {layers, experts, static_cast<std::int64_t>(width)}, std::span<const std::int64_t>(logical));
  out.add("logcnt", {layers, experts}, std::span<const std::int64_t>(count));
  out.add("layers", {layers}, std::span<const std::int64_t>(index));
  return out.bytes();
}

std::span<const DeploymentFormat> deployment_formats() {
  static constexpr std::array kFormats = {
      DeploymentFormat{"eplb", "EPLB's arrays phy2log, log2phy, logcnt (.npz)", to_eplb_arrays},
      DeploymentFormat{"sglang", "SGLang --init-expert-location (JSON)", to_sglang_location},
      DeploymentFormat{"tensorrt-llm", "TensorRT-LLM moe_load_balancer.yaml", to_tensorrt_balancer},
      DeploymentFormat{"vllm-ascend", "vllm-ascend expert map (JSON)", to_ascend_expert_map},
  };
  return kFormats;
}

}  // namespace epsim
