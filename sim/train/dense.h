#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace epsim {

// The layers of a model that every token goes through alike, and their gradients. Sums over tokens are made in chunks of kChunkRows, so nothing depends on the number of threads.

/// left [rows][inner] times right [inner][outer]; or times its transpose, where right is [outer][inner].
std::vector<float> multiplied(std::span<const float> left, std::int64_t inner, std::int64_t outer, std::span<const float> right, bool transposed = false);
/// The gradient of a matrix [m][n] that rows were multiplied by: the sum of the outer products of `left` [rows][m] and `d_out` [rows][n].
std::vector<float> matrix_gradient(std::span<const float> left, std::int64_t m, std::span<const float> d_out, std::int64_t n);

/// Rows over their root mean square (Zhang and Sennrich, arXiv 1910.07467), with 1e-6 added to the mean square, times a gain.
struct Normed {
  std::vector<float> y;      ///< [rows][width]
  std::vector<float> scale;  ///< [rows]: 1 over the root mean square
};
Normed rms_norm(std::span<const float> x, std::span<const float> gain);
/// Adds the gradient of x to `dx` and gives that of the gain.
std::vector<float> rms_norm_backward(std::span<const float> x, std::span<const float> gain, std::span<const float> scale, std::span<const float> dy, std::span<float> dx);

/// Depthwise causal convolution: y of position t is the sum over j of kernel[j] x[t - j], channel by channel; positions before a sequence are zeros. x [sequences][length][width], kernel [taps][width].
std::vector<float> convolved(std::span<const float> x, std::int64_t length, std::int64_t width, std::span<const float> kernel);
/// Its gradients.
struct ConvolutionGradients {
  std::vector<float> x, kernel;
};
ConvolutionGradients convolved_backward(std::span<const float> x, std::int64_t length, std::int64_t width, std::span<const float> kernel, std::span<const float> dy);

/// The mean over rows of the cross entropy of softmax(logits [rows][classes]) with the class of each row, in nats; where `d_logits` is not null it becomes the gradient.
double cross_entropy(std::span<const float> logits, std::int64_t classes, std::span<const std::uint8_t> of_row, std::vector<float>* d_logits);

}  // namespace epsim
