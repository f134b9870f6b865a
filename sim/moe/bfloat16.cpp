#include "sim/moe/bfloat16.h"

#include "base/vectorise.h"

namespace epsim {
namespace {

EPSIM_VECTORISE void round_all(const float* __restrict from, Bfloat16* __restrict to, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) to[i] = rounded(from[i]);
}
EPSIM_VECTORISE void round_all_scaled(float scale, const float* __restrict from, Bfloat16* __restrict to, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) to[i] = rounded(scale * from[i]);
}

}  // namespace

void round_to(const float* from, Bfloat16* to, std::int64_t count) { round_all(from, to, count); }
void round_scaled(float scale, const float* from, Bfloat16* to, std::int64_t count) { round_all_scaled(scale, from, to, count); }

}  // namespace epsim
