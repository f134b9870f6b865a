#include "sim/network/shared/share_rows.h"

#include <bit>
#include <cstring>

#include "base/vectorise.h"

namespace epsim {

void ShareRows::lay_out() {
  first_.assign(1, 0);
  for (std::size_t q = 0; q < links_; ++q) {
    for (std::size_t w = 0; w < words_; ++w) {
      Word& word = blocks_[q * words_ + w];
      word.before = static_cast<std::uint32_t>(ids_.size());
      for (std::uint64_t left = word.present; left != 0; left &= left - 1) ids_.push_back(static_cast<std::uint16_t>(w * 64 + static_cast<std::size_t>(std::countr_zero(left))));
    }
    first_.push_back(static_cast<std::uint32_t>(ids_.size()));
  }
  counts_.assign(ids_.size() * kLanes, 0);
}

EPSIM_VECTORISE void ShareRows::add_blocks(const std::uint16_t* ids, const std::uint16_t* counts, std::size_t blocks, double by, double* sums) {
  // Written with vector types because the compiler does not see that the eight sums are one vector.
  using Counts [[gnu::vector_size(16)]] = std::uint16_t;
  using Whole [[gnu::vector_size(32)]] = std::int32_t;
  using Sums [[gnu::vector_size(64)]] = double;
  for (std::size_t i = 0; i < blocks; ++i) {
    Counts c;
    Sums s;
    std::memcpy(&c, counts + i * kLanes, sizeof(c));
    std::memcpy(&s, sums + ids[i] * kLanes, sizeof(s));
    s += by * __builtin_convertvector(__builtin_convertvector(c, Whole), Sums);
    std::memcpy(sums + ids[i] * kLanes, &s, sizeof(s));
  }
}

}  // namespace epsim
