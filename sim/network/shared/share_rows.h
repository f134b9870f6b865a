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
  std::size_t size() const { return blocks_.size() * kLanes; }

 private:
  struct alignas(64) Block {
    double lane[kLanes];
  };
  std::vector<Block> blocks_;
};

/// For each link q and each other link m: the weights, summed, of the flows that q holds back and that cross m. Links that share flows are few runs of numbers, so a row is a list of blocks of eight links.
class ShareRows {
 public:
  static constexpr std::size_t kLanes = Lanes::kLanes;

  /// Every link's row begins without blocks.
  explicit ShareRows(std::size_t links = 0) : links_(links), words_((links + 64 * kLanes - 1) / (64 * kLanes)), blocks_(links * words_) {}
  /// Gives the row of q room for m.
  void reserve(std::size_t q, std::size_t m) { blocks_[q * words_ + m / (64 * kLanes)].present |= std::uint64_t{1} << m / kLanes % 64; }
  /// Lays out what was reserved, all zero.
  void lay_out();

  double at(std::size_t q, std::size_t m) const {
    const Word& w = blocks_[q * words_ + m / (64 * kLanes)];
    const std::uint64_t bit = std::uint64_t{1} << m / kLanes % 64;
    return w.present & bit ? counts_[place(w, bit) + m % kLanes] : 0;
  }
  void change(std::size_t q, std::size_t m, int by) {
    const Word& w = blocks_[q * words_ + m / (64 * kLanes)];
    counts_[place(w, std::uint64_t{1} << m / kLanes % 64) + m % kLanes] += static_cast<std::uint16_t>(by);
  }
  /// sums[m] += by x at(q, m) for all m; `sums` has room for whole blocks.
  void add(std::size_t q, double by, double* sums) const { add_blocks(ids_.data() + first_[q], counts_.data() + first_[q] * kLanes, first_[q + 1] - first_[q], by, sums); }

 private:
  struct Word {
    std::uint64_t present = 0;  // a bit a block
    std::uint32_t before = 0;   // blocks of all rows in front of it
  };
  static std::size_t place(const Word& w, std::uint64_t bit) { return (w.before + count_bits(w.present & (bit - 1))) * kLanes; }
  // Without the machine instruction, which not every x86-64 has, std::popcount is a call.
  static std::size_t count_bits(std::uint64_t x) {
    x -= x >> 1 & 0x5555555555555555;
    x = (x & 0x3333333333333333) + (x >> 2 & 0x3333333333333333);
    return ((x + (x >> 4)) & 0x0f0f0f0f0f0f0f0f) * 0x0101010101010101 >> 56;
  }
  static void add_blocks(const std::uint16_t* ids, const std::uint16_t* counts, std::size_t blocks, double by, double* sums);

  std::size_t links_, words_;
  std::vector<Word> blocks_;           // [links][words_]
  std::vector<std::uint32_t> first_;   // [links + 1] blocks
  std::vector<std::uint16_t> ids_;     // [blocks]
  std::vector<std::uint16_t> counts_;  // [blocks][8]
};

}  // namespace epsim
