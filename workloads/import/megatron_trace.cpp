#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>
#include <tuple>

#include "workloads/import/formats.h"
#include "workloads/import/json_tree.h"

namespace epsim {
namespace {

using Ids = std::vector<std::int32_t>;  // [tokens][k]
/// Tokens that pass the layers together: step, rank, and how often the rank has met the layer in that step (micro-batches).
using Group = std::tuple<std::int64_t, std::int64_t, std::int64_t>;

struct Trace {
  int top_k = 0;
  std::set<std::int64_t> layers;
  std::map<Group, std::map<std::int64_t, Ids>> groups;
  std::map<std::tuple<std::int64_t, std::int64_t, std::int64_t>, std::int64_t> met;  // step, rank, layer
  std::int64_t left_out = 0;

  void add(const JsonReader& r, const Json& record) {
    const Json* block = record.find("block");
    if (record.find("mtp_idx") || (block && block->text == "mtp")) {
      ++left_out;
      return;
    }
    constexpr std::int64_t kMost = std::int64_t{1} << 40;
    const std::int64_t step = r.whole_member(record, "step", 0, kMost), layer = r.whole_member(record, "layer", 0, 1'000'000), rank = r.whole_member(record, "rank", 0, 1'000'000);
    const Json& indices = r.list(r.member(record, "top_indices"), "top_indices");
    Ids ids;
    for (const Json& token : indices.items) {
      const std::vector<std::int64_t> choice = r.wholes(token, "top_indices", RecordedChoices::kNone, kMostExperts - 1);
      if (top_k == 0) top_k = static_cast<int>(std::min<std::size_t>(choice.size(), kMostExperts));
      if (choice.empty() || static_cast<int>(choice.size()) != top_k) r.fail(token, fmt::format("this token has {} choices, the first has {}", choice.size(), top_k));
      ids.insert(ids.end(), choice.begin(), choice.end());
    }
    const Json* tokens = record.find("num_tokens");
    if (tokens && r.whole(*tokens, "num_tokens", 0, kMost) != static_cast<std::int64_t>(indices.items.size()))
      r.fail(*tokens, fmt::format("`num_tokens` is {}, but `top_indices` has {} tokens", tokens->number, indices.items.size()));
    layers.insert(layer);
    groups[{step, rank, met[{step, rank, layer}]++}][layer] = std::move(ids);
  }

  /// Whether every group has met every layer with the same number of tokens.
  bool whole() const {
    return std::ranges::all_of(groups, [&](const auto& group) {
      return group.second.size() == layers.size() && std::ranges::all_of(group.second, [&](const auto& layer) { return layer.second.size() == group.second.begin()->second.size(); });
    });
  }

  /// Leaves out what a rank has recorded of the same tokens as a rank before it in the same step.
  std::int64_t drop_replicas() {
    std::int64_t dropped = 0;
    for (auto group = groups.begin(); group != groups.end();) {
      const auto& [step, rank, time] = group->first;
      bool same = false;
      for (auto other = groups.lower_bound({step, 0, 0}); other != group && !same; ++other)
        same = std::get<1>(other->first) != rank && std::get<2>(other->first) == time && other->second == group->second;
      group = same ? (++dropped, groups.erase(group)) : std::next(group);
    }
    return dropped;
  }
};

RecordedChoices join(const Trace& t) {
  RecordedChoices out;
  out.top_k = t.top_k;
  for (const auto& [group, layers] : t.groups) {
    const auto tokens = static_cast<std::int64_t>(layers.begin()->second.size()) / t.top_k;
    for (std::int64_t i = 0; i < tokens; ++i)
      for (const auto& [layer, ids] : layers) out.experts.insert(out.experts.end(), ids.begin() + i * t.top_k, ids.begin() + (i + 1) * t.top_k);
    out.tokens += tokens;
  }
  return out;
}

RecordedCounts count(const Trace& t, const Location& at) {
  std::int32_t most = 0;
  std::map<std::int64_t, std::size_t> steps;
  for (const auto& [group, layers] : t.groups) {
    steps.emplace(std::get<0>(group), steps.size());
    for (const auto& [layer, ids] : layers)
      for (const std::int32_t e : ids) most = std::max(most, e);
  }
  check_size(at, static_cast<std::int64_t>(steps.size()), static_cast<std::int64_t>(t.layers.size()), most + 1);
  RecordedCounts out;
  out.steps.assign(steps.size(), Matrix<std::int64_t>(static_cast<std::int64_t>(t.layers.size()), most + 1));
  for (const auto& [group, layers] : t.groups)
    for (const auto& [layer, ids] : layers) {
      const auto row = std::distance(t.layers.begin(), t.layers.find(layer));
      for (const std::int32_t e : ids)
        if (e >= 0) ++out.steps[steps[std::get<0>(group)]](row, e);
    }
  return out;
}

}  // namespace

Recording read_megatron_trace(const SourceFiles& files, const ImportOptions&) {
  Trace trace;
  for (const auto& file : files) {
    const JsonReader r(file);
    for_each_json_line(file, [&](const Json& record) { trace.add(r, record); });
  }
  if (trace.top_k == 0) throw InputError({files.front()}, "has no records with tokens in `top_indices`");
  Recording out;
  out.found = fmt::format("Megatron-LM router trace of {} files", files.size());
  out.rows = static_cast<std::int64_t>(trace.layers.size());
  const bool from_one = !trace.layers.contains(0);  // Megatron numbers layers from 1
  for (const std::int64_t layer : trace.layers) out.layers.push_back(static_cast<int>(layer - (from_one ? 1 : 0)));
  if (trace.left_out > 0) out.warnings.push_back(fmt::format("{} records of multi-token-prediction layers are left out", trace.left_out));
  if (const std::int64_t same = trace.drop_replicas(); same > 0)
    out.warnings.push_back(fmt::format("{} times a rank recorded the same choices as another in the same step (replicas of the same tokens): counted once", same));
  if (trace.whole()) {
    out.data = join(trace);
  } else {
    out.warnings.emplace_back("not every rank met every layer with the same tokens (pipeline stages?): choices cannot be joined token by token, only counted");
    out.data = count(trace, {files.front()});
  }
  return out;
}

}  // namespace epsim
