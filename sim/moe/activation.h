#pragma once
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "sim/moe/bfloat16.h"

namespace epsim {

/// What an expert does between its matrices, with g = x w1 + b1 and, where the expert is gated, u = x w3 + b3:
/// * `swiglu`: g sigmoid(g) u (always gated; Shazeer, arXiv 2002.05202);
/// * `clamped_swiglu`: (u + 1) g sigmoid(1.702 g) with g at most 7 and u within -7 and 7 (always gated; gpt-oss);
/// * `gelu`: g Phi(g), `gelu_tanh`: its tanh approximation (Hendrycks and Gimpel, arXiv 1606.08415), `relu`: max(g, 0); each times u where the expert is gated.
enum class Activation { swiglu, clamped_swiglu, gelu, gelu_tanh, relu };

std::string_view name_of(Activation activation);
const std::vector<std::string>& activation_names();
Activation activation_from_name(std::string_view name);  ///< of a name in activation_names()
/// Whether there must be a w3.
bool always_gated(Activation activation);

/// a[i] = the activation of g[i] and u[i]; `u` is null where the expert is not gated.
void activate(Activation activation, std::size_t count, const float* g, const float* u, float* a);
/// The same, rounded to bfloat16; of an exponential whose relative error is below 3e-6.
void activate(Activation activation, std::size_t count, const float* g, const float* u, Bfloat16* a);

/// The gradients of `activate`: from da, the gradient of scale * a, come dg and du (null where the expert is not gated). Gives scale * a, too, which is cheaper to compute anew than to keep,
/// and returns the sum of a[i] da[i], the gradient of the scale. Where a clamp cuts, its gradient is 0.
float activate_backward(Activation activation, std::size_t count, const float* g, const float* u, const float* da, float scale, float* a, float* dg, float* du);
/// The same, rounded to bfloat16 as by `activate`.
float activate_backward(Activation activation, std::size_t count, const float* g, const float* u, const float* da, float scale, Bfloat16* a, Bfloat16* dg, Bfloat16* du);

}  // namespace epsim
