#include "sim/train/dense.h"

#include <algorithm>
#include <cmath>

#include "base/parallel.h"
#include "sim/moe/product.h"
#include "sim/moe/vectors.h"

namespace epsim {
namespace {

constexpr std::int64_t kBlockRows = 2 * RightSide::kTileRows;  // that a thread takes at a time
constexpr float kNormEpsilon = 1e-6F;

std::int64_t rows_of(std::span<const float> values, std::int64_t width) { return static_cast<std::int64_t>(values.size()) / width; }

/// Calls work(first row, rows) for blocks of rows, in parallel.
template <class Work>
void for_blocks(std::int64_t rows, Work&& work) {
  parallel_for((rows + kBlockRows - 1) / kBlockRows, [&](std::int64_t i) { work(i * kBlockRows, std::min(kBlockRows, rows - i * kBlockRows)); });
}

/// a times b, number by number.
std::vector<float> products(std::span<const float> a, std::span<const float> b) {
  std::vector<float> out(a.size());
  std::ranges::transform(a, b, out.begin(), [](float x, float y) { return x * y; });
  return out;
}

}  // namespace

std::vector<float> multiplied(std::span<const float> left, std::int64_t inner, std::int64_t outer, std::span<const float> right, bool transposed) {
  const RightSide matrix(inner, outer, right.data(), transposed, Precision::fp32);
  const std::int64_t rows = rows_of(left, inner);
  std::vector<float> out(static_cast<std::size_t>(rows * outer));
  for_blocks(rows, [&](std::int64_t first, std::int64_t count) { matrix.multiply(left.data() + first * inner, count, out.data() + first * outer); });
  return out;
}

std::vector<float> matrix_gradient(std::span<const float> left, std::int64_t m, std::span<const float> d_out, std::int64_t n) {
  std::vector<float> out(static_cast<std::size_t>(m * n));
  sum_outer_products(left.data(), m, d_out.data(), n, rows_of(left, m), out.data());
  return out;
}

Normed rms_norm(std::span<const float> x, std::span<const float> gain) {
  const auto width = static_cast<std::int64_t>(gain.size()), rows = rows_of(x, width);
  Normed out{std::vector<float>(x.size()), std::vector<float>(static_cast<std::size_t>(rows))};
  for_blocks(rows, [&](std::int64_t first, std::int64_t count) {
    for (std::int64_t row = first; row < first + count; ++row) {
      const float* in = x.data() + row * width;
      const float scale = 1.0F / std::sqrt(dot(in, in, width) / static_cast<float>(width) + kNormEpsilon);
      out.scale[static_cast<std::size_t>(row)] = scale;
      for (std::int64_t i = 0; i < width; ++i) out.y[static_cast<std::size_t>(row * width + i)] = in[i] * scale * gain[static_cast<std::size_t>(i)];
    }
  });
  return out;
}

std::vector<float> rms_norm_backward(std::span<const float> x, std::span<const float> gain, std::span<const float> scale, std::span<const float> dy, std::span<float> dx) {
  const auto width = static_cast<std::int64_t>(gain.size()), rows = rows_of(x, width);
  const std::vector<float> xdy = products(x, dy);
  for_blocks(rows, [&](std::int64_t first, std::int64_t count) {
    for (std::int64_t row = first; row < first + count; ++row) {
      const float s = scale[static_cast<std::size_t>(row)], shared = s * s * s * dot(xdy.data() + row * width, gain.data(), width) / static_cast<float>(width);
      for (std::int64_t i = 0; i < width; ++i) {
        const auto at = static_cast<std::size_t>(row * width + i);
        dx[at] += s * gain[static_cast<std::size_t>(i)] * dy[at] - shared * x[at];
      }
    }
  });
  std::vector<float> dgain(gain.size());
  sum_rows(scale.data(), xdy.data(), width, rows, dgain.data());
  return dgain;
}

std::vector<float> convolved(std::span<const float> x, std::int64_t length, std::int64_t width, std::span<const float> kernel) {
  const std::int64_t rows = rows_of(x, width), taps = rows_of(kernel, width);
  std::vector<float> y(x.size());
  for_blocks(rows, [&](std::int64_t first, std::int64_t count) {
    for (std::int64_t row = first; row < first + count; ++row)
      for (std::int64_t j = 0; j < std::min(taps, row % length + 1); ++j)
        for (std::int64_t i = 0; i < width; ++i)
          y[static_cast<std::size_t>(row * width + i)] += kernel[static_cast<std::size_t>(j * width + i)] * x[static_cast<std::size_t>((row - j) * width + i)];
  });
  return y;
}

ConvolutionGradients convolved_backward(std::span<const float> x, std::int64_t length, std::int64_t width, std::span<const float> kernel, std::span<const float> dy) {
  const std::int64_t rows = rows_of(x, width), taps = rows_of(kernel, width);
  ConvolutionGradients grad{std::vector<float>(x.size()), std::vector<float>(kernel.size())};
  for_blocks(rows, [&](std::int64_t first, std::int64_t count) {
    for (std::int64_t row = first; row < first + count; ++row)
      for (std::int64_t j = 0; j < std::min(taps, length - row % length); ++j)
        for (std::int64_t i = 0; i < width; ++i)
          grad.x[static_cast<std::size_t>(row * width + i)] += kernel[static_cast<std::size_t>(j * width + i)] * dy[static_cast<std::size_t>((row + j) * width + i)];
  });
  parallel_for(taps, [&](std::int64_t j) {
    std::vector<float> terms(x.size());
    for (std::int64_t row = 0; row < rows; ++row)
      for (std::int64_t i = 0; row % length >= j && i < width; ++i)
        terms[static_cast<std::size_t>(row * width + i)] = dy[static_cast<std::size_t>(row * width + i)] * x[static_cast<std::size_t>((row - j) * width + i)];
    sum_rows(nullptr, terms.data(), width, rows, grad.kernel.data() + j * width);
  });
  return grad;
}

double cross_entropy(std::span<const float> logits, std::int64_t classes, std::span<const std::uint8_t> of_row, std::vector<float>* d_logits) {
  const auto rows = static_cast<std::int64_t>(of_row.size());
  std::vector<double> losses(of_row.size());
  if (d_logits) d_logits->resize(logits.size());
  for_blocks(rows, [&](std::int64_t first, std::int64_t count) {
    std::vector<double> e(static_cast<std::size_t>(classes));
    for (std::int64_t row = first; row < first + count; ++row) {
      const auto mine = logits.subspan(static_cast<std::size_t>(row * classes), static_cast<std::size_t>(classes));
      const double most = *std::ranges::max_element(mine);
      double sum = 0;
      for (std::size_t c = 0; c < mine.size(); ++c) sum += e[c] = std::exp(mine[c] - most);
      const std::size_t right = of_row[static_cast<std::size_t>(row)];
      losses[static_cast<std::size_t>(row)] = most + std::log(sum) - mine[right];
      for (std::size_t c = 0; d_logits && c < mine.size(); ++c)
        (*d_logits)[static_cast<std::size_t>(row * classes) + c] = static_cast<float>((e[c] / sum - (c == right)) / static_cast<double>(rows));
    }
  });
  double total = 0;
  for (const double loss : losses) total += loss;
  return total / static_cast<double>(rows);
}

}  // namespace epsim
