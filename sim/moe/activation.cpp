#include "sim/moe/activation.h"

#include <algorithm>
#include <bit>
#include <cstdint>

#include "base/check.h"
#include "base/vectorise.h"
#include "sim/moe/vectors.h"

#define EPSIM_INLINE inline __attribute__((always_inline))  // into each of the versions that EPSIM_VECTORISE makes

namespace epsim {
namespace {

/// x within [-87, 88], and 88 for a NaN, by comparing its bits: as whole numbers positive floats rise, and as unsigned ones negative floats fall from above all positive ones.
/// Comparisons of floats become branches before loops are vectorised.
EPSIM_INLINE float within_exponents(float x) {
  constexpr auto kMost = std::bit_cast<std::int32_t>(88.0F);
  constexpr auto kLeast = std::bit_cast<std::uint32_t>(-87.0F);
  const auto bits = std::bit_cast<std::int32_t>(x);
  const auto below = static_cast<std::uint32_t>(bits < kMost ? bits : kMost);
  return std::bit_cast<float>(below < kLeast ? below : kLeast);
}

// Exponentials of plain IEEE operations: the same bits on every machine. Both clamp x to [-87, 88].

/// exp(x), relative error below 4e-7.
struct Fine {
  static EPSIM_INLINE float exponential(float x) {
    x = within_exponents(x);
    const float shifted = x * 1.44269504F + 0x1.8p23F;  // rounds to the nearest integer in the low bits
    const float n = shifted - 0x1.8p23F;
    const float r = (x - n * 0.693359375F) + n * 2.12194440e-4F;  // log 2 in two parts: the first product is exact
    float p = r * 0.0013941111F + 0.0083751264F;
    p = p * r + 0.0416663529F;
    p = p * r + 0.166664155F;
    p = p * r + 0.5F;
    p = p * r + 1.0F;
    p = p * r + 1.0F;
    return std::bit_cast<float>(std::bit_cast<std::uint32_t>(p) + (std::bit_cast<std::uint32_t>(shifted) << 23));
  }
};

/// exp(x), relative error below 3e-6, where what is made of it is rounded to bfloat16 (4e-3). Fused multiply-adds are IEEE operations, too.
struct Coarse {
  static EPSIM_INLINE float exponential(float x) {
    x = within_exponents(x);
    const float shifted = __builtin_fmaf(x, 1.44269504F, 0x1.8p23F), r = __builtin_fmaf(x, 1.44269504F, 0x1.8p23F - shifted);
    float p = __builtin_fmaf(r, 0.00957010221F, 0.0559178591F);  // 2^r, relative error below 2.6e-6 (Remez)
    p = __builtin_fmaf(p, r, 0.240247443F);
    p = __builtin_fmaf(p, r, 0.693121791F);
    p = __builtin_fmaf(p, r, 0.999999285F);
    return std::bit_cast<float>(std::bit_cast<std::uint32_t>(p) + (std::bit_cast<std::uint32_t>(shifted) << 23));
  }
};

template <class E>
EPSIM_INLINE float sigmoid(float x) {
  return 1.0F / (1.0F + E::exponential(-x));
}

/// The standard normal distribution function, from the Chebyshev fit of erfc in Numerical Recipes (Press et al., section 6.2), whose relative error is below 1.2e-7.
template <class E>
EPSIM_INLINE float normal_distribution(float x) {
  const float z = (x < 0 ? -x : x) * 0.707106781F, t = 1.0F / (1.0F + 0.5F * z);
  float p = t * 0.17087277F - 0.82215223F;
  p = p * t + 1.48851587F;
  p = p * t - 1.13520398F;
  p = p * t + 0.27886807F;
  p = p * t - 0.18628806F;
  p = p * t + 0.09678418F;
  p = p * t + 0.37409196F;
  p = p * t + 1.00002368F;
  p = p * t - 1.26551223F;
  const float upper = 0.5F * t * E::exponential(p - z * z);
  return x < 0 ? upper : 1.0F - upper;
}

/// A function of g and its derivative.
struct Point {
  float value, slope;
};

template <class E>
struct Silu {
  static EPSIM_INLINE Point at(float g) {
    const float s = sigmoid<E>(g);
    return {g * s, s + g * s * (1.0F - s)};
  }
};
template <class E>
struct Gelu {
  static EPSIM_INLINE Point at(float g) {
    const float p = normal_distribution<E>(g);
    return {g * p, p + g * 0.398942280F * E::exponential(-0.5F * g * g)};
  }
};
template <class E>
struct GeluTanh {
  static EPSIM_INLINE Point at(float g) {
    constexpr float kScale = 2 * 0.797884561F, kCube = 0.044715F;  // (1 + tanh z) / 2 = sigmoid(2 z)
    const float s = sigmoid<E>(kScale * (g + kCube * g * g * g));
    return {g * s, s + g * s * (1.0F - s) * kScale * (1.0F + 3 * kCube * g * g)};
  }
};
struct Relu {
  static EPSIM_INLINE Point at(float g) { return {g < 0 ? 0.0F : g, g > 0 ? 1.0F : 0.0F}; }
};

EPSIM_INLINE void put(float value, float& to) { to = value; }
EPSIM_INLINE void put(float value, Bfloat16& to) { to = rounded(value); }

template <class F, class Out>
EPSIM_INLINE void plain(std::size_t n, const float* __restrict g, Out* __restrict a) {
  for (std::size_t i = 0; i < n; ++i) put(F::at(g[i]).value, a[i]);
}
template <class F, class Out>
EPSIM_INLINE void gated(std::size_t n, const float* __restrict g, const float* __restrict u, Out* __restrict a) {
  for (std::size_t i = 0; i < n; ++i) put(F::at(g[i]).value * u[i], a[i]);
}
template <class F>
EPSIM_INLINE void plain_backward(std::size_t n, const float* __restrict g, const float* __restrict da, float* __restrict a, float* __restrict dg) {
  for (std::size_t i = 0; i < n; ++i) {
    const Point p = F::at(g[i]);
    a[i] = p.value;
    dg[i] = da[i] * p.slope;
  }
}
template <class F>
EPSIM_INLINE void gated_backward(std::size_t n, const float* __restrict g, const float* __restrict u, const float* __restrict da, float* __restrict a, float* __restrict dg,
                                 float* __restrict du) {
  for (std::size_t i = 0; i < n; ++i) {
    const Point p = F::at(g[i]);
    a[i] = p.value * u[i];
    dg[i] = da[i] * u[i] * p.slope;
    du[i] = da[i] * p.value;
  }
}

constexpr float kLimit = 7, kSteepness = 1.702F;

template <class E, class Out>
EPSIM_INLINE void clamped(std::size_t n, const float* __restrict g, const float* __restrict u, Out* __restrict a) {
  for (std::size_t i = 0; i < n; ++i) {
    const float x = g[i] > kLimit ? kLimit : g[i];
    const float below = u[i] > kLimit ? kLimit : u[i], v = below < -kLimit ? -kLimit : below;
    put((v + 1.0F) * x * sigmoid<E>(kSteepness * x), a[i]);
  }
}
template <class E>
EPSIM_INLINE void clamped_backward(std::size_t n, const float* __restrict g, const float* __restrict u, const float* __restrict da, float* __restrict a, float* __restrict dg,
                                   float* __restrict du) {
  for (std::size_t i = 0; i < n; ++i) {
    const float x = g[i] > kLimit ? kLimit : g[i];
    const float below = u[i] > kLimit ? kLimit : u[i], v = below < -kLimit ? -kLimit : below;
    const float s = sigmoid<E>(kSteepness * x), slope = s + kSteepness * x * s * (1.0F - s);
    a[i] = (v + 1.0F) * x * s;
    dg[i] = g[i] > kLimit ? 0.0F : da[i] * (v + 1.0F) * slope;
    du[i] = v != u[i] ? 0.0F : da[i] * x * s;
  }
}

template <class E, class Out>
EPSIM_INLINE void forward_any(Activation activation, std::size_t n, const float* g, const float* u, Out* a) {
  switch (activation) {
    case Activation::swiglu: return gated<Silu<E>>(n, g, u, a);
    case Activation::clamped_swiglu: return clamped<E>(n, g, u, a);
    case Activation::gelu: return u ? gated<Gelu<E>>(n, g, u, a) : plain<Gelu<E>>(n, g, a);
    case Activation::gelu_tanh: return u ? gated<GeluTanh<E>>(n, g, u, a) : plain<GeluTanh<E>>(n, g, a);
    case Activation::relu: return u ? gated<Relu>(n, g, u, a) : plain<Relu>(n, g, a);
  }
}
EPSIM_VECTORISE void forward_fine(Activation activation, std::size_t n, const float* g, const float* u, float* a) { forward_any<Fine>(activation, n, g, u, a); }
EPSIM_VECTORISE void forward_coarse(Activation activation, std::size_t n, const float* g, const float* u, Bfloat16* a) { forward_any<Coarse>(activation, n, g, u, a); }

template <class E>
EPSIM_INLINE void backward_any(Activation activation, std::size_t n, const float* g, const float* u, const float* da, float* a, float* dg, float* du) {
  switch (activation) {
    case Activation::swiglu: return gated_backward<Silu<E>>(n, g, u, da, a, dg, du);
    case Activation::clamped_swiglu: return clamped_backward<E>(n, g, u, da, a, dg, du);
    case Activation::gelu: return u ? gated_backward<Gelu<E>>(n, g, u, da, a, dg, du) : plain_backward<Gelu<E>>(n, g, da, a, dg);
    case Activation::gelu_tanh: return u ? gated_backward<GeluTanh<E>>(n, g, u, da, a, dg, du) : plain_backward<GeluTanh<E>>(n, g, da, a, dg);
    case Activation::relu: return u ? gated_backward<Relu>(n, g, u, da, a, dg, du) : plain_backward<Relu>(n, g, da, a, dg);
  }
}
EPSIM_VECTORISE void backward_fine(Activation activation, std::size_t n, const float* g, const float* u, const float* da, float* a, float* dg, float* du) {
  backward_any<Fine>(activation, n, g, u, da, a, dg, du);
}

/// In strips that stay in the nearest cache between the loops.
EPSIM_VECTORISE float backward_coarse(Activation activation, std::size_t n, const float* g, const float* u, const float* da, float scale, Bfloat16* a, Bfloat16* dg, Bfloat16* du) {
  constexpr std::size_t kStrip = 512;
  float strip_a[kStrip], strip_dg[kStrip], strip_du[kStrip], sum = 0;
  for (std::size_t first = 0; first < n; first += kStrip) {
    const std::size_t count = std::min(kStrip, n - first);
    backward_any<Coarse>(activation, count, g + first, u ? u + first : nullptr, da + first, strip_a, strip_dg, strip_du);
    sum += dot(strip_a, da + first, static_cast<std::int64_t>(count));
    for (std::size_t i = 0; i < count; ++i) a[first + i] = rounded(scale * strip_a[i]);
    for (std::size_t i = 0; i < count; ++i) dg[first + i] = rounded(scale * strip_dg[i]);
    for (std::size_t i = 0; u && i < count; ++i) du[first + i] = rounded(scale * strip_du[i]);
  }
  return sum;
}

}  // namespace

const std::vector<std::string>& activation_names() {
  static const std::vector<std::string> names = {"swiglu", "clamped_swiglu", "gelu", "gelu_tanh", "relu"};
  return names;
}

std::string_view name_of(Activation activation) { return activation_names()[static_cast<std::size_t>(activation)]; }

Activation activation_from_name(std::string_view name) {
  const auto found = std::ranges::find(activation_names(), name);
  ensure(found != activation_names().end(), "an activation has one of the known names");
  return static_cast<Activation>(found - activation_names().begin());
}

bool always_gated(Activation activation) { return activation == Activation::swiglu || activation == Activation::clamped_swiglu; }

void activate(Activation activation, std::size_t count, const float* g, const float* u, float* a) { forward_fine(activation, count, g, u, a); }
void activate(Activation activation, std::size_t count, const float* g, const float* u, Bfloat16* a) { forward_coarse(activation, count, g, u, a); }

float activate_backward(Activation activation, std::size_t count, const float* g, const float* u, const float* da, float scale, float* a, float* dg, float* du) {
  const auto n = static_cast<std::int64_t>(count);
  backward_fine(activation, count, g, u, da, a, dg, du);
  const float sum = dot(a, da, n);
  for (float* values : {a, dg, du})
    if (values && scale != 1.0F) scale_by(values, scale, n);
  return sum;
}

float activate_backward(Activation activation, std::size_t count, const float* g, const float* u, const float* da, float scale, Bfloat16* a, Bfloat16* dg, Bfloat16* du) {
  return backward_coarse(activation, count, g, u, da, scale, a, dg, du);
}

}  // namespace epsim
