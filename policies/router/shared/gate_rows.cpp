#include "policies/router/shared/gate_rows.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <numeric>

#include "base/fast_math.h"
#include "base/vectorise.h"

#define EPSIM_INLINE inline __attribute__((always_inline))  // into each version of the function that calls it

namespace epsim {
namespace {

constexpr float kNone = -std::numeric_limits<float>::infinity();
constexpr int kLanes = 16;
using Lanes = float __attribute__((vector_size(4 * kLanes)));
using Masks = std::int32_t __attribute__((vector_size(4 * kLanes)));
using Flags = std::int8_t __attribute__((vector_size(kLanes)));
using Bytes = std::uint8_t __attribute__((vector_size(kLanes)));

int padded(int n) { return (n + kLanes - 1) / kLanes * kLanes; }

/// Work space of one call: every array is padded, so that loops run over whole vectors.
struct Scratch {
  std::vector<float> scores, high[2], low[2], exps, chosen, values;
  std::vector<std::int32_t> ids, best, rank, mark, order, found;
  std::vector<std::uint8_t> flags;

  explicit Scratch(const GateRule& rule) {
    const auto n = static_cast<std::size_t>(padded(std::max(rule.experts, rule.groups)) + kLanes);
    for (std::vector<float>* v : {&scores, &high[0], &high[1], &low[0], &low[1], &exps, &values}) v->assign(n, kNone);
    chosen.assign(static_cast<std::size_t>(padded(rule.top_k)), 0.0F);
    for (std::vector<std::int32_t>* v : {&ids, &best, &rank, &mark, &order, &found}) v->assign(n, 0);
    flags.assign(n + 64, 0);
  }
};

/// The largest of n values.
EPSIM_INLINE float largest(const float* values, int n) {
  Lanes high = Lanes{} + kNone;
  int i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    Lanes x;
    std::memcpy(&x, values + i, sizeof x);
    high = high > x ? high : x;
  }
  float top = kNone;
  for (int l = 0; l < kLanes; ++l) top = high[l] > top ? high[l] : top;
  for (; i < n; ++i) top = values[i] > top ? values[i] : top;
  return top;
}

/// The indices of the k best of values[0..n), best first, lowest index first among equals; values up to the next whole vector are overwritten, best has k+1
/// places. Counting for each how many are greater needs no branch that could be foreseen wrongly; ties and long lists, which are rare, are sorted.
EPSIM_INLINE void best_indices(float* values, int n, int k, std::int32_t* best, std::int32_t* rank) {
  if (n <= 4 * kLanes) {
    for (int i = n; i % kLanes != 0; ++i) values[i] = kNone;
    for (int i = 0; i < n; i += kLanes) {
      Lanes mine;
      std::memcpy(&mine, values + i, sizeof mine);
      Masks greater{};
      for (int j = 0; j < n; ++j) greater -= (Lanes{} + values[j]) > mine;
      std::memcpy(rank + i, &greater, sizeof greater);
    }
    for (int i = 0; i < k; ++i) best[i] = -1;
    for (int i = n - 1; i >= 0; --i) best[rank[i] < k ? rank[i] : k] = i;  // of equals at the last place the lowest stays
    std::int32_t all = 0;
    for (int i = 0; i < k; ++i) all |= best[i];
    if (all >= 0) return;  // else some place is empty: equals have one rank
  }
  std::iota(rank, rank + n, 0);
  std::partial_sort(rank, rank + k, rank + n, [values](std::int32_t a, std::int32_t b) { return values[a] != values[b] ? values[a] > values[b] : a < b; });
  std::copy_n(rank, k, best);
}

/// The two largest of each group of `size` neighbours, by halving: high[i], low[i] of pairs, of pairs of pairs and so on. Gives which of the two buffers holds
/// them.
EPSIM_INLINE int group_tops(const float* scores, int groups, int size, Scratch& s) {
  int from = 0;
  if (size % 2 == 0) {
    const int n = groups * size / 2;
    float* __restrict high = s.high[0].data(), * __restrict low = s.low[0].data();
    for (int i = 0; i < n; ++i) {
      const float a = scores[2 * i], b = scores[2 * i + 1];
      high[i] = a > b ? a : b;
      low[i] = a > b ? b : a;
    }
    size /= 2;
  } else {
    std::copy_n(scores, groups * size, s.high[0].data());
    std::fill_n(s.low[0].data(), groups * size, kNone);
  }
  for (; size % 2 == 0; size /= 2, from = 1 - from) {
    const int n = groups * size / 2;
    const float* __restrict high = s.high[from].data(), * __restrict low = s.low[from].data();
    float* __restrict next_high = s.high[1 - from].data(), * __restrict next_low = s.low[1 - from].data();
    for (int i = 0; i < n; ++i) {
      const float a = high[2 * i], b = high[2 * i + 1], c = low[2 * i], d = low[2 * i + 1];
      const float lesser = a > b ? b : a, second = c > d ? c : d;
      next_high[i] = a > b ? a : b;
      next_low[i] = lesser > second ? lesser : second;
    }
  }
  if (size > 1) {
    const float *high = s.high[from].data(), *low = s.low[from].data();
    float *next_high = s.high[1 - from].data(), *next_low = s.low[1 - from].data();
    for (int g = 0; g < groups; ++g) {
      float a = high[g * size], b = low[g * size];
      for (int i = g * size + 1; i < (g + 1) * size; ++i) {
        b = std::max({b, std::min(a, high[i]), low[i]});
        a = std::max(a, high[i]);
      }
      next_high[g] = a, next_low[g] = b;
    }
    from = 1 - from;
  }
  return from;
}

/// Marks the groups that are kept, and gives a score that at least k experts in them reach (-infinity if their two best are fewer than k).
EPSIM_INLINE float keep_groups(const GateRule& rule, const float* scores, Scratch& s) {
  const int buffer = group_tops(scores, rule.groups, rule.experts / rule.groups, s);
  const float *high = s.high[buffer].data(), *low = s.low[buffer].data();
  float* group_score = s.values.data();
  const int n = padded(rule.groups);
  const bool raw = rule.bias.empty();  // then `scores` are logits
  if (rule.group_score == GateRule::GroupScore::max) {
    std::copy_n(high, rule.groups, group_score);
  } else if (rule.experts == rule.groups) {
    std::copy_n(high, rule.groups, group_score);  // groups of one have no second
  } else if (raw && rule.score == GateRule::Score::sigmoid) {
    for (int g = 0; g < n; ++g) group_score[g] = fast_sigmoid(high[g]) + fast_sigmoid(low[g]);
  } else if (raw) {
    const float top = largest(high, rule.groups);
    for (int g = 0; g < n; ++g) group_score[g] = fast_exp(high[g] - top) + fast_exp(low[g] - top);
  } else {
    for (int g = 0; g < n; ++g) group_score[g] = high[g] + low[g];
  }
  std::int32_t *best = s.best.data(), *mark = s.mark.data();
  best_indices(group_score, rule.groups, rule.groups_kept, best, s.rank.data());
  for (int g = 0; g < rule.groups; ++g) mark[g] = 0;
  for (int i = 0; i < rule.groups_kept; ++i) mark[best[i]] = 1;
  if (2 * rule.groups_kept < rule.top_k) return kNone;
  float* tops = s.values.data();
  for (int i = 0; i < rule.groups_kept; ++i) {
    tops[2 * i] = high[best[i]];
    tops[2 * i + 1] = low[best[i]];
  }
  best_indices(tops, 2 * rule.groups_kept, rule.top_k, best, s.rank.data());
  return tops[best[rule.top_k - 1]];
}

/// A score that at least k experts reach, near the k-th best: from the two best of each of 16 interleaved parts.
EPSIM_INLINE float reached_by(const float* scores, int experts, int k, Scratch& s) {
  if (k > 2 * kLanes || experts <= 2 * kLanes) return kNone;
  Lanes high = Lanes{} + kNone, low = high;
  for (int i = 0; i + kLanes <= experts; i += kLanes) {
    Lanes x;
    std::memcpy(&x, scores + i, sizeof x);
    const Lanes lesser = high > x ? x : high;
    high = high > x ? high : x;
    low = low > lesser ? low : lesser;
  }
  float* values = s.values.data();
  std::memcpy(values, &high, sizeof high);
  std::memcpy(values + kLanes, &low, sizeof low);
  best_indices(values, 2 * kLanes, k, s.best.data(), s.rank.data());
  return values[s.best[static_cast<std::size_t>(k - 1)]];
}

/// Weights of the chosen experts from their logits: unbiased scores.
EPSIM_INLINE void weigh(const GateRule& rule, const float* logits, Scratch& s, float* weights) {
  const int k = rule.top_k, n = padded(k);
  float* w = s.chosen.data();
  float sum = 0;
  if (rule.score == GateRule::Score::sigmoid) {
    for (int i = 0; i < n; ++i) w[i] = fast_sigmoid(w[i]);
  } else {
    const float top = rule.renormalise ? largest(w, k) : largest(logits, rule.experts);
    for (int i = 0; i < n; ++i) w[i] = fast_exp(w[i] - top);
    if (!rule.renormalise) {
      float* exps = s.exps.data();
      for (int e = 0; e < rule.experts; ++e) exps[e] = fast_exp(logits[e] - top);
      Lanes lanes{};  // a sum of fixed order: by lane, then over lanes
      int e = 0;
      for (; e + kLanes <= rule.experts; e += kLanes) {
        Lanes x;
        std::memcpy(&x, exps + e, sizeof x);
        lanes += x;
      }
      for (int l = 0; l < kLanes; ++l) sum += lanes[l];
      for (; e < rule.experts; ++e) sum += exps[e];
    }
  }
  if (rule.renormalise)
    for (int i = 0; i < k; ++i) sum += w[i];
  const bool divide = rule.renormalise || rule.score == GateRule::Score::softmax;
  for (int i = 0; i < k; ++i) weights[i] = (divide ? w[i] / sum : w[i]) * rule.scale;
}

/// Lists the experts of kept groups whose score is at least `enough`, ascending; gives how many. Compares are made by vectors into bytes, eight bytes at a time
/// become bits, and only bits that are set are walked: a branch per expert could not be foreseen.
EPSIM_INLINE int collect(const GateRule& rule, const float* scores, float enough, Scratch& s) {
  const int size = rule.experts / rule.groups;
  std::int32_t* __restrict ids = s.ids.data();
  float* __restrict values = s.values.data();
  std::uint8_t* __restrict flags = s.flags.data();  // zero beyond the experts; the lowest bit counts
  int done = 0;
  for (; done + kLanes <= rule.experts; done += kLanes) {
    Lanes x;
    std::memcpy(&x, scores + done, sizeof x);
    const Flags reached = __builtin_convertvector(x >= enough, Flags);
    std::memcpy(flags + done, &reached, sizeof reached);
  }
  for (; done < rule.experts; ++done) flags[done] = scores[done] >= enough ? 1 : 0;
  for (int g = 0; g < rule.groups && rule.groups_kept < rule.groups; ++g)
    if (!s.mark[static_cast<std::size_t>(g)]) std::memset(flags + g * size, 0, static_cast<std::size_t>(size));
  int n = 0;
  for (int from = 0; from < rule.experts; from += 64) {
    std::uint64_t bits = 0;
    for (int i = 0; i < 8; ++i) {
      std::uint64_t eight;
      std::memcpy(&eight, flags + from + 8 * i, sizeof eight);
      bits |= ((eight & 0x0101010101010101U) * 0x0102040810204080U >> 56) << (8 * i);  // gathers the lowest bit of each byte
    }
    for (; bits != 0; bits &= bits - 1, ++n) {
      const int e = from + std::countr_zero(bits);
      ids[n] = e;
      values[n] = scores[e];
    }
  }
  return n;
}

EPSIM_INLINE void gate_row(const GateRule& rule, const float* logits, Scratch& s, std::uint16_t* experts, float* weights) {
  const float* scores = logits;
  if (!rule.bias.empty()) {
    float* __restrict biased = s.scores.data();
    const float* __restrict bias = rule.bias.data();
    if (rule.score == GateRule::Score::sigmoid) {
      for (int e = 0; e < rule.experts; ++e) biased[e] = fast_sigmoid(logits[e]) + bias[e];
    } else {
      const float top = largest(logits, rule.experts);
      float sum = 0;  // of fixed order
      for (int e = 0; e < rule.experts; ++e) biased[e] = fast_exp(logits[e] - top);
      for (int e = 0; e < rule.experts; ++e) sum += biased[e];
      for (int e = 0; e < rule.experts; ++e) biased[e] = biased[e] / sum + bias[e];
    }
    scores = biased;
  }
  const bool grouped = rule.groups_kept < rule.groups;
  const float enough = grouped ? keep_groups(rule, scores, s) : reached_by(scores, rule.experts, rule.top_k, s);
  const int n = collect(rule, scores, enough, s);
  const std::int32_t* ids = s.ids.data();
  best_indices(s.values.data(), n, rule.top_k, s.best.data(), s.rank.data());
  const std::int32_t* best = s.best.data();
  float* chosen = s.chosen.data();
  for (int i = 0; i < rule.top_k; ++i) {
    const std::int32_t e = ids[best[i]];
    experts[i] = static_cast<std::uint16_t>(e);
    chosen[i] = logits[e];
  }
  weigh(rule, logits, s, weights);
}

EPSIM_VECTORISE void gate_all(const GateRule& rule, std::int64_t count, const float* logits, Scratch& s, std::uint16_t* experts, float* weights) {
  for (std::int64_t t = 0; t < count; ++t) gate_row(rule, logits + t * rule.experts, s, experts + t * rule.top_k, weights + t * rule.top_k);
}

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
// Where vectors have 512 bits the common shapes go another way to the same result: with scores as whole numbers of the same order, whose smaller and larger of two
// are one instruction each, and with as few branches on data as can be. What is rare in it (equal scores among the best, many candidates) is left to `gate_all`.
// Vector types are lowered before a function is cloned, so these functions say at once what they are compiled for.
#define EPSIM_SHORT_WAY 1
#pragma GCC push_options
#pragma GCC target("arch=x86-64-v4")

constexpr int kShortWays = 16;  // groups and choices at most

/// A whole number that is larger where the score is larger, and equal where it is equal.
EPSIM_INLINE Masks order_of(Lanes x) {
  const auto bits = reinterpret_cast<Masks>(x + 0.0F);  // -0 becomes 0
  return bits ^ (bits >> 31 & 0x7fffffff);
}
EPSIM_INLINE Lanes score_of(Masks order) { return reinterpret_cast<Lanes>(order ^ (order >> 31 & 0x7fffffff)); }
EPSIM_INLINE Masks larger(Masks a, Masks b) { return a > b ? a : b; }
EPSIM_INLINE Masks smaller(Masks a, Masks b) { return a > b ? b : a; }
EPSIM_INLINE Masks load(const std::int32_t* from) {
  Masks x;
  std::memcpy(&x, from, sizeof x);
  return x;
}
constexpr Masks kLane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
constexpr Masks kEven = {0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30};

struct Tops {
  Masks high, low;
};

/// The two largest of neighbours in a and b: lanes 0-7 from a, 8-15 from b.
EPSIM_INLINE Tops merged(const Tops& a, const Tops& b) {
  const Masks p = __builtin_shuffle(a.high, b.high, kEven), q = __builtin_shuffle(a.high, b.high, kEven + 1);
  const Masks r = __builtin_shuffle(a.low, b.low, kEven), s = __builtin_shuffle(a.low, b.low, kEven + 1);
  return {larger(p, q), larger(smaller(p, q), larger(r, s))};
}

/// How many of values[0..16) are greater than each.
EPSIM_INLINE Masks ranks_of(const std::int32_t* values) {
  const Masks mine = load(values);
  Masks greater{};
  for (int j = 0; j < kLanes; ++j) greater -= (Masks{} + values[j]) > mine;
  return greater;
}

bool has_short_way(const GateRule& rule) {
  const bool grouped = rule.groups_kept < rule.groups;
  return rule.bias.empty() && rule.top_k <= kShortWays && rule.experts % kLanes == 0 && (!grouped || (rule.groups <= kShortWays && rule.experts / rule.groups % kLanes == 0)) &&
         (rule.score == GateRule::Score::sigmoid || rule.renormalise);
}

/// As `gate_row`, for rules that have a short way; false where a row needs the long one.
EPSIM_INLINE bool gate_row_short(const GateRule& rule, const float* logits, Scratch& s, std::uint16_t* experts, float* weights) {
  const bool grouped = rule.groups_kept < rule.groups;
  const int groups = grouped ? rule.groups : 1, k = rule.top_k;
  const int group_vectors = rule.experts / groups / kLanes;
  std::int32_t* order = s.order.data();
  Tops tops[kShortWays];  // of each group, by lane
  for (int g = 0; g < groups; ++g) {
    Tops top{Masks{} + std::numeric_limits<std::int32_t>::min(), Masks{} + std::numeric_limits<std::int32_t>::min()};
    for (int v = g * group_vectors; v < (g + 1) * group_vectors; ++v) {
      Lanes x;
      std::memcpy(&x, logits + v * kLanes, sizeof x);
      const Masks mine = order_of(x);
      std::memcpy(order + v * kLanes, &mine, sizeof mine);
      top = {larger(top.high, mine), larger(top.low, smaller(top.high, mine))};
    }
    tops[g] = top;
  }

  std::int32_t kept[kShortWays + 1] = {0};
  int groups_kept = 1;
  alignas(64) std::int32_t values[kLanes];
  if (grouped) {
    Tops all[kShortWays];
    for (int g = 0; g < groups; ++g) all[g] = tops[g];
    for (int left = groups, step = 0; step < 4; ++step) {
      for (int i = 0; 2 * i < left; ++i) all[i] = merged(all[2 * i], all[2 * i + 1 < left ? 2 * i + 1 : 2 * i]);
      left = (left + 1) / 2;
    }
    const Lanes high = score_of(all[0].high), low = score_of(all[0].low);
    alignas(64) float score[kLanes], h[kLanes], l[kLanes];
    std::memcpy(h, &high, sizeof h);
    std::memcpy(l, &low, sizeof l);
    if (rule.group_score == GateRule::GroupScore::max) {
      for (int g = 0; g < kLanes; ++g) score[g] = h[g];
    } else if (rule.score == GateRule::Score::sigmoid) {
      for (int g = 0; g < kLanes; ++g) score[g] = fast_sigmoid(h[g]) + fast_sigmoid(l[g]);
    } else {
      const float top = largest(h, kLanes);  // lanes beyond the groups repeat some
      for (int g = 0; g < kLanes; ++g) score[g] = fast_exp(h[g] - top) + fast_exp(l[g] - top);
    }
    Lanes score_lanes;
    std::memcpy(&score_lanes, score, sizeof score);
    const Masks mine = order_of(score_lanes);
    std::memcpy(values, &mine, sizeof mine);
    Masks better{};
    for (int j = 0; j < groups; ++j) better -= ((Masks{} + values[j]) > mine) | (((Masks{} + values[j]) == mine) & (kLane > j));
    std::memcpy(values, &better, sizeof better);
    groups_kept = 0;
    for (int g = 0; g < groups; ++g) {
      kept[groups_kept] = g;
      groups_kept += values[g] < rule.groups_kept;
    }
  }

  // The k-th largest of the lanes' largest: k experts reach it, and few more.
  Masks lanes = tops[kept[0]].high;
  for (int i = 1; i < groups_kept; ++i) lanes = larger(lanes, tops[kept[i]].high);
  std::memcpy(values, &lanes, sizeof lanes);
  lanes = ranks_of(values) < k ? lanes : Masks{} + std::numeric_limits<std::int32_t>::max();
  for (int step = 0; step < 4; ++step) lanes = smaller(__builtin_shuffle(lanes, lanes, kEven), __builtin_shuffle(lanes, lanes, kEven + 1));
  const Masks enough = Masks{} + lanes[0];

  // Eight vectors of candidates at a time become bits: bit 8 lane + vector.
  std::int32_t* ids = s.ids.data();
  std::int32_t* found = s.found.data();
  int n = 0;
  const int vectors = groups_kept * group_vectors;
  for (int from = 0; from < vectors; from += 8) {
    Masks reached{};
    std::int32_t base[8];
    for (int j = 0; j < 8 && from + j < vectors; ++j) {
      base[j] = grouped ? (kept[(from + j) / group_vectors] * group_vectors + (from + j) % group_vectors) * kLanes : (from + j) * kLanes;
      reached |= (load(order + base[j]) >= enough) & (1 << j);
    }
    const Bytes bytes = __builtin_convertvector(reached, Bytes);
    std::uint64_t words[2];
    std::memcpy(words, &bytes, sizeof words);
    for (int w = 0; w < 2; ++w)
      for (std::uint64_t bits = words[w]; bits != 0; bits &= bits - 1, ++n) {
        const int bit = std::countr_zero(bits);
        ids[n] = base[bit & 7] + 8 * w + (bit >> 3);
        found[n] = order[ids[n]];
      }
  }
  if (n > kLanes) return false;
  for (int i = 0; i < kLanes; ++i) values[i] = i < n ? found[i] : std::numeric_limits<std::int32_t>::min();
  const Masks greater = ranks_of(values);
  std::memcpy(values, &greater, sizeof greater);
  std::int32_t best[kShortWays + 1];
  for (int i = 0; i < k; ++i) best[i] = -1;
  int placed = 0;
  for (int i = 0; i < kLanes; ++i) {
    const bool chosen = values[i] < k && i < n;
    best[chosen ? values[i] : k] = i;
    placed += chosen;
  }
  std::int32_t all = 0;
  for (int i = 0; i < k; ++i) all |= best[i];
  if (all < 0 || placed != k) return false;  // equals among the best
  float* chosen = s.chosen.data();
  for (int i = 0; i < k; ++i) {
    const std::int32_t e = ids[best[i]];
    experts[i] = static_cast<std::uint16_t>(e);
    chosen[i] = logits[e];
  }
  weigh(rule, logits, s, weights);
  return true;
}

void gate_all_short(const GateRule& rule, std::int64_t count, const float* logits, Scratch& s, std::uint16_t* experts, float* weights) {
  for (std::int64_t t = 0; t < count; ++t, logits += rule.experts, experts += rule.top_k, weights += rule.top_k)
    if (!gate_row_short(rule, logits, s, experts, weights)) gate_all(rule, 1, logits, s, experts, weights);
}
#pragma GCC pop_options
#endif

}  // namespace

void gate_rows(const GateRule& rule, std::int64_t count, std::span<const float> logits, std::span<std::uint16_t> experts, std::span<float> weights) {
  Scratch scratch(rule);
#ifdef EPSIM_SHORT_WAY
  if (__builtin_cpu_supports("x86-64-v4") && has_short_way(rule)) return gate_all_short(rule, count, logits.data(), scratch, experts.data(), weights.data());
#endif
  gate_all(rule, count, logits.data(), scratch, experts.data(), weights.data());
}

}  // namespace epsim
