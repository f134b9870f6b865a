#include "policies/exchange/shared/lowering.h"

#include "base/check.h"

namespace epsim::lowering {

Recorder::Recorder(const std::vector<Step>& steps, int experts_step, int shared_step, bool shared_expert, const Plan& plan, const Counter& counts,
                   const std::vector<bool>& wanted)
    : experts_(experts_step), wanted_(wanted), next_input_(plan.placement.slots()), rows_(wanted.size()) {
  const int ranks = plan.ranks();
  const std::vector<std::int64_t> slot_rows = plan.copies_of_slot();
  for (std::size_t p = 0; p < steps.size(); ++p) {
    const bool transfer = steps[p].kind == Phase::Kind::transfer;
    next_row_.emplace_back(transfer ? ranks : 0, ranks);
    next_sum_.emplace_back(ranks);
    for (Rank r : ids<Rank>(ranks)) {
      if (!wanted[r]) continue;
      RankRows::PhaseRows& mine = rows_[r].phases.emplace_back();
      if (transfer) {
        const Matrix<std::int64_t>& n = counts.rows(static_cast<int>(p));
        mine.send_first.push_back(0), mine.receive_first.push_back(0);
        for (int o = 0; o < ranks; ++o) {
          mine.send_first.push_back(mine.send_first.back() + (o == r ? 0 : n(r, o)));
          mine.receive_first.push_back(mine.receive_first.back() + (o == r ? 0 : n(o, r)));
        }
        ensure(mine.receive_first.back() < INT32_MAX, "a rank's rows of one phase are below 2^31");
        mine.send.resize(static_cast<std::size_t>(mine.send_first.back()));
      } else if (steps[p].kind == Phase::Kind::reduce) {
        mine.term_first.push_back(0);
      }
    }
  }
  for (Rank r : ids<Rank>(ranks)) {
    std::int64_t next = 0;
    RankRows::PhaseRows* experts = wanted[r] ? &rows_[r].phases[experts_step] : nullptr;
    if (experts) experts->input_first.push_back(0);
    for (std::int32_t s = plan.placement.first_slot[r]; s < plan.placement.first_slot[r + 1]; ++s) {
      next_input_[s] = next;
      next += slot_rows[s];
      if (experts && slot_rows[s] > 0) experts->slots.push_back(Slot(s)), experts->input_first.push_back(next);
    }
    if (!experts) continue;
    experts->input.resize(static_cast<std::size_t>(next));
    const std::int64_t home_rows = plan.routing.first_token[r + 1] - plan.routing.first_token[r];
    RankRows::PhaseRows& shared = rows_[r].phases[shared_step];
    shared.input_first.push_back(0);
    if (!shared_expert || home_rows == 0) continue;
    for (std::int64_t i = 0; i < home_rows; ++i) shared.input.push_back({0, static_cast<std::int32_t>(i)});
    shared.slots.push_back(Slot());
    shared.input_first.push_back(home_rows);
  }
}

void Recorder::check(const Counter& counts) const {
  for (std::size_t p = 0; p < next_row_.size(); ++p)
    for (std::int64_t s = 0; s < next_row_[p].rows; ++s)
      for (std::int64_t d = 0; d < next_row_[p].columns; ++d)
        ensure(s == d || next_row_[p](s, d) == counts.rows(static_cast<int>(p))(s, d), "a transfer has the rows that were counted");
  for (std::size_t r = 0; r < rows_.size(); ++r)
    for (std::size_t p = 0; p < rows_[r].phases.size(); ++p)
      if (const RankRows::PhaseRows& mine = rows_[r].phases[p]; !mine.term_first.empty())
        ensure(static_cast<std::int64_t>(mine.terms.size() + mine.term_first.size()) - 1 == counts.reduced(static_cast<int>(p))[r], "a reduce has the rows that were counted");
}

Schedule make_schedule(const std::vector<Step>& steps, int experts_step, int shared_step, const Plan& plan, Counter counts, const Pricing& pricing) {
  Schedule schedule;
  schedule.ranks = plan.ranks();
  // Activations are read in the format they were dispatched in and written in the one they return in; the inner vectors are written and read once each in 2 bytes.
  const auto call = [&](Rank rank, Slot slot, std::int64_t rows, std::int64_t ffn) {
    const double values = static_cast<double>(pricing.hidden) * static_cast<double>(ffn) * pricing.expert_matrices;
    const double io = static_cast<double>(pricing.hidden) * (bytes_per_value(pricing.dispatch) + bytes_per_value(pricing.combine)) + 4.0 * static_cast<double>(ffn);
    return KernelCall{rank, slot, rows, 2 * values * static_cast<double>(rows), values * bytes_per_value(pricing.weights), io * static_cast<double>(rows)};
  };
  const std::vector<std::int64_t> slot_rows = plan.copies_of_slot();
  for (std::size_t p = 0; p < steps.size(); ++p) {
    const Step& step = steps[p];
    Phase phase{step.kind, step.stage, step.name, step.after, {}, 0, {}, {}};
    if (step.kind == Phase::Kind::transfer) {
      phase.rows = std::move(counts.rows(static_cast<int>(p)));
      phase.row_bytes = step.stage == Stage::dispatch ? pricing.dispatch_row() : pricing.combine_row();
    } else if (step.kind == Phase::Kind::reduce) {
      for (const std::int64_t rows : counts.reduced(static_cast<int>(p)))
        phase.reduce_bytes.push_back(static_cast<double>(rows) * static_cast<double>(pricing.hidden) * bytes_per_value(pricing.combine));
    } else if (static_cast<int>(p) == experts_step) {
      for (Rank r : ids<Rank>(plan.ranks()))
        for (std::int32_t s = plan.placement.first_slot[r]; s < plan.placement.first_slot[r + 1]; ++s)
          if (slot_rows[s] > 0) phase.kernels.push_back(call(r, Slot(s), slot_rows[s], pricing.expert_ffn));
    } else if (static_cast<int>(p) == shared_step && pricing.shared_ffn > 0) {
      for (Rank r : ids<Rank>(plan.ranks()))
        if (const std::int64_t rows = plan.routing.first_token[r + 1] - plan.routing.first_token[r]; rows > 0)
          phase.kernels.push_back(call(r, Slot(), rows, pricing.shared_ffn));
    }
    schedule.phases.push_back(std::move(phase));
  }
  return schedule;
}

}  // namespace epsim::lowering
