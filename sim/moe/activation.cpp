#include "sim/moe/activation.h"

#include <algorithm>
#include <bit>
#include <cstdint>

#include "base/check.h"
#include "base/vectorise.h"

#define EPSIM_INLINE inline __attribute__((always_inline))  // into each of the versions that EPSIM_VECTORISE makes

namespace epsim {
namespace {

/// exp(x), relative error below 4e-7; x is clamped to [-87, 88]. Plain IEEE operations: the same bits on every machine.
EPSIM_INLINE float exponential(float x) {
  x = x > 88.0F ? 88.0F : x;
  x = x < -87.0F ? -87.0F : x;
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

EPSIM_INLINE float sigmoid(float x) { return 1.0F / (1.0F + exponential(-x)); }

/// The standard normal distribution function, from the Chebyshev fit of erfc in Numerical Recipes (Press et al., section 6.2), whose relative error is below 1.2e-7.
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
  const float upper = 0.5F * t * exponential(p - z * z);
  return x < 0 ? upper : 1.0F - upper;
}

/// A function of g and its derivative.
struct Point {
  float value, slope;
};

struct Silu {
  static EPSIM_INLINE Point at(float g) {
    const float s = sigmoid(g);
    return {g * s, s + g * s * (1.0F - s)};
  }
};
struct Gelu {
  static EPSIM_INLINE Point at(float g) {
    const float p = normal_distribution(g);
    return {g * p, p + g * 0.398942280F * exponential(-0.5F * g * g)};
  }
};
struct GeluTanh {
  static EPSIM_INLINE Point at(float g) {
    constexpr float kScale = 2 * 0.797884561F, kCube = 0.044715F;  // (1 + tanh z) / 2 = sigmoid(2 z)
    const float s = sigmoid(kScale * (g + kCube * g * g * g));
    return {g * s, s + g * s * (1.0F - s) * kScale * (1.0F + 3 * kCube * g * g)};
  }
};
struct Relu {
  static EPSIM_INLINE Point at(float g) { return {g < 0 ? 0.0F : g, g > 0 ? 1.0F : 0.0F}; }
};

template <class F>
EPSIM_INLINE void plain(std::size_t n, const float* __restrict g, float* __restrict a) {
  for (std::size_t i = 0; i < n; ++i) a[i] = F::at(g[i]).value;
}
template <class F>
EPSIM_INLINE void gated(std::size_t n, const float* __restrict g, const float* __restrict u, float* __restrict a) {
  for (std::size_t i = 0; i < n; ++i) a[i] = F::at(g[i]).value * u[i];
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

EPSIM_INLINE void clamped(std::size_t n, const float* __restrict g, const float* __restrict u, float* __restrict a) {
  for (std::size_t i = 0; i < n; ++i) {
    const float x = g[i] > kLimit ? kLimit : g[i];
    const float below = u[i] > kLimit ? kLimit : u[i], v = below < -kLimit ? -kLimit : below;
    a[i] = (v + 1.0F) * x * sigmoid(kSteepness * x);
  }
}
EPSIM_INLINE void clamped_backward(std::size_t n, const float* __restrict g, const float* __restrict u, const float* __restrict da, float* __restrict a, float* __restrict dg,
                                   float* __restrict du) {
  for (std::size_t i = 0; i < n; ++i) {
    const float x = g[i] > kLimit ? kLimit : g[i];
    const float below = u[i] > kLimit ? kLimit : u[i], v = below < -kLimit ? -kLimit : below;
    const float s = sigmoid(kSteepness * x), slope = s + kSteepness * x * s * (1.0F - s);
    a[i] = (v + 1.0F) * x * s;
    dg[i] = g[i] > kLimit ? 0.0F : da[i] * (v + 1.0F) * slope;
    du[i] = v != u[i] ? 0.0F : da[i] * x * s;
  }
}

EPSIM_VECTORISE void forward_rows(Activation activation, std::size_t n, const float* g, const float* u, float* a) {
  switch (activation) {
    case Activation::swiglu: return gated<Silu>(n, g, u, a);
    case Activation::clamped_swiglu: return clamped(n, g, u, a);
    case Activation::gelu: return u ? gated<Gelu>(n, g, u, a) : plain<Gelu>(n, g, a);
    case Activation::gelu_tanh: return u ? gated<GeluTanh>(n, g, u, a) : plain<GeluTanh>(n, g, a);
    case Activation::relu: return u ? gated<Relu>(n, g, u, a) : plain<Relu>(n, g, a);
  }
}

EPSIM_VECTORISE void backward_rows(Activation activation, std::size_t n, const float* g, const float* u, const float* da, float* a, float* dg, float* du) {
  switch (activation) {
    case Activation::swiglu: return gated_backward<Silu>(n, g, u, da, a, dg, du);
    case Activation::clamped_swiglu: return clamped_backward(n, g, u, da, a, dg, du);
    case Activation::gelu: return u ? gated_backward<Gelu>(n, g, u, da, a, dg, du) : plain_backward<Gelu>(n, g, da, a, dg);
    case Activation::gelu_tanh: return u ? gated_backward<GeluTanh>(n, g, u, da, a, dg, du) : plain_backward<GeluTanh>(n, g, da, a, dg);
    case Activation::relu: return u ? gated_backward<Relu>(n, g, u, da, a, dg, du) : plain_backward<Relu>(n, g, da, a, dg);
  }
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

void activate(Activation activation, std::size_t count, const float* g, const float* u, float* a) { forward_rows(activation, count, g, u, a); }

void activate_backward(Activation activation, std::size_t count, const float* g, const float* u, const float* da, float* a, float* dg, float* du) {
  backward_rows(activation, count, g, u, da, a, dg, du);
}

}  // namespace epsim
