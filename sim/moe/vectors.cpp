#include "sim/moe/vectors.h"

#include "base/vectorise.h"

namespace epsim {
namespace {

EPSIM_VECTORISE void add_all(float* __restrict sum, const float* __restrict term, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) sum[i] += term[i];
}
EPSIM_VECTORISE void add_all_widened(float* __restrict sum, const Bfloat16* __restrict term, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) sum[i] += widened(term[i]);
}
EPSIM_VECTORISE void add_all_scaled(float* __restrict sum, float scale, const float* __restrict term, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) sum[i] += scale * term[i];
}
EPSIM_VECTORISE void scale_all(float* values, float scale, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) values[i] *= scale;
}
EPSIM_VECTORISE float sum_of_products(const float* __restrict a, const float* __restrict b, std::int64_t count) {
  constexpr std::int64_t kLanes = 16;
  float lanes[kLanes] = {};
  std::int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes)
    for (std::int64_t l = 0; l < kLanes; ++l) lanes[l] += a[i + l] * b[i + l];
  for (; i < count; ++i) lanes[i % kLanes] += a[i] * b[i];
  for (std::int64_t half = kLanes / 2; half > 0; half /= 2)
    for (std::int64_t l = 0; l < half; ++l) lanes[l] += lanes[l + half];
  return lanes[0];
}

}  // namespace

void add_to(float* sum, const float* term, std::int64_t count) { add_all(sum, term, count); }
void add_to(float* sum, const Bfloat16* term, std::int64_t count) { add_all_widened(sum, term, count); }
void add_scaled(float* sum, float scale, const float* term, std::int64_t count) { add_all_scaled(sum, scale, term, count); }
void scale_by(float* values, float scale, std::int64_t count) { scale_all(values, scale, count); }
float dot(const float* a, const float* b, std::int64_t count) { return sum_of_products(a, b, count); }

}  // namespace epsim
