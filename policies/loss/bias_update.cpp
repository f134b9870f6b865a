#include "policies/loss.h"

namespace epsim::parts_loss {

/// Balance without a loss (Wang et al. 2024; DeepSeek-V3): after each step an expert's bias, which only chooses, rises by `rate` where it was chosen by fewer tokens than the mean and falls where by more.
/// Megatron-LM counts after drops.
Loss bias_update(Params& p, const Shape*) {
  Loss loss;
  loss.summary = "no loss, but a bias for choosing that rises and falls by a fixed rate with each expert's load (DeepSeek-V3, Megatron-LM)";
  const double rate = p.number("rate", "step of the bias; 1e-3 in DeepSeek-V3 and Megatron-LM", 1e-3);
  const bool kept = p.choice("count", "choices that count: those that were kept (Megatron-LM), or all", {"kept", "all"}, "kept") == "kept";
  if (!p.usable()) return loss;
  loss.value = [](const LossBatch&, std::span<float>) { return 0.0; };
  loss.next_bias = [rate, kept](const LossBatch& batch, std::span<const float> bias) {
    std::vector<std::int64_t> counts(static_cast<std::size_t>(batch.gate.experts));
    for (std::size_t i = 0; i < batch.routed.expert.size(); ++i)
      if (batch.routed.expert[i] >= 0 && (!kept || batch.routed.kept[i])) ++counts[static_cast<std::size_t>(batch.routed.expert[i])];
    return updated_bias(counts, bias, rate);
  };
  return loss;
}

}  // namespace epsim::parts_loss
