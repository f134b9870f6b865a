#include "policies/exchange/shared/lowering.h"

#include <algorithm>
#include <numeric>

#include "base/check.h"

namespace epsim::lowering {
namespace {

/// Rows of the shared expert: of each rank's own tokens, and of those that visit it.
struct SharedRows {
  std::vector<std::int64_t> own;      ///< [R]
  Matrix<std::int64_t> visitors;      ///< [experts' steps][R]

  SharedRows(const Steps& steps, const Plan& plan) : visitors(steps.experts_steps(), plan.ranks()) {
    for (const Rank r : ids<Rank>(plan.ranks())) own.push_back(plan.routing.first_token[r + 1] - plan.routing.first_token[r]);
    const Matrix<std::int64_t> visits = visits_by_rank(plan, steps.experts_steps());
    for (std::int64_t block = 0; block < visits.rows; ++block)
      for (const Rank r : ids<Rank>(plan.ranks())) {
        own[static_cast<std::size_t>(block / steps.experts_steps())] -= visits(block, r);
        visitors(block % steps.experts_steps(), r) += visits(block, r);
      }
  }
};

}  // namespace

int Steps::add(Step step) {
  list.push_back(std::move(step));
  return static_cast<int>(list.size()) - 1;
}

int Steps::add_chunks(Phase::Kind kind, Stage stage, const std::string& name, const std::function<std::vector<int>(int chunk)>& after) {
  const auto first = static_cast<int>(list.size());
  for (int c = 0; c < chunks; ++c) {
    Step step{kind, stage, chunks == 1 ? name : name + " chunk " + std::to_string(c + 1), after(c)};
    if (kind == Phase::Kind::transfer && c > 0) step.after_sent = {first + c - 1};
    add(std::move(step));
  }
  return first;
}

int Steps::add_like_experts(Phase::Kind kind, Stage stage, const std::string& name, const std::function<std::vector<int>(int chunk)>& after) {
  if (like_experts.by_chunk) return add_chunks(kind, stage, name, after);
  std::vector<int> all;
  for (int c = 0; c < chunks; ++c)
    for (const int before : after(c))
      if (std::ranges::find(all, before) == all.end()) all.push_back(before);
  return add({kind, stage, name, std::move(all)});
}

Way Steps::add_journey(std::shared_ptr<const Journey> journey, Stage stage, const std::function<std::vector<int>(int chunk)>& after) {
  const Way way{std::move(journey), static_cast<int>(list.size()), static_cast<int>(ways.size())};
  const Journey& j = *way.journey;
  const auto rounds = static_cast<int>(j.rounds.size());
  for (int c = 0; c < chunks; ++c)
    for (int r = 0; r < rounds; ++r) {
      const std::string name = j.name(std::string(name_of(stage)), r);
      Step step{Phase::Kind::transfer, stage, chunks == 1 ? name : name + " chunk " + std::to_string(c + 1), after(c), {}, j.rows_per_message, j.one_sided};
      for (const int before : j.rounds[static_cast<std::size_t>(r)].after) step.after.push_back(way.first + c * rounds + before);
      for (const int before : j.rounds[static_cast<std::size_t>(r)].after_sent) step.after_sent.push_back(way.first + c * rounds + before);
      if (c > 0) step.after_sent.push_back(way.first + (c - 1) * rounds + r);
      add(std::move(step));
    }
  ways.push_back(way);
  return way;
}

void Steps::add_kernels(const std::function<std::vector<int>(int chunk)>& after) {
  shared = add({Phase::Kind::kernel, Stage::compute, "shared expert", {}});
  experts = add_like_experts(Phase::Kind::kernel, Stage::compute, "experts", after);
}

std::vector<int> steps_from(int first, int count) {
  std::vector<int> steps(static_cast<std::size_t>(count));
  std::iota(steps.begin(), steps.end(), first);
  return steps;
}

std::vector<int> join(std::initializer_list<std::vector<int>> lists) {
  std::vector<int> all;
  for (const std::vector<int>& list : lists) all.insert(all.end(), list.begin(), list.end());
  return all;
}

void Counter::end_chunk(int chunk) {
  for (const Way& way : ways_) {
    const std::size_t rounds = way.journey->rounds.size();
    Matrix<std::int64_t>& rows = carried_[static_cast<std::size_t>(way.number)];
    way.journey->count(rows, std::span(rows_).subspan(static_cast<std::size_t>(way.first) + static_cast<std::size_t>(chunk) * rounds, rounds));
    std::fill(rows.cells.begin(), rows.cells.end(), 0);
  }
}

Chunks read_chunks(Params& p, bool several_hops) {
  Chunks chunks;
  chunks.experts = !several_hops;
  chunks.count = static_cast<int>(p.integer("chunks", several_hops ? "contiguous parts that each rank's tokens are cut in, so that one hop of a part goes beside an earlier hop of the next"
                                                                   : "contiguous parts that each rank's tokens are cut in, so that experts compute a part while others travel", 1, 1, 256));
  if (!several_hops) return chunks;
  chunks.experts = p.flag("chunk_experts", "experts compute a part as soon as it has come, reading their weights for each; otherwise they wait for all parts", false);
  if (p.usable() && p.has("chunk_experts") && chunks.count == 1) p.error("chunk_experts", "there is one part: give `chunks` too");
  return chunks;
}

Recorder::Recorder(const Steps& steps, bool shared_expert, const Plan& plan, const Counter& counts, const std::vector<bool>& wanted)
    : experts_(steps.experts), slots_(plan.placement.slots()), like_experts_(steps.like_experts), wanted_(wanted), ends_(steps.list.size()), next_input_(steps.experts_steps(), slots_ + plan.ranks()), next_sum_(steps.list.size()), rows_(wanted.size()) {
  const int ranks = plan.ranks();
  for (std::size_t r = 0; r < rows_.size(); ++r)
    if (wanted[r]) rows_[r].phases.resize(steps.list.size());
  for (std::size_t p = 0; p < steps.list.size(); ++p) {
    tables_.emplace_back();
    if (steps.list[p].kind == Phase::Kind::transfer) {
      const RowTable& table = tables_.back() = counts.rows(static_cast<int>(p));
      std::vector<std::int64_t> sent(static_cast<std::size_t>(ranks)), received(static_cast<std::size_t>(ranks));
      for (const RowTable::Entry& e : table.all()) {
        ends_[p].push_back({0, sent[e.source], received[e.destination]});
        if (wanted[e.source]) rows_[e.source].phases[p].sends.push_back({e.destination, sent[e.source], e.rows});
        if (wanted[e.destination]) rows_[e.destination].phases[p].receives.push_back({e.source, received[e.destination], e.rows});
        sent[e.source] += e.rows, received[e.destination] += e.rows;
        ensure(received[e.destination] < INT32_MAX, "a rank's rows of one phase are below 2^31");
      }
      for (std::size_t r = 0; r < rows_.size(); ++r)
        if (wanted[r]) rows_[r].phases[p].send.resize(static_cast<std::size_t>(sent[r]));
    } else if (steps.list[p].kind == Phase::Kind::reduce) {
      next_sum_[p].resize(static_cast<std::size_t>(ranks));
      for (std::size_t r = 0; r < rows_.size(); ++r)
        if (wanted[r]) rows_[r].phases[p].term_first.push_back(0);
    }
  }
  const Matrix<std::int64_t> slot_rows = copies_by_slot(plan, steps.experts_steps());
  const SharedRows shared_rows(steps, plan);
  for (Rank r : ids<Rank>(ranks)) {
    for (int step = 0; step < steps.experts_steps(); ++step) {
      std::int64_t next = 0;
      RankRows::PhaseRows* experts = wanted[r] ? &rows_[r].phases[steps.experts + step] : nullptr;
      if (experts) experts->input_first.push_back(0);
      for (std::int32_t s = plan.placement.first_slot[r]; s < plan.placement.first_slot[r + 1]; ++s) {
        next_input_(step, s) = next;
        next += slot_rows(step, s);
        if (experts && slot_rows(step, s) > 0) experts->slots.push_back(Slot(s)), experts->input_first.push_back(next);
      }
      next_input_(step, slots_ + r) = next;
      next += shared_rows.visitors(step, r);
      if (experts && shared_rows.visitors(step, r) > 0) experts->slots.push_back(Slot()), experts->input_first.push_back(next);
      if (experts) experts->input.resize(static_cast<std::size_t>(next));
    }
    if (!wanted[r]) continue;
    RankRows::PhaseRows& shared = rows_[r].phases[steps.shared];
    shared.input_first.push_back(0);
    if (!shared_expert || shared_rows.own[r] == 0) continue;
    const std::int64_t first = plan.routing.first_token[r], last = plan.routing.first_token[r + 1];
    for (std::int64_t t = first; t < last; ++t)
      if (plan.shared_rank.empty() || plan.shared_rank[static_cast<std::size_t>(t)] == r) shared.input.push_back({0, static_cast<std::int32_t>(t - first)});
    shared.slots.push_back(Slot());
    shared.input_first.push_back(shared_rows.own[r]);
  }
}

void Recorder::check(const Counter& counts) const {
  for (std::size_t p = 0; p < tables_.size(); ++p)
    for (std::size_t i = 0; i < ends_[p].size(); ++i) ensure(ends_[p][i].next == tables_[p].all()[i].rows, "a transfer has the rows that were counted");
  for (const Rank r : ids<Rank>(static_cast<std::int64_t>(rows_.size())))
    for (std::size_t p = 0; p < rows_[r].phases.size(); ++p)
      if (const RankRows::PhaseRows& mine = rows_[r].phases[p]; !mine.term_first.empty()) {
        const auto step = static_cast<int>(p);
        ensure(static_cast<std::int64_t>(mine.terms.size()) == counts.terms(step, r) && static_cast<std::int64_t>(mine.term_first.size()) - 1 == counts.sums(step)[r],
               "a reduce has the rows that were counted");
      }
}

Schedule make_schedule(const Steps& steps, const Plan& plan, const Counter& counts, const Pricing& pricing) {
  Schedule schedule;
  schedule.ranks = plan.ranks();
  const Matrix<std::int64_t> slot_rows = rows_by_slot(plan, steps.experts_steps());
  const SharedRows shared_rows(steps, plan);
  for (std::size_t p = 0; p < steps.list.size(); ++p) {
    const Step& step = steps.list[p];
    const auto index = static_cast<int>(p);
    Phase phase;
    phase.kind = step.kind, phase.stage = step.stage, phase.name = step.name, phase.after = step.after, phase.after_sent = step.after_sent;
    if (step.kind == Phase::Kind::transfer) {
      phase.rows = counts.rows(index);
      phase.row_bytes = step.stage == Stage::dispatch ? pricing.dispatch_row() : pricing.combine_row();
      phase.rows_per_message = step.rows_per_message, phase.one_sided = step.one_sided;
    } else if (step.kind == Phase::Kind::reduce) {
      phase.reduced_rows = counts.sums(index);
      for (const Rank r : ids<Rank>(plan.ranks()))
        phase.reduce_bytes.push_back(static_cast<double>(counts.terms(index, r) + phase.reduced_rows[r]) * static_cast<double>(pricing.hidden) * bytes_per_value(pricing.combine));
    } else if (const int chunk = index - steps.experts; chunk >= 0 && chunk < steps.experts_steps()) {
      for (Rank r : ids<Rank>(plan.ranks())) {
        for (std::int32_t s = plan.placement.first_slot[r]; s < plan.placement.first_slot[r + 1]; ++s)
          if (const std::int64_t rows = slot_rows(chunk, s); rows > 0) phase.kernels.push_back(expert_call(pricing, r, Slot(s), rows, pricing.expert_ffn));
        if (const std::int64_t rows = shared_rows.visitors(chunk, r); rows > 0) phase.kernels.push_back(expert_call(pricing, r, Slot(), rows, pricing.shared_ffn));
      }
    } else if (pricing.shared_ffn > 0) {
      for (Rank r : ids<Rank>(plan.ranks()))
        if (const std::int64_t rows = shared_rows.own[r]; rows > 0)
          phase.kernels.push_back(expert_call(pricing, r, Slot(), rows, pricing.shared_ffn));
    }
    schedule.phases.push_back(std::move(phase));
  }
  return schedule;
}

}  // namespace epsim::lowering
