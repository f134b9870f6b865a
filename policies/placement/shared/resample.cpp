#include "policies/placement/shared/resample.h"

#include <algorithm>
#include <cmath>
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

/// The variance of the factors by which experts are more or less popular in one batch than in another, beyond what the chance of few tokens makes: a moment estimate over all experts. 0 where batches are too few to tell, or alike.
double spread(const Batches& batches) {
  constexpr std::size_t kEnough = 8;
  constexpr double kAlike = 0.01;
  if (batches.size() < kEnough) return 0;
  Matrix<double> counts(static_cast<std::int64_t>(batches.size()), batches.front()->experts);
  std::vector<double> all(static_cast<std::size_t>(counts.columns));
  double tokens = 0;
  for (std::int64_t b = 0; b < counts.rows; ++b) {
    const Routing& batch = *batches[static_cast<std::size_t>(b)];
    for (const std::uint16_t e : batch.expert) ++counts(b, e), ++all[e];
    tokens += static_cast<double>(batch.tokens());
  }
  const double of_few = static_cast<double>(counts.rows) / static_cast<double>(counts.rows - 1);  // their own mean is nearer to them than the true one
  double beyond = 0, squares = 0;
  for (std::int64_t b = 0; b < counts.rows; ++b)
    for (std::int64_t e = 0; e < counts.columns; ++e) {
      const double share = all[static_cast<std::size_t>(e)] / tokens, mean = share * static_cast<double>(batches[static_cast<std::size_t>(b)]->tokens()), off = counts(b, e) - mean;
      beyond += off * off * of_few - mean * (1 - share), squares += mean * mean;
    }
  return beyond > kAlike * squares ? beyond / squares : 0;
}

struct Token {
  const Routing* batch;
  std::int64_t number;
};

/// Tokens drawn from a pool where each expert is by a factor more or less popular: a token is as likely as the product of its experts' factors, whose logarithms are given.
std::vector<Token> drawn(const std::vector<Token>& pool, std::int64_t count, const std::vector<double>& log_factors, Rng& rng) {
  std::vector<double> sums;
  for (const auto& [batch, number] : pool) {
    double log = 0;
    for (int j = 0; j < batch->top_k; ++j) log += log_factors[batch->expert[static_cast<std::size_t>(number * batch->top_k + j)]];
    sums.push_back((sums.empty() ? 0 : sums.back()) + std::exp(log));
  }
  std::vector<Token> tokens;
  for (std::int64_t i = 0; i < count; ++i) tokens.push_back(pool[static_cast<std::size_t>(std::min(std::ranges::upper_bound(sums, rng.uniform() * sums.back()), sums.end() - 1) - sums.begin())]);
  return tokens;
}

void append(Routing& to, const Token& token) {
  const Routing& from = *token.batch;
  const auto at = static_cast<std::ptrdiff_t>(token.number * from.top_k), end = at + from.top_k;
  to.expert.insert(to.expert.end(), from.expert.begin() + at, from.expert.begin() + end);
  to.weight.insert(to.weight.end(), from.weight.begin() + at, from.weight.begin() + end);
  if (!from.priority.empty()) to.priority.push_back(from.priority[static_cast<std::size_t>(token.number)]);
}

Batches deal(const Batches& batches, int times, Rng& rng) {
  const Routing& first = *batches.front();
  const double variance = spread(batches) * (1 + 1 / static_cast<double>(batches.size()));  // of a batch to come about the mean of those shown
  Batches dealt;
  for (int round = 0; round < times; ++round) {
    std::vector<Routing> made;
    std::vector<std::vector<double>> log_factors;  // [batch][E]
    for (const auto& b : batches) {
      Routing& empty = made.emplace_back();
      empty.experts = first.experts, empty.top_k = first.top_k, empty.first_token = b->first_token;
      empty.seed = b->seed, empty.number = b->number;
      if (variance == 0) continue;
      for (double& log : log_factors.emplace_back(static_cast<std::size_t>(first.experts))) log = std::sqrt(std::log1p(variance)) * rng.normal();
    }
    for (std::size_t r = 0; r + 1 < first.first_token.size(); ++r) {
      std::vector<Token> pool;  // tokens of this home rank
      for (const auto& b : batches)
        for (std::int64_t t = b->first_token[r]; t < b->first_token[r + 1]; ++t) pool.push_back({b.get(), t});
      std::vector<std::uint32_t> order(pool.size());
      if (variance == 0) rng.permutation(order);
      auto next = order.begin();
      for (std::size_t b = 0; b < made.size(); ++b) {
        const std::int64_t count = made[b].first_token[r + 1] - made[b].first_token[r];
        if (variance > 0)
          for (const Token& token : drawn(pool, count, log_factors[b], rng)) append(made[b], token);
        else
          for (std::int64_t i = 0; i < count; ++i) append(made[b], pool[*next++]);
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
