#include <fmt/format.h>

#include <algorithm>

#include "policies/placement.h"
#include "workloads/import/slot_table.h"

namespace epsim::parts_placement {
namespace {

/// Makes every row a placement; reports rows that do not fit the experts and ranks.
std::vector<Placement> placements(const SlotTable& table, const Shape& shape, const std::string& file, Params& p) {
  std::vector<Placement> out;
  for (std::size_t l = 0; l < table.slots.expert_of_slot.size(); ++l) {
    const std::vector<std::int32_t>& experts = table.slots.expert_of_slot[l];
    const auto ranks = static_cast<int>(table.slots.first_slot[l].size()) - 1;
    std::vector<bool> placed(static_cast<std::size_t>(shape.experts));
    for (const std::int32_t e : experts) {
      if (e < shape.experts) {
        placed[static_cast<std::size_t>(e)] = true;
        continue;
      }
      p.error("file", fmt::format("{}: row {} places expert {}, there are {} experts", file, l, e, shape.experts));
      return {};
    }
    if (const auto missing = std::ranges::find(placed, false); missing != placed.end()) p.error("file", fmt::format("{}: row {} has no slot for expert {}", file, l, missing - placed.begin()));
    if (ranks != shape.ranks) p.error("file", fmt::format("{}: row {} is for {} ranks, there are {}", file, l, ranks, shape.ranks));
    if (!p.usable()) return {};
    out.push_back(Placement::from_experts({experts.begin(), experts.end()}, table.slots.first_slot[l], shape.experts));
  }
  return out;
}

}  // namespace

/// The placement of a file: one that another program made or that runs somewhere (`epsim import` reads those of vllm-ascend and TensorRT-LLM; SGLang's own JSON is read as it is), or `epsim place --format json`.
PlacementPolicy given(Params& p, const Shape* shape) {
  PlacementPolicy policy;
  policy.summary = "The placement of a file: what `epsim import` or `epsim place --format json` wrote, or SGLang's --init-expert-location JSON.";
  const std::string file = p.path("file", "JSON with physical_to_logical [[layer][slot]] and, if there, first_slot and layers");
  if (!p.usable() || !shape) return policy;
  SlotTable table;
  try {
    table = read_slot_table(read_text(file), shape->ranks);
  } catch (const InputError& e) {
    for (const Diagnostic& d : e.problems()) p.error("file", d.at.line > 0 ? fmt::format("{}:{}:{}: {}", d.at.source->name, d.at.line, d.at.column, d.message) : d.message);
    return policy;
  }
  std::vector<Placement> rows = placements(table, *shape, file, p);
  if (!p.usable()) return policy;
  policy.place = [rows = std::move(rows), layers = table.layers, file](const Problem& problem) {
    std::vector<Placement> out;
    for (const int layer : problem.layers) {
      const auto row = layers.empty() ? static_cast<std::size_t>(layer) : static_cast<std::size_t>(std::ranges::find(layers, layer) - layers.begin());
      if (rows.size() > 1 && row >= rows.size()) throw InputError({std::make_shared<const SourceText>(SourceText{file, ""})}, fmt::format("has no placement of layer {}", layer));
      out.push_back(rows.size() == 1 ? rows.front() : rows[row]);
    }
    return out;
  };
  return policy;
}

}  // namespace epsim::parts_placement
