#include "policies/router/shared/gate.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define EPSIM_WIDTHS 1
#include <immintrin.h>
#endif

#include <algorithm>
#include <cstring>
#include <limits>

namespace epsim {
namespace {

constexpr int kPartsAtOnce = 4;
constexpr float kNone = -std::numeric_limits<float>::infinity();
constexpr float kNever = std::numeric_limits<float>::quiet_NaN();  // no score reaches it, and it reaches none

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
  int padded_parts() const { return (parts() + kPartsAtOnce - 1) / kPartsAtOnce * kPartsAtOnce; }
};

/// Values of one block of tokens.
struct alignas(4 * kBlockTokens) Row {
  float of_token[kBlockTokens];
};
struct alignas(4 * kBlockTokens) IdRow {
  std::int32_t of_token[kBlockTokens];
};

/// Work space of one call, in memory that a thread keeps: calls are for few tokens.
struct Space {
  Cut cut;
  Row *scores, *part_best, *group_best, *group_second;  // [experts], if there is a bias; [parts]; [groups]; [groups]
  Row *sorted, *chosen;                                 // [k]
  IdRow *group_rank, *marked, *ids;                     // [groups]; a bit an expert; [k]

  explicit Space(const GateRule& rule) : cut(rule) {
    const int experts = rule.bias.empty() ? 0 : rule.experts, words = marked_words(rule);
    thread_local std::vector<Row> rows;
    thread_local std::vector<IdRow> id_rows;
    rows.resize(std::max(rows.size(), static_cast<std::size_t>(experts + cut.padded_parts() + 2 * cut.groups + 2 * rule.top_k)));
    id_rows.resize(std::max(id_rows.size(), static_cast<std::size_t>(cut.groups + words + rule.top_k)));
    scores = rows.data(), part_best = scores + experts, group_best = part_best + cut.padded_parts(), group_second = group_best + cut.groups;
    sorted = group_second + cut.groups, chosen = sorted + rule.top_k;
    for (int p = cut.parts(); p < cut.padded_parts(); ++p) std::fill_n(part_best[p].of_token, kBlockTokens, kNone);
    group_rank = id_rows.data(), marked = group_rank + cut.groups, ids = marked + words;
  }
  static int marked_words(const GateRule& rule) { return (rule.experts + 31) / 32; }
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

int gate_widths() {
#ifdef EPSIM_WIDTHS
  if (__builtin_cpu_supports("x86-64-v4")) return 3;
  if (__builtin_cpu_supports("x86-64-v3")) return 2;
#endif
  return 1;
}

void apply_gate(const GateRule& rule, ScoreForm form, std::int64_t count, std::span<const float> scores, std::span<std::uint16_t> experts,
                std::span<float> weights, int width) {
#ifdef EPSIM_WIDTHS
  constexpr decltype(&portable::gate_block) kBlocks[] = {portable::gate_block, wide::gate_block, widest::gate_block};
#else
  constexpr decltype(&portable::gate_block) kBlocks[] = {portable::gate_block};
#endif
  Space space(rule);
  for (std::int64_t t = 0; t < count; t += kBlockTokens)
    kBlocks[width](rule, form, static_cast<int>(std::min(count - t, kBlockTokens)), scores.data() + score_index(t, 0, rule.experts), space,
                   experts.data() + t * rule.top_k, weights.data() + t * rule.top_k);
}

}  // namespace epsim
