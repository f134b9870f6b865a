#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "workloads/scores.h"

namespace epsim {

/// How a top-k gate scores, restricts and weighs experts.
struct GateRule {
  enum class Score { softmax, sigmoid };
  enum class GroupScore { max, top2 };

  int experts = 0;
  int top_k = 0;
  Score score = Score::softmax;
  bool renormalise = true;  ///< weights are divided by their sum; of softmax, that equals a softmax over the chosen logits
  float scale = 1;
  int groups = 1, groups_kept = 1;  ///< contiguous equal groups; experts outside the best groups cannot be chosen
  GroupScore group_score = GroupScore::top2;
  std::vector<float> bias;  ///< [experts], added to the score for choosing only; empty: none
};

/// Applies the rule to tokens, whose scores lie in blocks (workloads/scores.h): ids best first, and weights, both [count][top_k]. Without a bias experts are
/// ranked as the scores are given, which is the order of sigmoid and softmax but keeps apart what their rounding makes equal; with a bias by the rounded biased
/// score. Equal ones go by lowest id, and so do groups of equal score.
/// `width` is the place, from 0, of one of the `gate_widths`; they differ in speed alone.
void apply_gate(const GateRule& rule, ScoreForm form, std::int64_t count, std::span<const float> scores, std::span<std::uint16_t> experts,
                std::span<float> weights, int width);

/// How many vector widths the gate is compiled for that this machine has; the last is the widest.
int gate_widths();

}  // namespace epsim
