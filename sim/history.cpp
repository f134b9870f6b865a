#include "sim/history.h"

#include <cmath>

namespace epsim {

void LayerHistory::add(Matrix<std::int64_t> counts, std::shared_ptr<const Routing> tokens) {
  if (!faded_.cells.empty())
    for (std::size_t i = 0; i < counts.cells.size(); ++i) {
      faded_.cells[i] += static_cast<double>(counts.cells[i]);
      counts.cells[i] = std::llround(faded_.cells[i]);
    }
  each_.push_back({std::move(counts), std::move(tokens)});
}

void LayerHistory::keep(std::size_t count) {
  while (each_.size() > count) each_.pop_front();
}

LayerHistory LayerHistory::oldest() const {
  LayerHistory first;
  first.each_.push_back(each_.front());
  return first;
}

std::vector<std::int64_t> LayerHistory::loads() const {
  std::vector<std::int64_t> sum;
  for (const Seen& seen : each_) {
    sum.resize(static_cast<std::size_t>(seen.counts.columns));
    for (std::int64_t r = 0; r < seen.counts.rows; ++r)
      for (std::size_t e = 0; e < sum.size(); ++e) sum[e] += seen.counts(r, static_cast<std::int64_t>(e));
  }
  return sum;
}

void LayerHistory::fade(double decay) {
  if (each_.empty()) return;
  const Matrix<std::int64_t>& last = each_.back().counts;
  if (faded_.cells.empty()) {
    faded_ = Matrix<double>(last.rows, last.columns);
    for (std::size_t i = 0; i < last.cells.size(); ++i) faded_.cells[i] = static_cast<double>(last.cells[i]);
  }
  for (double& cell : faded_.cells) cell *= decay;
  each_.clear();
}

void LayerHistory::tell(int layer, Problem& problem) const {
  problem.layers.push_back(layer);
  Matrix<std::int64_t>& sum = problem.counts.emplace_back(each_.front().counts.rows, each_.front().counts.columns);
  Matrix<std::int64_t>& batches = problem.batches.emplace_back(static_cast<std::int64_t>(each_.size()), sum.columns);
  for (std::size_t b = 0; b < each_.size(); ++b) {
    const Matrix<std::int64_t>& counts = each_[b].counts;
    for (std::int64_t r = 0; r < counts.rows; ++r)
      for (std::int64_t e = 0; e < counts.columns; ++e) {
        sum(r, e) += counts(r, e);
        batches(static_cast<std::int64_t>(b), e) += counts(r, e);
      }
  }
  if (!each_.front().tokens) return;
  std::vector<std::shared_ptr<const Routing>>& tokens = problem.tokens.emplace_back();
  for (const Seen& seen : each_) tokens.push_back(seen.tokens);
}

}  // namespace epsim
