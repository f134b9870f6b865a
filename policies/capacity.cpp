#include "policies/capacity.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <numeric>

#include "base/check.h"
#include "base/parallel.h"
#include "base/rng.h"
#include "base/vectorise.h"

namespace epsim {
namespace {

/// Choices that share a capacity, token by token.
struct ChoiceBlock {
  std::span<const std::uint16_t> expert;
  std::span<const float> weight;
  std::span<const float> priority;  ///< of tokens; empty: their largest weight
  std::span<std::int32_t> mark;
  int top_k = 0;
  std::int64_t first_token = 0;  ///< global

  std::int64_t tokens() const { return static_cast<std::int64_t>(expert.size()) / top_k; }
};

/// Where the next of an expert's choices lies in a list, and how far the one after it is.
struct Cursor {
  std::uint32_t next, step;
};

/// Smaller where the weight is larger. Total even for NaN, so that no input can upset a search.
std::uint32_t priority_key(float weight) {
  const auto bits = std::bit_cast<std::uint32_t>(weight + 0.0F);  // -0 becomes 0
  return bits ^ (bits >> 31 ? 0 : 0x7fffffffU);
}

/// The n-th smallest of some keys.
struct Nth {
  std::uint32_t key;
  std::int64_t below;  ///< keys that are smaller
};

/// The n-th smallest key (n from 0), bit by bit from the highest. Counting takes no branch and no order, so each of the 32 passes runs at the speed of vectors.
EPSIM_VECTORISE Nth nth_smallest(const std::uint32_t* keys, std::size_t count, std::int64_t n) {
  Nth nth{0, 0};
  for (std::uint32_t bit = 1U << 31; bit != 0; bit >>= 1) {
    std::uint32_t below = 0;
    for (std::size_t i = 0; i < count; ++i) below += keys[i] < (nth.key | bit);
    if (below <= n) nth = {nth.key | bit, below};
  }
  return nth;
}

/// The choices of each expert that overflows, expert by expert in token order.
struct Overflow {
  std::vector<std::size_t> first;  ///< [E+1]
  std::vector<std::uint32_t> choice;

  Overflow(const ChoiceBlock& block, std::span<const std::int64_t> choices, std::span<const std::int64_t> limits) : first(choices.size() + 1) {
    for (std::size_t e = 0; e < choices.size(); ++e) first[e + 1] = first[e] + (choices[e] > limits[e] ? static_cast<std::size_t>(choices[e]) : 0);
    // An expert that keeps all writes its choices, without a branch that could not be foreseen, over each other and behind the others'; so do choices that were not made.
    std::vector<Cursor> cursors(choices.size() + 1, Cursor{static_cast<std::uint32_t>(first.back()), 0});
    for (std::size_t e = 0; e < choices.size(); ++e)
      if (choices[e] > limits[e]) cursors[e] = {static_cast<std::uint32_t>(first[e]), 1};
    choice.resize(first.back() + 1);
    for (std::size_t i = 0; i < block.expert.size(); ++i) {
      Cursor& at = cursors[std::min<std::size_t>(block.expert[i], choices.size())];
      choice[at.next] = static_cast<std::uint32_t>(i);
      at.next += at.step;
    }
    choice.pop_back();
  }
};

/// Tokens from the one with the largest priority: the rank of each.
std::vector<std::uint32_t> token_ranks(const ChoiceBlock& block) {
  const auto k = static_cast<std::size_t>(block.top_k);
  std::vector<std::uint32_t> best(static_cast<std::size_t>(block.tokens()), std::numeric_limits<std::uint32_t>::max()), order(best.size()), rank(best.size());
  for (std::size_t i = 0; i < block.weight.size(); ++i) best[i / k] = std::min(best[i / k], priority_key(block.priority.empty() ? block.weight[i] : block.priority[i / k]));
  std::iota(order.begin(), order.end(), 0U);
  std::ranges::stable_sort(order, {}, [&](std::uint32_t t) { return best[t]; });
  for (std::size_t i = 0; i < order.size(); ++i) rank[order[i]] = static_cast<std::uint32_t>(i);
  return rank;
}

/// What choices are kept by, smallest first.
std::vector<std::uint32_t> keys_of(const Capacity& capacity, const ChoiceBlock& block, std::span<const std::uint32_t> choices, const CapacityDraw& draw) {
  const auto k = static_cast<std::uint32_t>(block.top_k);
  std::vector<std::uint32_t> keys(choices.size());
  switch (capacity.order) {
    case Capacity::Order::position: break;
    case Capacity::Order::choice:
      for (std::size_t i = 0; i < keys.size(); ++i) keys[i] = choices[i] % k;
      break;
    case Capacity::Order::priority: {
      const std::vector<std::uint32_t> rank = token_ranks(block);
      const auto tokens = static_cast<std::uint32_t>(rank.size());  // a rank makes fewer than 2^32 choices
      for (std::size_t i = 0; i < keys.size(); ++i) keys[i] = choices[i] % k * tokens + rank[choices[i] / k];
      break;
    }
    case Capacity::Order::probability:
      for (std::size_t i = 0; i < keys.size(); ++i) keys[i] = priority_key(block.weight[choices[i]]);
      break;
    case Capacity::Order::random:
      for (std::size_t i = 0; i < keys.size(); ++i) {
        Rng rng(draw.seed, Stream::capacity, static_cast<std::uint64_t>(block.first_token + choices[i] / k), static_cast<std::uint32_t>(draw.layer));
        for (std::uint32_t skip = 0; skip < choices[i] % k; ++skip) rng.bits();
        keys[i] = static_cast<std::uint32_t>(rng.bits() >> 32);
      }
  }
  return keys;
}

void mark_block(const Capacity& capacity, const ChoiceBlock& block, std::span<const std::int64_t> choices, std::span<const std::int64_t> limits, const CapacityDraw& draw) {
  const Overflow overflow(block, choices, limits);
  const std::vector<std::uint32_t> keys = capacity.order == Capacity::Order::position ? std::vector<std::uint32_t>{} : keys_of(capacity, block, overflow.choice, draw);
  for (std::size_t e = 0; e < choices.size(); ++e) {
    const std::size_t first = overflow.first[e], count = overflow.first[e + 1] - first;
    if (count == 0) continue;
    const std::uint32_t* mine = overflow.choice.data() + first;
    if (capacity.order == Capacity::Order::position) {
      for (auto i = static_cast<std::size_t>(limits[e]); i < count; ++i) block.mark[mine[i]] = -1;
      continue;
    }
    const std::uint32_t* key = keys.data() + first;
    const Nth excess = nth_smallest(key, count, limits[e]);  // the first that is too many
    for (std::size_t i = 0; i < count; ++i) block.mark[mine[i]] = -static_cast<std::int32_t>(key[i] >= excess.key);
    std::int64_t equals = limits[e] - excess.below;  // the first of those as good as it are kept, if there is room
    for (std::size_t i = 0; equals > 0; ++i)
      if (key[i] == excess.key) block.mark[mine[i]] = 0, --equals;
  }
}

/// A rank's groups of tokens [first, last), and what each expert is chosen by them.
template <class Visit>
void for_each_group(const Capacity& capacity, const Routing& routing, Rank r, Visit visit) {
  const std::int64_t end = routing.first_token[r + 1], step = capacity.group > 0 ? capacity.group : std::max<std::int64_t>(end - routing.first_token[r], 1);
  std::vector<std::int64_t> counts;
  for (std::int64_t first = routing.first_token[r]; first < end; first += step) {
    const std::int64_t last = std::min(first + step, end);
    counts.assign(static_cast<std::size_t>(routing.experts) + 1, 0);  // the last: choices that were not made
    for (std::int64_t i = first * routing.top_k; i < last * routing.top_k; ++i) ++counts[std::min<std::size_t>(routing.expert[static_cast<std::size_t>(i)], counts.size() - 1)];
    counts.pop_back();
    visit(first, last, std::span<const std::int64_t>(counts), capacity.size({last - first, routing.top_k, routing.experts, std::ranges::max(counts)}));
  }
}

}  // namespace

void limit_by_size(Capacity& capacity) {
  const Capacity::Scope scope = capacity.scope;
  capacity.limits = [size = capacity.size, scope, group = capacity.group](const Matrix<std::int64_t>& choices, const Routing& routing) {
    Matrix<std::int64_t> limits(choices.rows, choices.columns);
    if (scope == Capacity::Scope::batch) {
      std::vector<std::int64_t> total(static_cast<std::size_t>(choices.columns)), taken(total.size());
      for (std::int64_t r = 0; r < choices.rows; ++r)
        for (std::size_t e = 0; e < total.size(); ++e) total[e] += choices.row(r)[e];
      const std::int64_t room = size({routing.tokens(), routing.top_k, routing.experts, total.empty() ? 0 : std::ranges::max(total)});
      // Ranks come in order: what those before leave is a rank's own limit.
      for (std::int64_t r = 0; r < choices.rows; ++r)
        for (std::size_t e = 0; e < total.size(); ++e) {
          limits.row(r)[e] = std::max<std::int64_t>(room - taken[e], 0);
          taken[e] += choices.row(r)[e];
        }
      return limits;
    }
    for (const Rank r : ids<Rank>(choices.rows)) {
      const std::int64_t tokens = routing.first_token[r + 1] - routing.first_token[r];
      std::int64_t room = 0;
      const auto most = choices.columns == 0 ? 0 : std::ranges::max(choices.row(r.value));
      if (scope == Capacity::Scope::rank || group <= 0) {
        room = size({tokens, routing.top_k, routing.experts, most});
      } else {
        const std::int64_t whole = tokens / group, rest = tokens % group;
        room = whole * size({group, routing.top_k, routing.experts, most}) + (rest > 0 ? size({rest, routing.top_k, routing.experts, most}) : 0);
      }
      std::ranges::fill(limits.row(r.value), room);
    }
    return limits;
  };
}

Matrix<std::int64_t> kept_choices(const Capacity& capacity, const Routing& routing, Matrix<std::int64_t> choices) {
  if (!capacity.limits || capacity.overflow == Capacity::Overflow::none) return choices;
  if (capacity.by_replica()) return choices;  // how many fit follows from the placement, which is made from them
  if (capacity.scope == Capacity::Scope::group) {
    Matrix<std::int64_t> kept(choices.rows, choices.columns);
    parallel_for(kept.rows, [&](std::int64_t r) {
      for_each_group(capacity, routing, Rank(r), [&](std::int64_t, std::int64_t, std::span<const std::int64_t> counts, std::int64_t size) {
        for (std::size_t e = 0; e < counts.size(); ++e) kept.row(r)[e] += std::min(counts[e], size);
      });
    });
    return kept;
  }
  const Matrix<std::int64_t> limits = capacity.limits(choices, routing);
  for (std::size_t i = 0; i < limits.cells.size(); ++i) choices.cells[i] = std::min(choices.cells[i], limits.cells[i]);
  return choices;
}

void mark_overflow(const Capacity& capacity, const Routing& routing, Rank r, std::span<const std::int64_t> choices, std::span<const std::int64_t> limits, const CapacityDraw& draw,
                   std::span<std::int32_t> mark) {
  const auto k = static_cast<std::size_t>(routing.top_k), begin = static_cast<std::size_t>(routing.first_token[r]) * k;
  const auto block = [&](std::int64_t first, std::int64_t last) {
    const std::size_t at = static_cast<std::size_t>(first) * k, count = static_cast<std::size_t>(last - first) * k;
    const auto priority = routing.priority.empty() ? std::span<const float>() : std::span(routing.priority).subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(last - first));
    return ChoiceBlock{std::span(routing.expert).subspan(at, count), std::span(routing.weight).subspan(at, count), priority, mark.subspan(at - begin, count), routing.top_k,
                       draw.first_token + first};
  };
  if (capacity.scope == Capacity::Scope::group) {
    std::vector<std::int64_t> same(choices.size());
    for_each_group(capacity, routing, r, [&](std::int64_t first, std::int64_t last, std::span<const std::int64_t> counts, std::int64_t size) {
      std::ranges::fill(same, size);
      if (std::ranges::any_of(counts, [&](std::int64_t n) { return n > size; })) mark_block(capacity, block(first, last), counts, same, draw);
    });
    return;
  }
  mark_block(capacity, block(routing.first_token[r], routing.first_token[r + 1]), choices, limits, draw);
}

void renormalise_kept(int top_k, std::span<const std::int32_t> mark, std::span<float> weights) {
  const auto k = static_cast<std::size_t>(top_k);
  for (std::size_t t = 0; t < weights.size(); t += k) {
    float sum = 0;
    for (std::size_t i = t; i < t + k; ++i)
      if (mark[i] >= 0) sum += weights[i];
    sum = std::max(sum, std::numeric_limits<float>::epsilon());
    for (std::size_t i = t; i < t + k; ++i)
      if (mark[i] >= 0) weights[i] /= sum;
  }
}

}  // namespace epsim
