#include <fmt/format.h>

#include <numeric>

#include "base/parallel.h"
#include "policies/placement/shared/copies.h"
#include "policies/placement/shared/slots.h"
#include "policies/placement/shared/table.h"

namespace epsim::parts_placement {
namespace {

using RankTable = std::vector<std::vector<int>>;  ///< [redundant slot][rank] the rank whose expert it duplicates

/// Every edge of the shape once: rank r duplicates the expert of the rank that the edge comes from. Shapes smaller than the machine repeat over blocks of
/// ranks.
RankTable originals(const std::string& topology, int ranks, int rows, int columns) {
  RankTable block;
  if (topology == "cube") {  // LPLB's own: two rings of 4 ranks, joined crosswise
    block = {{3, 0, 1, 2, 7, 4, 5, 6}, {6, 7, 4, 5, 0, 1, 2, 3}};
  } else if (topology == "hypercube") {  // of 4 dimensions, which is two rings of 4 crossed: each pair of bits counts in Gray code
    constexpr int kBefore[] = {2, 0, 3, 1};
    block.resize(2);
    for (int r = 0; r < 16; ++r) block[0].push_back((r & ~3) | kBefore[r & 3]), block[1].push_back((r & 3) | kBefore[r >> 2] << 2);
  } else if (topology == "torus") {
    block.resize(2);
    for (int r = 0; r < rows * columns; ++r) {
      const int row = r / columns, column = r % columns;
      block[0].push_back(row * columns + (column + columns - 1) % columns);
      block[1].push_back((row + rows - 1) % rows * columns + column);
    }
  } else {
    block.resize(1);
    for (int r = 0; r < ranks; ++r) block[0].push_back((r + ranks - 1) % ranks);
  }
  RankTable table(block.size());
  for (std::size_t i = 0; i < block.size(); ++i)
    for (int r = 0; r < ranks; ++r) {
      const int size = static_cast<int>(block[i].size());
      table[i].push_back(r / size * size + block[i][static_cast<std::size_t>(r % size)]);
    }
  return table;
}

/// EPLB's packing without replicas, on slots that need not divide. One expert a rank stays where it is, as there: sorted, the heaviest would be neighbours, who
/// cannot relieve each other.
Placement pack(const std::vector<std::int64_t>& loads, std::vector<std::int32_t> first_slot) {
  std::vector<int> experts(loads.size());
  std::iota(experts.begin(), experts.end(), 0);
  if (experts.size() + 1 == first_slot.size()) return placement_of(experts, experts, std::move(first_slot), static_cast<int>(loads.size()));
  const SortedCopies sorted = sort_copies(experts, std::vector<double>(loads.begin(), loads.end()));
  std::vector<double> load(first_slot.size() - 1);
  std::vector<int> room = rooms(first_slot);
  const std::vector<int> rank = pack_lightest<double>(sorted.weight, load, room);
  return placement_of(sorted.expert, rank, std::move(first_slot), static_cast<int>(loads.size()));
}

/// Adds the redundant slots: the i-th of a rank duplicates the i-th slot of `table[i][rank]`, where that is another rank and has so many.
Placement duplicate(const Placement& packed, const RankTable& table, int experts) {
  std::vector<std::uint16_t> expert_of_slot;
  std::vector<std::int32_t> first{0};
  std::vector<std::vector<Slot>> main(static_cast<std::size_t>(experts), std::vector<Slot>(1)), copies(static_cast<std::size_t>(experts));
  for (const Rank r : ids<Rank>(packed.ranks())) {
    for (std::int32_t s = packed.first_slot[r]; s < packed.first_slot[r + 1]; ++s) {
      const std::uint16_t e = packed.expert_of_slot[static_cast<std::size_t>(s)];
      main[e].front() = Slot(static_cast<std::int64_t>(expert_of_slot.size()));
      expert_of_slot.push_back(e);
    }
    for (std::size_t i = 0; i < table.size(); ++i) {
      const auto o = static_cast<std::size_t>(table[i][r]);
      const std::int32_t original = packed.first_slot[o] + static_cast<std::int32_t>(i);
      if (o == static_cast<std::size_t>(r) || original >= packed.first_slot[o + 1]) continue;
      const std::uint16_t e = packed.expert_of_slot[static_cast<std::size_t>(original)];
      copies[e].push_back(Slot(static_cast<std::int64_t>(expert_of_slot.size())));
      expert_of_slot.push_back(e);
    }
    first.push_back(static_cast<std::int32_t>(expert_of_slot.size()));
  }
  for (std::size_t e = 0; e < main.size(); ++e) main[e].insert(main[e].end(), copies[e].begin(), copies[e].end());
  return {std::move(expert_of_slot), std::move(first), std::move(main), {}};
}

}  // namespace

/// The placement half of DeepSeek's LPLB (2025): experts packed onto ranks by EPLB's packing without replicas, heaviest first in each rank; then the i-th
/// redundant slot of a rank duplicates the i-th slot of another rank, by a fixed topology. How the two replicas share their expert is a replica rule's to
/// decide, batch by batch. A redundant slot whose original does not exist (fewer experts, a ring of one) does not exist either. The hypercube's edges are
/// oriented here (LPLB's own table was not seen).
PlacementPolicy lplb(Params& p, const Shape* shape) {
  PlacementPolicy policy;
  policy.summary =
      "LPLB's placement: EPLB's packing without replicas, and the heaviest experts of each rank duplicated on its neighbours in a cube, ring, hypercube or "
      "torus.";
  const std::string topology =
      p.choice("topology", "ring: one redundant slot a rank; cube (of 8 ranks), hypercube (of 16) and torus: two; smaller shapes than the machine repeat",
               {"ring", "cube", "hypercube", "torus"}, "ring");
  const auto rows = static_cast<int>(p.integer("rows", "of the torus", 0, 1, 65'536, "the nodes"));
  const auto columns = static_cast<int>(p.integer("columns", "of the torus: ranks that follow each other", 0, 1, 65'536, "ranks of a node"));
  for (const char* key : {"rows", "columns"})
    if (topology != "torus" && p.has(key)) p.error(key, fmt::format("`{}` has no use in `topology: {}`", key, topology));
  if (p.has("rows") != p.has("columns")) p.error(p.has("rows") ? "rows" : "columns", "a torus needs `rows` and `columns`, or neither");
  if (shape && p.usable()) {
    const std::int64_t block = topology == "cube"        ? 8
                               : topology == "hypercube" ? 16
                               : topology == "torus"     ? (rows ? std::int64_t{rows} * columns : shape->nodes)
                                                         : 1;
    if (shape->ranks % block != 0)
      p.error("topology",
              topology == "torus" && !rows
                  ? fmt::format("{} ranks do not divide over {} nodes: a torus needs equal nodes, or `rows` and `columns`", shape->ranks, shape->nodes)
                  : fmt::format("{} ranks do not divide into a {} of {} ranks each; `ring` takes any number", shape->ranks, topology, block));
  }
  if (!p.usable()) return policy;
  policy.place = [=](const Problem& problem) {
    const RankTable table = originals(topology, problem.ranks, rows ? rows : problem.nodes, columns ? columns : problem.ranks / problem.nodes);
    const std::vector<std::int32_t> first = spread_slots(problem.experts, problem.ranks);
    std::vector<Placement> placements(problem.counts.size());
    parallel_for(static_cast<std::int64_t>(placements.size()), [&](std::int64_t l) {
      const auto layer = static_cast<std::size_t>(l);
      placements[layer] = duplicate(pack(problem.loads(layer), first), table, problem.experts);
    });
    return placements;
  };
  return policy;
}

}  // namespace epsim::parts_placement
