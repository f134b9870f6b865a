#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "policies/capacity.h"
#include "policies/gate_batch.h"

namespace epsim {

/// A routed batch. Ids from `experts` on are of experts that compute nothing (zero, identity, constant): they are kept whatever the capacity, and no row is sent to them.
struct Routed {
  std::int64_t tokens = 0;
  int experts = 0;  ///< that compute, so that capacity holds for them
  int top_k = 0;
  std::vector<std::int32_t> expert;    ///< [T][k] by descending selection score; -1: none
  std::vector<float> weight;           ///< [T][k] before drops; 0: none
  std::vector<float> weight_after;     ///< [T][k] what the combine takes: 0 where dropped, renormalised where the capacity does
  std::vector<std::uint8_t> kept;      ///< [T][k]
  std::vector<std::int32_t> position;  ///< [T][k] place among its expert's kept choices of the block, in the capacity's order (by weight or by draw: in token order); -1: not kept
  std::vector<std::int64_t> capacity;  ///< of an expert in each block of the capacity's scope, in order; empty: no limit
  std::vector<std::int64_t> choices;   ///< [experts] before drops
};

/// Routes a batch: choices, weights, and what capacity keeps, where each expert has one replica. Throws InputError where a capacity cannot be had of the router (`next_best` without scores to go by).
Routed route_batch(const Router& router, const Capacity& capacity, const GateBatch& batch);

/// Adds dL/dlogits [T][E], given dL/dweight_after [T][k]: through renormalising after drops, normalising and the score; choices and drops are constant. A router without a gradient adds nothing.
void route_backward(const Router& router, const Capacity& capacity, const GateBatch& batch, const Routed& routed, std::span<const float> d_weight_after, std::span<float> d_logits);

/// The router that gives what a capacity with `overflow: next_best` makes of another's choices: it looks at a whole rank. `replicas` [E]: an expert has so many times the room; empty: one each.
Router next_best(Router router, Capacity capacity, std::vector<std::int64_t> replicas = {});

}  // namespace epsim
