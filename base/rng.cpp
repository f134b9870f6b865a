#include "base/rng.h"

#include <cmath>
#include <numbers>
#include <utility>

namespace epsim {

std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> c, std::array<std::uint32_t, 2> k) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = std::uint64_t{0xD2511F53} * c[0], p1 = std::uint64_t{0xCD9E8D57} * c[2];
    c = {static_cast<std::uint32_t>(p1 >> 32) ^ c[1] ^ k[0], static_cast<std::uint32_t>(p1), static_cast<std::uint32_t>(p0 >> 32) ^ c[3] ^ k[1],
         static_cast<std::uint32_t>(p0)};
    k[0] += 0x9E3779B9;
    k[1] += 0xBB67AE85;
  }
  return c;
}

std::uint64_t Rng::bits() {
  if (left_ == 0) {
    // Streams split the key, so their counters may be equal.
    const std::uint64_t key = seed_ ^ (std::uint64_t{static_cast<std::uint32_t>(stream_) + 1} * 0x9E3779B97F4A7C15);
    block_ = philox({static_cast<std::uint32_t>(a_), static_cast<std::uint32_t>(a_ >> 32), b_, draw_++},
                    {static_cast<std::uint32_t>(key), static_cast<std::uint32_t>(key >> 32)});
    left_ = 2;
  }
  --left_;
  return left_ == 1 ? std::uint64_t{block_[0]} << 32 | block_[1] : std::uint64_t{block_[2]} << 32 | block_[3];
}

double Rng::uniform() { return (static_cast<double>(bits() >> 12) + 0.5) * 0x1p-52; }

double Rng::normal() {
  const double u = uniform(), v = uniform();
  return std::sqrt(-2 * std::log(u)) * std::cos(2 * std::numbers::pi * v);
}

std::uint64_t Rng::below(std::uint64_t n) {
  const std::uint64_t limit = n * (UINT64_MAX / n);
  std::uint64_t v = bits();
  while (v >= limit) v = bits();
  return v % n;
}

void Rng::permutation(std::span<std::uint32_t> out) {
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = static_cast<std::uint32_t>(i);
  for (std::size_t i = out.size(); i > 1; --i) std::swap(out[i - 1], out[below(i)]);
}

}  // namespace epsim
