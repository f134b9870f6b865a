#pragma once
#include <span>

#include "policies/plan.h"
#include "sim/moe/layer.h"

namespace epsim {

/// The choices of a home rank's tokens as a plan settled them. `weights` [T][k] are those of the plan's choices before any drop; empty: they are left out.
Routed routed_of(const Plan& plan, Rank home, std::span<const float> weights = {});

/// The part of a home rank's tokens in [T][width].
template <class Values>
auto of_home(const Plan& plan, Rank home, std::int64_t width, Values& all) {
  const std::int64_t first = plan.routing.first_token[home], last = plan.routing.first_token[home + 1];
  return std::span(all).subspan(static_cast<std::size_t>(first * width), static_cast<std::size_t>((last - first) * width));
}

/// The experts of a planned layer that compute nothing. Every home rank has all of them, and adds what they give to its own tokens' results behind what the exchange brings.
struct IdleBank {
  LayerShape shape;      ///< hidden, experts and idle
  LayerWeights weights;  ///< constant and constant_gate

  bool empty() const { return shape.idle.count() == 0; }
};

/// Adds to y what kept choices of such experts give. All spans are those of a home rank's tokens, [tokens][hidden].
void add_idle(const IdleBank& idle, const Plan& plan, Rank home, std::span<const float> x, std::span<float> y);
/// Adds to dx what comes through such choices, fills in their `d_weight` [tokens][k], and gives the gradients of the weights.
LayerWeights add_idle_backward(const IdleBank& idle, const Plan& plan, Rank home, std::span<const float> x, std::span<const float> dy, std::span<float> dx, std::span<float> d_weight);

}  // namespace epsim
