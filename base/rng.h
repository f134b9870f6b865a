#pragma once
#include <array>
#include <cstdint>
#include <span>

namespace epsim {

/// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): four random words for a counter and a key.
std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> counter, std::array<std::uint32_t, 2> key);

/// What a stream of random numbers is for. Each purpose draws from its own stream, so adding a draw to one never moves another.
enum class Stream : std::uint32_t { popularity, scores, choices, vectors, gate, weights, placement, test, replica, router, capacity, shared_expert };

/// Counter-based random numbers: the value depends on (seed, stream, a, b, draw) alone, never on the order of calls, a rank or a thread.
/// By convention `a` is the global token (or expert) id and `b` the layer.
class Rng {
 public:
  Rng(std::uint64_t seed, Stream stream, std::uint64_t a = 0, std::uint32_t b = 0) : seed_(seed), stream_(stream), a_(a), b_(b) {}

  std::uint64_t bits();                       ///< the next 64 random bits
  double uniform();                           ///< in (0, 1), 53 bits
  double normal();                            ///< mean 0, variance 1 (Box-Muller)
  std::uint64_t below(std::uint64_t n);       ///< 0 .. n-1, unbiased; n > 0
  /// A random order of 0 .. n-1.
  void permutation(std::span<std::uint32_t> out);

 private:
  std::uint64_t seed_;
  Stream stream_;
  std::uint64_t a_;
  std::uint32_t b_, draw_ = 0;
  std::array<std::uint32_t, 4> block_{};
  int left_ = 0;
};

}  // namespace epsim
