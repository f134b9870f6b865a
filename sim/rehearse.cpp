#include "sim/rehearse.h"

#include <algorithm>

#include "base/check.h"
#include "sim/moe/two_passes.h"

namespace epsim {
namespace {

/// One thing that may be done: message `other` of those that the rank sends, kernel call `other`, or a reduce.
struct Action {
  int phase;
  Rank rank;
  std::int64_t other;
};

class Rehearsal {
 public:
  /// `tokens` are the vectors [T][width] of the plan's tokens.
  Rehearsal(const Plan& plan, const Schedule& schedule, const std::vector<RankRows>& rows, const std::vector<float>& tokens, std::int64_t width, CallWork work)
      : schedule_(schedule), rows_(rows), work_(std::move(work)), ranks_(schedule.ranks) {
    for (int r = 0; r < ranks_; ++r)
      buffers_.emplace_back(rows[r], width, std::vector<float>(tokens.begin() + plan.routing.first_token[r] * width, tokens.begin() + plan.routing.first_token[r + 1] * width));
    next_.resize(schedule.phases.size());
    for (std::size_t p = 0; p < schedule.phases.size(); ++p) {
      // What only paces (`after_sent`) is not waited for: orders without it must be right, too.
      for (const int before : schedule.phases[p].after) next_[before].push_back(static_cast<int>(p));
      blocked_.emplace_back(ranks_, static_cast<int>(schedule.phases[p].after.size()));
      left_.emplace_back(ranks_, 0);
    }
    for (std::size_t p = 0; p < schedule.phases.size(); ++p)
      for (int r = 0; r < ranks_; ++r) left_[p][r] = steps(static_cast<int>(p), Rank(r));
    for (std::size_t p = 0; p < schedule.phases.size(); ++p)
      for (Rank r : ids<Rank>(ranks_)) {
        if (schedule.phases[p].after.empty()) begin(static_cast<int>(p), r);
        if (left_[p][r] == 0) complete(static_cast<int>(p), r);  // nothing to wait for: the most that a dependency may allow
      }
  }

  std::vector<float> play(Rng& order) {
    while (!ready_.empty()) {
      std::swap(ready_[order.below(ready_.size())], ready_.back());
      const Action a = ready_.back();
      ready_.pop_back();
      perform(a);
    }
    for (std::size_t p = 0; p < left_.size(); ++p)
      for (int r = 0; r < ranks_; ++r) ensure(left_[p][r] == 0 && blocked_[p][r] == 0, "every phase of a schedule can be reached");
    std::vector<float> y;
    for (const RankBuffers& b : buffers_) {
      const auto rows = b.buffer(static_cast<int>(schedule_.phases.size()) - 1);
      y.insert(y.end(), rows.begin(), rows.end());
    }
    return y;
  }

 private:
  const RankRows::PhaseRows& rows(int phase, Rank r) const { return rows_[r].phases[static_cast<std::size_t>(phase)]; }

  /// Steps that make the phase complete on a rank: messages to it, its calls, or its one reduce.
  int steps(int phase, Rank r) const {
    const RankRows::PhaseRows& p = rows(phase, r);
    switch (schedule_.phases[static_cast<std::size_t>(phase)].kind) {
      case Phase::Kind::kernel: return static_cast<int>(p.slots.size());
      case Phase::Kind::reduce: return p.term_first.size() > 1 ? 1 : 0;
      case Phase::Kind::transfer: break;
    }
    return static_cast<int>(p.receives.size());
  }

  void begin(int phase, Rank r) {
    const RankRows::PhaseRows& p = rows(phase, r);
    if (schedule_.phases[static_cast<std::size_t>(phase)].kind == Phase::Kind::transfer) {
      for (std::size_t m = 0; m < p.sends.size(); ++m) ready_.push_back({phase, r, static_cast<std::int64_t>(m)});
    } else {
      for (int i = 0; i < steps(phase, r); ++i) ready_.push_back({phase, r, i});
    }
  }

  void complete(int phase, Rank r) {
    for (const int next : next_[static_cast<std::size_t>(phase)])
      if (--blocked_[static_cast<std::size_t>(next)][r] == 0) begin(next, r);
  }

  void finish_one(int phase, Rank r) {
    if (--left_[static_cast<std::size_t>(phase)][r] == 0) complete(phase, r);
  }

  void perform(const Action& a) {
    switch (schedule_.phases[static_cast<std::size_t>(a.phase)].kind) {
      case Phase::Kind::kernel:
        buffers_[a.rank].play_kernel(rows_[a.rank], {a.rank, a.phase, static_cast<std::size_t>(a.other), rows(a.phase, a.rank).slots[static_cast<std::size_t>(a.other)]}, work_);
        return finish_one(a.phase, a.rank);
      case Phase::Kind::reduce:
        buffers_[a.rank].play_reduce(rows_[a.rank], a.phase);
        return finish_one(a.phase, a.rank);
      case Phase::Kind::transfer: break;
    }
    const RankRows::PhaseRows& out = rows(a.phase, a.rank);
    const RankRows::PhaseRows::Message& sent = out.sends[static_cast<std::size_t>(a.other)];
    const Rank to = sent.other;
    const RankRows::PhaseRows::Message& received = rows(a.phase, to).receive_from(a.rank);
    ensure(sent.rows == received.rows, "both ends of a message count the same rows");
    const std::int64_t h = buffers_[to].hidden();
    buffers_[a.rank].gather(std::span(out.send).subspan(static_cast<std::size_t>(sent.first), static_cast<std::size_t>(sent.rows)),
                            buffers_[to].buffer(a.phase).subspan(static_cast<std::size_t>(received.first * h), static_cast<std::size_t>(received.rows * h)));
    finish_one(a.phase, to);
  }

  const Schedule& schedule_;
  const std::vector<RankRows>& rows_;
  CallWork work_;
  int ranks_;
  std::vector<RankBuffers> buffers_;
  std::vector<std::vector<int>> next_;     // [phase] phases that wait for it
  std::vector<std::vector<int>> blocked_;  // [phase][rank] dependencies not yet complete
  std::vector<std::vector<int>> left_;     // [phase][rank] steps until complete
  std::vector<Action> ready_;
};

}  // namespace

std::vector<float> rehearse(const Plan& plan, const Schedule& schedule, const std::vector<RankRows>& rows, const ExpertBank& experts, const std::vector<float>& x, Rng& order) {
  return Rehearsal(plan, schedule, rows, x, experts.hidden(), forward_work(plan.placement, experts)).play(order);
}

PlanGradients rehearse_backward(const Plan& plan, const Schedule& schedule, const std::vector<RankRows>& rows, bool shared_expert, const ExpertBank& experts, const std::vector<float>& x,
                                const std::vector<float>& r, Rng& order) {
  TwoPasses passes(plan, experts);
  Rehearsal(plan, schedule, rows, x, experts.hidden(), passes.forward()).play(order);
  std::vector<float> numbers;
  for (const Rank home : ids<Rank>(plan.ranks()))
    for (const float number : token_numbers(plan, home)) numbers.push_back(number);
  Rehearsal(plan, schedule, rows, numbers, 1, passes.number()).play(order);

  PlanGradients gradients;
  gradients.x = Rehearsal(plan, schedule, rows, r, experts.hidden(), passes.backward()).play(order);
  gradients.d_weight.resize(plan.slot.size());
  passes.write_d_weight(gradients.d_weight);
  for (const std::vector<Slot>& slots : plan.placement.slots_of_expert) {
    std::vector<std::vector<float>> parts;
    for (const Slot slot : slots) parts.push_back(passes.of_slot(slot));
    gradients.experts.push_back(add_replicas(parts));
  }
  if (shared_expert) {
    std::vector<std::vector<float>> parts;
    for (const Rank home : ids<Rank>(plan.ranks())) parts.push_back(passes.of_shared(home));
    gradients.shared = add_replicas(parts);
  }
  return gradients;
}

}  // namespace epsim
