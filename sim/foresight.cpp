#include "sim/foresight.h"

#include <cmath>

#include "base/check.h"
#include "base/parallel.h"

namespace epsim {

void Foresight::see(std::size_t layer, const Routing& routing) {
  if (layer > 0 && layer == next_) {
    ensure(last_.first_token == routing.first_token, "layers of a batch have the same tokens");
    Matrix<std::int64_t>& followed = followed_[layer];
    if (followed.cells.empty()) followed = Matrix<std::int64_t>(last_.experts, routing.experts);
    for (std::int64_t t = 0; t < routing.tokens(); ++t)
      for (std::int64_t i = t * last_.top_k; i < (t + 1) * last_.top_k; ++i) {
        const std::uint16_t before = last_.expert[static_cast<std::size_t>(i)];
        if (before >= last_.experts) continue;  // not made, or of an expert that computes nothing
        for (std::int64_t j = t * routing.top_k; j < (t + 1) * routing.top_k; ++j)
          if (routing.computes(static_cast<std::size_t>(j))) ++followed(before, routing.expert[static_cast<std::size_t>(j)]);
      }
  }
  last_ = {routing.first_token, routing.expert, routing.top_k, routing.experts};
  next_ = layer + 1;
}

Matrix<std::int64_t> Foresight::of(std::size_t layer) const {
  if (layer == 0 || layer != next_ || followed_[layer].cells.empty()) return {};
  const Matrix<std::int64_t>& followed = followed_[layer];
  const std::int64_t before = followed.rows, experts = followed.columns;
  std::vector<double> sum(static_cast<std::size_t>(before)), of_all(static_cast<std::size_t>(experts));
  double all = 0;
  for (std::int64_t b = 0; b < before; ++b)
    for (std::int64_t e = 0; e < experts; ++e) {
      const auto n = static_cast<double>(followed(b, e));
      sum[static_cast<std::size_t>(b)] += n, of_all[static_cast<std::size_t>(e)] += n, all += n;
    }
  if (all == 0) return {};
  Matrix<std::int64_t> foretold(static_cast<std::int64_t>(last_.first_token.size()) - 1, experts);
  parallel_for(foretold.rows, [&](std::int64_t r) {
    std::vector<std::int64_t> chosen(static_cast<std::size_t>(before));
    for (std::int64_t i = last_.first_token[static_cast<std::size_t>(r)] * last_.top_k; i < last_.first_token[static_cast<std::size_t>(r) + 1] * last_.top_k; ++i)
      if (last_.expert[static_cast<std::size_t>(i)] < before) ++chosen[last_.expert[static_cast<std::size_t>(i)]];
    std::vector<double> expected(static_cast<std::size_t>(experts));
    for (std::int64_t b = 0; b < before; ++b) {
      const auto n = static_cast<double>(chosen[static_cast<std::size_t>(b)]), known = sum[static_cast<std::size_t>(b)];
      if (n == 0) continue;
      // Of an expert that was never chosen before nothing is known: it is followed by what follows any.
      for (std::int64_t e = 0; e < experts; ++e)
        expected[static_cast<std::size_t>(e)] += n * (known > 0 ? static_cast<double>(followed(b, e)) / known : of_all[static_cast<std::size_t>(e)] / all);
    }
    for (std::int64_t e = 0; e < experts; ++e) foretold(r, e) = std::llround(expected[static_cast<std::size_t>(e)]);
  });
  return foretold;
}

}  // namespace epsim
