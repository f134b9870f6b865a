#pragma once
#include "workloads/import/recording.h"
#include "workloads/model.h"

namespace epsim {

/// How a recording is made fit for use.
struct SettleOptions {
  const Model* model = nullptr;  ///< that it must fit; null: not known
  std::int64_t skip = 0;         ///< leading steps of counts, or tokens of choices, to leave out
  bool drop_bad_tokens = false;  ///< leave out tokens with ids out of range or twice; without it they are errors
};

/// What there is to say about a recording: facts, and what looks wrong but can be used.
struct ImportReport {
  std::vector<std::string> facts, warnings;
};

/// Checks a recording and makes it fit for use: leaves out padding, layers without counts and what `options` say, gives layers their model indices where the model tells them, fixes the number of experts.
/// What cannot be right is an InputError at `file`: ids out of range, experts twice in a token, experts without a slot, sizes that are not the model's.
ImportReport settle(Recording& recording, const Location& file, const SettleOptions& options);

/// Expert counts over all steps or tokens: [rows][experts].
Matrix<std::int64_t> total_counts(const Recording& recording);

}  // namespace epsim
