#include "sim/moe/buffers.h"

#include <algorithm>
#include <limits>

namespace epsim {

int expert_of(const PlayedCall& call, const Placement& placement) { return call.slot.valid() ? placement.expert_of_slot[call.slot] : kSharedExpert; }

CallWork forward_work(const Placement& placement, const ExpertBank& experts) {
  return [&](const PlayedCall& call, std::span<const float> in, std::span<float> out) { experts.forward(expert_of(call, placement), in, out); };
}

RankBuffers::RankBuffers(const RankRows& rows, std::int64_t hidden, std::vector<float> home_tokens) : hidden_(hidden) {
  buffers_.push_back(std::move(home_tokens));
  for (std::size_t p = 0; p < rows.phases.size(); ++p)
    buffers_.emplace_back(static_cast<std::size_t>(rows.buffer_rows(p) * hidden), std::numeric_limits<float>::quiet_NaN());
}

std::span<const float> RankBuffers::row(RowRef r) const {
  return {buffers_[static_cast<std::size_t>(r.buffer)].data() + r.row * hidden_, static_cast<std::size_t>(hidden_)};
}

std::span<float> RankBuffers::row(RowRef r) { return {buffers_[static_cast<std::size_t>(r.buffer)].data() + r.row * hidden_, static_cast<std::size_t>(hidden_)}; }

void RankBuffers::gather(std::span<const RowRef> refs, std::span<float> out) const {
  for (std::size_t i = 0; i < refs.size(); ++i) std::ranges::copy(row(refs[i]), out.begin() + static_cast<std::ptrdiff_t>(i) * hidden_);
}

void RankBuffers::play_kernel(const RankRows& rows, const PlayedCall& call, const CallWork& work) {
  const RankRows::PhaseRows& p = rows.phases[static_cast<std::size_t>(call.phase)];
  const std::int64_t first = p.input_first[call.call], n = p.input_first[call.call + 1] - first;
  std::vector<float> in(static_cast<std::size_t>(n * hidden_));
  gather(std::span(p.input).subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(n)), in);
  work(call, in, buffer(call.phase).subspan(static_cast<std::size_t>(first * hidden_), in.size()));
}

void RankBuffers::play_reduce(const RankRows& rows, int phase) {
  const RankRows::PhaseRows& p = rows.phases[static_cast<std::size_t>(phase)];
  std::vector<WeightedRow> terms;
  for (std::size_t i = 0; i + 1 < p.term_first.size(); ++i) {
    terms.clear();
    for (std::int64_t t = p.term_first[i]; t < p.term_first[i + 1]; ++t) terms.push_back({row(p.terms[t].row).data(), p.terms[t].weight});
    add_rows(terms, row({1 + phase, static_cast<std::int32_t>(i)}));
  }
}

void add_rows(std::span<const WeightedRow> terms, std::span<float> out) {
  if (terms.empty()) {
    std::ranges::fill(out, 0.0F);
    return;
  }
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = terms[0].weight * terms[0].row[i];
  for (const WeightedRow& term : terms.subspan(1))
    for (std::size_t i = 0; i < out.size(); ++i) out[i] += term.weight * term.row[i];
}

}  // namespace epsim
