#include "policies/router/shared/gate.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define EPSIM_WIDTHS 1
#include <immintrin.h>
#endif

#include <algorithm>
#include <cstring>
#include <limits>

#include "workloads/scores.h"

#pragma GCC diagnostic ignored "-Wpsabi"  // vectors are passed between inlined functions only

namespace epsim {
namespace {

/// How a rule's experts are cut: groups into parts, whose largest scores tell which scores are worth a look.
struct Cut {
  int groups, group_size, part_size, parts_of_group;

  explicit Cut(const GateRule& rule) {
    groups = rule.groups_kept < rule.groups ? rule.groups : 1;
    group_size = rule.experts / groups;
    // Twice as many parts as choices: few parts then hold more than one of the best.
    part_size = std::max(1, group_size * (groups > 1 ? rule.groups_kept : 1) / (2 * rule.top_k));
    part_size = std::min(part_size, group_size);
    parts_of_group = (group_size + part_size - 1) / part_size;
  }
  int parts() const { return groups * parts_of_group; }
};

/// Values of one block of tokens.
struct alignas(4 * kBlockTokens) Row {
  float of_token[kBlockTokens];
};
struct alignas(4 * kBlockTokens) IdRow {
  std::int32_t of_token[kBlockTokens];
};

/// Work space of one call.
struct Space {
  Cut cut;
  std::vector<Row> scores;  ///< [experts], if there is a bias
  std::vector<Row> part_best, group_best, group_second;
  std::vector<IdRow> group_rank;
  std::vector<IdRow> reached;        ///< a bit an expert
  std::vector<Row> sorted, chosen;   ///< [k]
  std::vector<IdRow> ids;            ///< [k]

  explicit Space(const GateRule& rule) : cut(rule) {
    const auto experts = static_cast<std::size_t>(rule.experts), groups = static_cast<std::size_t>(cut.groups), k = static_cast<std::size_t>(rule.top_k);
    scores.resize(rule.bias.empty() ? 0 : experts);
    part_best.resize(static_cast<std::size_t>(cut.parts()));
    group_best.resize(groups), group_second.resize(groups), group_rank.resize(groups);
    reached.resize((experts + 31) / 32);
    sorted.resize(k), chosen.resize(k), ids.resize(k);
  }
};

#ifdef EPSIM_WIDTHS
#pragma GCC push_options
#pragma GCC target("arch=x86-64-v4")
namespace widest {
#define EPSIM_WIDEST 1
#include "policies/router/shared/gate_block.inc"
#undef EPSIM_WIDEST
}
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("arch=x86-64-v3")
namespace wide {
#include "policies/router/shared/gate_block.inc"
}
#pragma GCC pop_options
#endif
namespace portable {
#include "policies/router/shared/gate_block.inc"
}

}  // namespace

void apply_gate(const GateRule& rule, std::int64_t count, std::span<const float> logits, std::span<std::uint16_t> experts, std::span<float> weights) {
  Space space(rule);
  auto* block = portable::gate_block;
#ifdef EPSIM_WIDTHS
  if (__builtin_cpu_supports("x86-64-v3")) block = wide::gate_block;
  if (__builtin_cpu_supports("x86-64-v4")) block = widest::gate_block;
#endif
  for (std::int64_t t = 0; t < count; t += kBlockTokens)
    block(rule, static_cast<int>(std::min(count - t, kBlockTokens)), logits.data() + score_index(t, 0, rule.experts), space, experts.data() + t * rule.top_k,
          weights.data() + t * rule.top_k);
}

}  // namespace epsim
