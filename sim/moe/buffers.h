#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "policies/schedule.h"
#include "sim/moe/expert.h"

namespace epsim {

/// A kernel call in an interpreter's hands: call `call` of phase `phase` on a rank.
struct PlayedCall {
  Rank rank;
  int phase;
  std::size_t call;
  Slot slot;  ///< invalid for the shared expert
};
/// What a kernel call does: out from in, a row each.
using CallWork = std::function<void(const PlayedCall& call, std::span<const float> in, std::span<float> out)>;
/// Experts computing forwards. Both must outlive the work.
CallWork forward_work(const Placement& placement, const ExpertBank& experts);
/// The expert that a call computes with.
int expert_of(const PlayedCall& call, const Placement& placement);

/// The rows one rank holds while a schedule is played with data: buffer 0 the home tokens, then one buffer a phase. A row is NaN until somebody writes it, so a row that is read
/// too early shows in the result.
class RankBuffers {
 public:
  RankBuffers(const RankRows& rows, std::int64_t hidden, std::vector<float> home_tokens);

  std::span<const float> row(RowRef r) const;
  std::span<float> row(RowRef r);
  /// Gathers rows into consecutive memory: [refs][hidden].
  void gather(std::span<const RowRef> refs, std::span<float> out) const;
  /// Runs a kernel call: gathers its input, computes, writes its output rows.
  void play_kernel(const RankRows& rows, const PlayedCall& call, const CallWork& work);
  /// Adds up all rows of reduce phase `phase`.
  void play_reduce(const RankRows& rows, int phase);
  /// The buffer of a phase.
  std::span<float> buffer(int phase) { return buffers_[static_cast<std::size_t>(1 + phase)]; }
  std::span<const float> buffer(int phase) const { return buffers_[static_cast<std::size_t>(1 + phase)]; }
  std::int64_t hidden() const { return hidden_; }

 private:
  std::int64_t hidden_;
  std::vector<std::vector<float>> buffers_;
};

/// out = weight[0] row[0] + weight[1] row[1] + ... in this order; zeros for no terms. The one place where rows are added, so that every interpreter rounds alike.
struct WeightedRow {
  const float* row;
  float weight;
};
void add_rows(std::span<const WeightedRow> terms, std::span<float> out);

}  // namespace epsim
