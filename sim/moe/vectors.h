#pragma once
#include <cstdint>

#include "sim/moe/bfloat16.h"

namespace epsim {

/// sum += term
void add_to(float* sum, const float* term, std::int64_t count);
void add_to(float* sum, const Bfloat16* term, std::int64_t count);
/// sum += scale * term
void add_scaled(float* sum, float scale, const float* term, std::int64_t count);
/// values *= scale
void scale_by(float* values, float scale, std::int64_t count);
/// The sum of a[i] b[i], by 16 partial sums of every 16th product: the same bits on every machine.
float dot(const float* a, const float* b, std::int64_t count);

}  // namespace epsim
