#pragma once
#include <string>
#include <vector>

#include "base/params.h"
#include "policies/router/shared/weighing.h"

namespace epsim {

/// What gates that take the largest scores have in common.
struct TopkGate {
  Weighing weighing;
  std::string bias_file;               ///< that the setting `bias` names
  std::vector<float> bias;             ///< [E] added to scores for choosing only; empty: none
  int groups = 1, groups_kept = 1;     ///< contiguous equal groups, of which a token may use some
  int group_best = 2;                  ///< experts whose scores make a group's
  bool masked_zero = false;            ///< experts of other groups have score 0, not none at all
  double jitter = 0, noise = 0;        ///< in training: logits times U(1 - jitter, 1 + jitter), and plus N(0, noise)
};

/// Reads the settings of scores and weights; `scores` are the names of scores that there are, the first of them the default.
TopkGate read_topk(Params& p, const std::vector<std::string>& scores);
/// Refuses more choices than experts.
void check_top_k(Params& p, const Shape* shape);
/// Reads the array `bias` [experts] of the gate's file, where it has one.
void read_bias(TopkGate& gate, Params& p, int experts);
/// The scores that one token's experts are chosen by: those of `gate`, of logits that have their noise.
void selection_scores(const TopkGate& gate, std::span<const float> logits, std::span<const float> bias, std::span<double> scores);
/// Logits with jitter and noise, in training; null without either.
LogitsOf noisy_logits(double jitter, double noise);
/// Fills in a router: the fast way where the gate has one, and the general one.
void make_topk(Router& router, TopkGate gate, int experts, int top_k);

}  // namespace epsim
