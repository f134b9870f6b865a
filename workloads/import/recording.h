#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "base/check.h"
#include "base/matrix.h"

namespace epsim {

/// What every token of a recording chose.
struct RecordedChoices {
  static constexpr std::int32_t kNone = -1;  ///< padding: no token, or no choice
  std::int64_t tokens = 0;
  int top_k = 0;
  std::vector<std::int32_t> experts;  ///< [tokens][rows][top_k]
  std::vector<float> weights;         ///< of the same shape; empty where none were recorded
};

/// Expert counts, step by step.
struct RecordedCounts {
  std::vector<Matrix<std::int64_t>> steps;  ///< of each step [rows][experts]
};

/// Which expert each slot holds.
struct RecordedSlots {
  std::vector<std::vector<std::int32_t>> expert_of_slot;  ///< [rows][P of the row]
  std::vector<std::vector<std::int32_t>> first_slot;      ///< [rows][R+1]
};

/// Bytes between ranks, exchange by exchange.
struct RecordedTraffic {
  std::vector<Matrix<std::int64_t>> exchanges;  ///< of each exchange [source][destination]
};

/// What a file of another program holds, in our terms.
struct Recording {
  std::string found;           ///< what was read, for people
  std::int64_t rows = 0;       ///< layers it has
  std::vector<int> layers;     ///< model layer index of each row; empty where the file does not say
  int experts = 0;             ///< experts of a layer; 0 where the file does not say
  std::variant<RecordedChoices, RecordedCounts, RecordedSlots, RecordedTraffic> data;
  std::vector<std::string> warnings;  ///< what the reader left out or guessed
};

/// The largest single count of a recording: sums over all that a file can hold stay exact.
inline constexpr std::int64_t kMostRecordedCount = std::int64_t{1} << 40;

/// Throws InputError where counts of that many steps, layers and experts would not fit in 2 GiB: a few wrong numbers in a small file can ask for that.
void check_size(const Location& at, std::int64_t steps, std::int64_t rows, std::int64_t experts);

using SourceFiles = std::vector<std::shared_ptr<const SourceText>>;

/// The largest number of experts of a layer: ids are 16 bit wide.
inline constexpr std::int64_t kMostExperts = 65'535;

}  // namespace epsim
