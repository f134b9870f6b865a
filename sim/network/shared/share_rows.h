#pragma once
#include <cstdint>
#include <vector>

namespace epsim {

/// Doubles in whole blocks of eight, each block in one cache line.
class Lanes {
 public:
  static constexpr std::size_t kLanes = 8;
  void assign(std::size_t count, double value) {
    Block block;
    for (double& lane : block.lane) lane = value;
    blocks_.assign((count + kLanes - 1) / kLanes, block);
  }
  double& operator[](std::size_t i) { return blocks_.data()->lane[i]; }
  double operator[](std::size_t i) const { return blocks_.data()->lane[i]; }
  double* data() { return blocks_.data()->lane; }
  std::size_t size() const { return blocks_.size() * kLanes; }  ///< whole blocks
  double least() const;                                         ///< infinity where there are none

 private:
  struct alignas(64) Block {
    double lane[kLanes];
  };
  std::vector<Block> blocks_;
};

/// For each link q and each other link m: the weights, summed, of the flows that q holds back and that cross m. Links share flows with few runs of others, so a row is a list of blocks of eight links.
/// Where no two links of a block can share more than one flow of weight 1, the block is eight bits; else it is eight numbers, of one byte or two where all weights are whole.
class ShareRows {
 public:
  ShareRows() = default;
  /// Room for all the pairs of links that flows share: `pairs(visit)` calls visit(q, m, weight) for each flow and each two different links of it, twice. All sums begin at 0.
  template <class Pairs>
  ShareRows(std::size_t links, Pairs pairs) : ShareRows(links) {
    pairs([&](std::size_t q, std::size_t m, double) { reserve(q, m); });
    Totals totals = count_blocks();
    pairs([&](std::size_t q, std::size_t m, double weight) { totals[cell(q, m)] += weight; });
    lay_out(totals);
  }

  /// Of the sums that rows of so many links are added to: one block more, which takes what fills rows up to a whole number of steps.
  static std::size_t room(std::size_t links) { return (links + kLanes - 1) / kLanes * kLanes + kLanes; }

  /// All sums are 0 again.
  void clear();

  /// Blocks in sequence.
  struct Run {
    std::uint16_t first, blocks;
  };

  double at(std::size_t q, std::size_t m) const {
    const Word& w = word(q, m);
    const std::uint64_t bit = bit_of(m);
    if (w.bits & bit) return bits_[w.bits_before + count_bits(w.bits & (bit - 1))] >> m % kLanes & 1;
    if (!(w.numbers & bit)) return 0;
    const std::size_t i = number_cell(w, bit, m);
    return width_ == Width::byte ? bytes_[i] : width_ == Width::two_bytes ? words_[i] : reals_[i];
  }
  void change(std::size_t q, std::size_t m, double by) {
    const Word& w = word(q, m);
    const std::uint64_t bit = bit_of(m);
    if (w.bits & bit) {
      bits_[w.bits_before + count_bits(w.bits & (bit - 1))] ^= static_cast<std::uint8_t>(1U << m % kLanes);
      return;
    }
    const std::size_t i = number_cell(w, bit, m);
    if (width_ == Width::byte)
      bytes_[i] = static_cast<std::uint8_t>(bytes_[i] + static_cast<int>(by));
    else if (width_ == Width::two_bytes)
      words_[i] = static_cast<std::uint16_t>(words_[i] + static_cast<int>(by));
    else
      reals_[i] += by;
  }
  /// Says that a row will soon be added.
  void prefetch(std::size_t q) const {
    __builtin_prefetch(bits_.data() + rows_[q].first_bits);
    __builtin_prefetch(number_ids_.data() + rows_[q].first_numbers);
    __builtin_prefetch(bytes_.data() + rows_[q].first_numbers * kLanes);
  }
  /// sums[m] += by x at(q, m) for all m.
  void add(std::size_t q, double by, Lanes& sums) const;

 private:
  static constexpr std::size_t kLanes = Lanes::kLanes, kWordLinks = 64 * kLanes;
  enum class Width { byte, two_bytes, real };
  using Totals = std::vector<double>;
  struct Word {
    std::uint64_t bits = 0, numbers = 0;                // a bit a block of either kind
    std::uint32_t bits_before = 0, numbers_before = 0;  // blocks of all rows in front of it
  };
  struct Row {
    std::uint32_t first_run = 0, first_bits = 0, first_numbers = 0;  // runs, blocks, blocks
  };

  explicit ShareRows(std::size_t links) : links_(links), row_words_((links + kWordLinks - 1) / kWordLinks), index_(links * row_words_) {}
  const Word& word(std::size_t q, std::size_t m) const { return index_[q * row_words_ + m / kWordLinks]; }
  static std::uint64_t bit_of(std::size_t m) { return std::uint64_t{1} << m / kLanes % 64; }
  void reserve(std::size_t q, std::size_t m) { index_[q * row_words_ + m / kWordLinks].numbers |= bit_of(m); }
  std::size_t cell(std::size_t q, std::size_t m) const { return number_cell(word(q, m), bit_of(m), m); }
  static std::size_t number_cell(const Word& w, std::uint64_t bit, std::size_t m) { return (w.numbers_before + count_bits(w.numbers & (bit - 1))) * kLanes + m % kLanes; }
  // Without the machine instruction, which not every x86-64 has, std::popcount is a call.
  static std::size_t count_bits(std::uint64_t x) {
    x -= x >> 1 & 0x5555555555555555;
    x = (x & 0x3333333333333333) + (x >> 2 & 0x3333333333333333);
    return ((x + (x >> 4)) & 0x0f0f0f0f0f0f0f0f) * 0x0101010101010101 >> 56;
  }
  Totals count_blocks();
  void lay_out(const Totals& totals);

  std::size_t links_ = 0, row_words_ = 0;
  Width width_ = Width::byte;
  std::vector<Word> index_;               // [links][row_words_]
  std::vector<Row> rows_;                 // [links + 1]
  std::vector<Run> bit_runs_;             // of all rows
  std::vector<std::uint16_t> number_ids_;  // [blocks]
  std::vector<std::uint8_t> bits_;        // [blocks]
  std::vector<std::uint8_t> bytes_;       // [blocks][8], one of the three
  std::vector<std::uint16_t> words_;
  std::vector<double> reals_;
};

}  // namespace epsim
