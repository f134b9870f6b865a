#include "sim/network/shared/share_rows.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "base/vectorise.h"

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define EPSIM_AVX512 1
#endif

namespace epsim {
namespace {

constexpr std::size_t kLanes = Lanes::kLanes;
constexpr std::size_t kStep = 4;  // blocks of numbers of a row come in whole steps: then the processor guesses the end of the loop more often

// All ways round the product, then the sum: the same bits on every machine.
void add_bits(const ShareRows::Run* run, const ShareRows::Run* end, const std::uint8_t* bits, double by, double* sums) {
  for (; run != end; ++run)
    for (std::size_t i = run->first; i < std::size_t{run->first} + run->blocks; ++i, ++bits)
      for (std::size_t k = 0; k < kLanes; ++k)
        if (*bits >> k & 1) sums[i * kLanes + k] += by;
}

template <class Number>
void add_numbers(const std::uint16_t* ids, const Number* numbers, std::size_t blocks, double by, double* sums) {
  for (std::size_t i = 0; i < blocks; ++i)
    for (std::size_t k = 0; k < kLanes; ++k) sums[ids[i] * kLanes + k] += by * static_cast<double>(numbers[i * kLanes + k]);
}

#ifdef EPSIM_AVX512
// The compiler finds neither the masked sum nor the widening conversions by itself.
#define EPSIM_WIDE __attribute__((target("avx512f,avx512vl,avx512dq")))

EPSIM_WIDE void add_bits_wide(const ShareRows::Run* run, const ShareRows::Run* end, const std::uint8_t* bits, double by, double* sums) {
  const __m512d all = _mm512_set1_pd(by);
  const auto add = [&](double* s, std::uint8_t mask) EPSIM_WIDE {
    const __m512d before = _mm512_load_pd(s);
    _mm512_store_pd(s, _mm512_mask_add_pd(before, mask, before, all));
  };
  for (; run != end; ++run) {
    double* s = sums + run->first * kLanes;
    double* const last = s + run->blocks * kLanes;
    for (; last - s >= static_cast<std::ptrdiff_t>(4 * kLanes); s += 4 * kLanes, bits += 4) {
      add(s, bits[0]);
      add(s + kLanes, bits[1]);
      add(s + 2 * kLanes, bits[2]);
      add(s + 3 * kLanes, bits[3]);
    }
    for (; s != last; s += kLanes, ++bits) add(s, *bits);
  }
}

EPSIM_WIDE inline __m512d widen(const std::uint8_t* n) { return _mm512_cvtepi32_pd(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(n)))); }
EPSIM_WIDE inline __m512d widen(const std::uint16_t* n) { return _mm512_cvtepi32_pd(_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(n)))); }
EPSIM_WIDE inline __m512d widen(const double* n) { return _mm512_loadu_pd(n); }

template <class Number>
EPSIM_WIDE void add_numbers_wide(const std::uint16_t* ids, const Number* numbers, std::size_t blocks, double by, double* sums) {
  const __m512d factor = _mm512_set1_pd(by);
  const auto add = [&](std::size_t i) EPSIM_WIDE {
    double* const s = sums + ids[i] * kLanes;
    _mm512_store_pd(s, _mm512_add_pd(_mm512_load_pd(s), _mm512_mul_pd(factor, widen(numbers + i * kLanes))));
  };
  static_assert(kStep == 4);
  for (std::size_t i = 0; i < blocks; i += kStep) add(i), add(i + 1), add(i + 2), add(i + 3);
}

const bool kWide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
#endif

template <class Number>
void add_row(const ShareRows::Run* run, const ShareRows::Run* end, const std::uint8_t* bits, const std::uint16_t* ids, const Number* numbers, std::size_t blocks, double by, double* sums) {
#ifdef EPSIM_AVX512
  if (kWide) {
    add_bits_wide(run, end, bits, by, sums);
    add_numbers_wide(ids, numbers, blocks, by, sums);
    return;
  }
#endif
  add_bits(run, end, bits, by, sums);
  add_numbers(ids, numbers, blocks, by, sums);
}

EPSIM_VECTORISE double least_of(const double* values, std::size_t count) {
  double lowest[kLanes];
  std::fill(lowest, lowest + kLanes, std::numeric_limits<double>::infinity());
  for (std::size_t i = 0; i < count; i += kLanes)
    for (std::size_t k = 0; k < kLanes; ++k) lowest[k] = values[i + k] < lowest[k] ? values[i + k] : lowest[k];
  return *std::min_element(lowest, lowest + kLanes);
}

}  // namespace

double Lanes::least() const { return blocks_.empty() ? std::numeric_limits<double>::infinity() : least_of(blocks_.data()->lane, size()); }

ShareRows::Totals ShareRows::count_blocks() {
  std::uint32_t blocks = 0;
  for (Word& w : index_) {
    w.numbers_before = blocks;
    blocks += static_cast<std::uint32_t>(std::popcount(w.numbers));
  }
  return Totals(blocks * kLanes);
}

void ShareRows::lay_out(const Totals& totals) {
  double most = 0;
  bool whole = true;
  for (const double t : totals) {
    most = std::max(most, t);
    whole = whole && t == std::floor(t);
  }
  width_ = !whole || most > 65535 ? Width::real : most > 255 ? Width::two_bytes : Width::byte;
  std::size_t block = 0;
  std::uint32_t bits = 0;
  for (std::size_t i = 0; i < index_.size(); ++i) {
    if (i % row_words_ == 0) rows_.push_back({static_cast<std::uint32_t>(bit_runs_.size()), bits, static_cast<std::uint32_t>(number_ids_.size())});
    Word& w = index_[i];
    w.bits_before = bits;
    w.numbers_before = static_cast<std::uint32_t>(number_ids_.size());
    for (std::uint64_t left = w.numbers; left != 0; left &= left - 1, ++block) {
      const auto id = static_cast<std::uint16_t>(i % row_words_ * 64 + static_cast<std::size_t>(std::countr_zero(left)));
      const auto first = totals.begin() + static_cast<std::ptrdiff_t>(block * kLanes);
      if (width_ != Width::real && std::all_of(first, first + kLanes, [](double t) { return t <= 1; })) {
        const bool continues = bit_runs_.size() > rows_.back().first_run && bit_runs_.back().first + bit_runs_.back().blocks == id;
        if (continues)
          ++bit_runs_.back().blocks;
        else
          bit_runs_.push_back({id, 1});
        ++bits;
        w.bits |= left & -left;
        w.numbers ^= left & -left;
      } else {
        number_ids_.push_back(id);
      }
    }
    if (i % row_words_ + 1 == row_words_) number_ids_.resize((number_ids_.size() + kStep - 1) / kStep * kStep, static_cast<std::uint16_t>(room(links_) / kLanes - 1));
  }
  rows_.push_back({static_cast<std::uint32_t>(bit_runs_.size()), bits, static_cast<std::uint32_t>(number_ids_.size())});
  bits_.assign(bits, 0);
  const std::size_t cells = number_ids_.size() * kLanes;
  if (width_ == Width::byte)
    bytes_.assign(cells, 0);
  else if (width_ == Width::two_bytes)
    words_.assign(cells, 0);
  else
    reals_.assign(cells, 0);
}

void ShareRows::clear() {
  std::fill(bits_.begin(), bits_.end(), std::uint8_t{0});
  std::fill(bytes_.begin(), bytes_.end(), std::uint8_t{0});
  std::fill(words_.begin(), words_.end(), std::uint16_t{0});
  std::fill(reals_.begin(), reals_.end(), 0.0);
}

void ShareRows::add(std::size_t q, double by, Lanes& sums) const {
  const Row a = rows_[q], b = rows_[q + 1];
  const auto add = [&](const auto& numbers) {
    add_row(bit_runs_.data() + a.first_run, bit_runs_.data() + b.first_run, bits_.data() + a.first_bits, number_ids_.data() + a.first_numbers, numbers.data() + a.first_numbers * kLanes,
            b.first_numbers - a.first_numbers, by, sums.data());
  };
  if (width_ == Width::byte)
    add(bytes_);
  else if (width_ == Width::two_bytes)
    add(words_);
  else
    add(reals_);
}

}  // namespace epsim
