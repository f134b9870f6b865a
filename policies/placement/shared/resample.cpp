#include "policies/placement/shared/resample.h"

#include <algorithm>
#include <numeric>

#include "base/check.h"
#include "base/rng.h"

namespace epsim {
namespace {

using Batches = std::vector<std::shared_ptr<const Routing>>;

Problem with_tokens(const Problem& problem, std::vector<Batches> tokens) {
  Problem p = problem;
  p.tokens = std::move(tokens);
  for (std::size_t l = 0; l < p.tokens.size(); ++l) {
    Matrix<std::int64_t>& counts = p.counts[l];
    counts = Matrix<std::int64_t>(counts.rows, counts.columns);
    Matrix<std::int64_t> of_batch(static_cast<std::int64_t>(p.tokens[l].size()), p.experts);
    for (std::int64_t b = 0; b < of_batch.rows; ++b) {
      const Matrix<std::int64_t> choices = count_choices(*p.tokens[l][static_cast<std::size_t>(b)]);
      for (std::int64_t r = 0; r < choices.rows; ++r)
        for (std::int64_t e = 0; e < choices.columns; ++e) counts(counts.rows == 1 ? 0 : r, e) += choices(r, e), of_batch(b, e) += choices(r, e);
    }
    if (!p.batches.empty()) p.batches[l] = std::move(of_batch);
  }
  return p;
}

Batches deal(const Batches& batches, int times, Rng& rng) {
  const Routing& first = *batches.front();
  const auto k = static_cast<std::size_t>(first.top_k);
  Batches dealt;
  for (int round = 0; round < times; ++round) {
    std::vector<Routing> made;
    for (const auto& b : batches) {
      Routing& empty = made.emplace_back();
      empty.experts = first.experts, empty.top_k = first.top_k, empty.first_token = b->first_token;
      empty.seed = b->seed, empty.number = b->number;
    }
    for (std::size_t r = 0; r + 1 < first.first_token.size(); ++r) {
      std::vector<std::pair<const Routing*, std::int64_t>> pool;  // tokens of this home rank
      for (const auto& b : batches)
        for (std::int64_t t = b->first_token[r]; t < b->first_token[r + 1]; ++t) pool.push_back({b.get(), t});
      std::vector<std::uint32_t> order(pool.size());
      rng.permutation(order);
      std::size_t next = 0;
      for (Routing& b : made)
        for (std::int64_t t = b.first_token[r]; t < b.first_token[r + 1]; ++t) {
          const auto& [from, token] = pool[order[next++]];
          const auto at = static_cast<std::ptrdiff_t>(static_cast<std::size_t>(token) * k), end = at + static_cast<std::ptrdiff_t>(k);
          b.expert.insert(b.expert.end(), from->expert.begin() + at, from->expert.begin() + end);
          b.weight.insert(b.weight.end(), from->weight.begin() + at, from->weight.begin() + end);
          if (!from->priority.empty()) b.priority.push_back(from->priority[static_cast<std::size_t>(token)]);
        }
    }
    for (Routing& b : made) dealt.push_back(std::make_shared<const Routing>(std::move(b)));
  }
  return dealt;
}

}  // namespace

Problem with_batches(const Problem& problem, const std::function<bool(std::size_t)>& keeps) {
  ensure(!problem.tokens.empty(), "only batches of known tokens are told apart");
  std::vector<Batches> kept(problem.tokens.size());
  for (std::size_t l = 0; l < kept.size(); ++l)
    for (std::size_t b = 0; b < problem.tokens[l].size(); ++b)
      if (keeps(b)) kept[l].push_back(problem.tokens[l][b]);
  return with_tokens(problem, std::move(kept));
}

Problem mixed(const Problem& problem, int times) {
  ensure(!problem.tokens.empty(), "only known tokens are mixed");
  std::vector<Batches> tokens;
  for (std::size_t l = 0; l < problem.tokens.size(); ++l) {
    Rng rng(problem.seed, Stream::placement, std::uint64_t{1} << 33, static_cast<std::uint32_t>(problem.layers[l]));
    tokens.push_back(deal(problem.tokens[l], times, rng));
  }
  return with_tokens(problem, std::move(tokens));
}

}  // namespace epsim
