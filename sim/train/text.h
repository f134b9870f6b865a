#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "sim/train/text_model.h"

namespace epsim {

/// Bytes to learn from, and bytes behind them that are held out.
struct Text {
  std::vector<std::uint8_t> train, held_out;
};
/// Cuts the last `held_out_share` of a text off.
Text split_text(const std::string& bytes, double held_out_share);

/// `batch.sequences` sequences from places in the training text that are drawn by seed and step.
void fill_training_batch(const Text& text, int step, TextBatch& batch);
/// Sequences of `length` bytes that the held-out text has, side by side.
std::int64_t held_out_sequences(const Text& text, std::int64_t length);
/// Held-out sequences `first`, `first` + `stride`, `first` + 2 `stride`, ... of those; there must be as many.
void fill_held_out_batch(const Text& text, std::int64_t first, std::int64_t stride, TextBatch& batch);

}  // namespace epsim
