#include "sim/train/text.h"

#include <algorithm>

#include "base/check.h"
#include "base/rng.h"

namespace epsim {
namespace {

void append(const std::vector<std::uint8_t>& text, std::int64_t first, TextBatch& batch) {
  ensure(first >= 0 && first + batch.length < static_cast<std::int64_t>(text.size()), "a sequence lies inside its text");
  batch.bytes.insert(batch.bytes.end(), text.begin() + first, text.begin() + first + batch.length + 1);
}

}  // namespace

Text split_text(const std::string& bytes, double held_out_share) {
  const auto cut = static_cast<std::ptrdiff_t>(bytes.size()) - static_cast<std::ptrdiff_t>(static_cast<double>(bytes.size()) * held_out_share);
  return {{bytes.begin(), bytes.begin() + cut}, {bytes.begin() + cut, bytes.end()}};
}

void fill_training_batch(const Text& text, int step, TextBatch& batch) {
  batch.bytes.clear();
  batch.first_token = step * batch.tokens();
  for (std::int64_t s = 0; s < batch.sequences; ++s) {
    Rng rng(batch.seed, Stream::vectors, static_cast<std::uint64_t>(step * batch.sequences + s));
    append(text.train, static_cast<std::int64_t>(rng.below(text.train.size() - static_cast<std::size_t>(batch.length))), batch);
  }
}

std::int64_t held_out_sequences(const Text& text, std::int64_t length) { return text.held_out.empty() ? 0 : (static_cast<std::int64_t>(text.held_out.size()) - 1) / length; }

void fill_held_out_batch(const Text& text, std::int64_t first, std::int64_t stride, TextBatch& batch) {
  batch.bytes.clear();
  batch.first_token = first * batch.length;
  for (std::int64_t s = 0; s < batch.sequences; ++s) append(text.held_out, (first + s * stride) * batch.length, batch);
}

}  // namespace epsim
