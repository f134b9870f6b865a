#pragma once
#include <map>
#include <tuple>

#include "sim/moe/buffers.h"
#include "sim/moe/expert_rows.h"

namespace epsim {

/// The experts of some ranks in both passes of a planned layer. An interpreter plays one schedule three times: with x and `forward`, with `token_numbers` and `number`, which tells whose rows a call's rows are,
/// and with the gradients of y and `backward`.
class TwoPasses {
 public:
  /// Whole numbers that float32 tells apart.
  static constexpr std::int64_t kMostTokens = std::int64_t{1} << 24;

  /// Plan and experts, packed for both passes, must outlive this.
  TwoPasses(const Plan& plan, const ExpertBank& experts) : plan_(plan), experts_(experts) {}

  /// What a call does in each play. The functions point at this.
  CallWork forward(), number(), backward();

  /// After all three: the gradients of an expert's w1, w3 and w2 from the rows of one slot, or of the shared expert's from the tokens a rank computes.
  std::vector<float> of_slot(Slot slot) const;
  std::vector<float> of_shared(Rank rank) const;
  /// Writes the gradients of the weights of the choices that were computed here to their places in [T][k].
  void write_d_weight(std::span<float> d_weight) const;

 private:
  struct Kept {
    Slot slot;
    ExpertRows rows;
  };
  Kept& kept(const PlayedCall& call) { return calls_[{call.rank, call.phase, call.call}]; }

  const Plan& plan_;
  const ExpertBank& experts_;
  std::map<std::tuple<std::int32_t, int, std::size_t>, Kept> calls_;  // by rank, phase and call
};

/// The numbers of a rank's tokens, as rows of one number.
std::vector<float> token_numbers(const Plan& plan, Rank rank);

}  // namespace epsim
