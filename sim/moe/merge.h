#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "policies/compression.h"
#include "sim/moe/ffn.h"

namespace epsim {

/// For each hidden unit of `one` the unit of `other` that is most like it: all different, with the largest sum over units of the dot products of their columns of w1 and w3, their biases and their rows of w2
/// (weight matching of Git Re-Basin, Ainsworth et al., arXiv 2209.04836). An expert computes the same with its units in any order.
std::vector<int> matching_units(const FfnShape& shape, const FfnView& one, const FfnView& other);

/// The experts that are left: each is the mean of those that become it, weighed by how often they were chosen (alike, where none was). With `align`, their units are matched first with those of the most chosen, the first of equals.
/// An expert that nothing is merged into keeps its numbers exactly, and so do experts that are all equal.
ExpertWeights merged_experts(const FfnShape& shape, const ExpertWeights& weights, const ExpertMap& map, std::span<const std::int64_t> choices, bool align);

}  // namespace epsim
