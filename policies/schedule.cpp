#include "policies/schedule.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"

namespace epsim {
namespace {

Bytes row_of(std::int64_t values, Precision precision, Bytes extra) {
  return static_cast<Bytes>(std::ceil(static_cast<double>(values) * bytes_per_value(precision))) + extra;
}

}  // namespace

std::string_view name_of(Stage stage) {
  switch (stage) {
    case Stage::dispatch: return "dispatch";
    case Stage::compute: return "compute";
    case Stage::combine: return "combine";
  }
  return "";
}

Bytes Pricing::dispatch_row() const { return row_of(hidden, dispatch, dispatch_extra); }
Bytes Pricing::combine_row() const { return row_of(hidden, combine, combine_extra); }

KernelCall expert_call(const Pricing& pricing, Rank rank, Slot slot, std::int64_t rows, std::int64_t ffn) {
  const double values = static_cast<double>(pricing.hidden) * static_cast<double>(ffn) * pricing.expert_matrices;
  const double io = static_cast<double>(pricing.hidden) * (bytes_per_value(pricing.dispatch) + bytes_per_value(pricing.combine)) + 4.0 * static_cast<double>(ffn);
  return {rank, slot, rows, 2 * values * static_cast<double>(rows), values * bytes_per_value(pricing.weights), io * static_cast<double>(rows)};
}

const RankRows::PhaseRows::Message& RankRows::PhaseRows::receive_from(Rank source) const {
  const auto at = std::lower_bound(receives.begin(), receives.end(), source.value, [](const Message& m, std::int32_t s) { return m.other < s; });
  ensure(at != receives.end() && at->other == source, "both ends of a message know of it");
  return *at;
}

std::int64_t RankRows::buffer_rows(std::size_t phase) const {
  const PhaseRows& p = phases[phase];
  if (!p.receives.empty()) return p.receives.back().first + p.receives.back().rows;
  if (!p.term_first.empty()) return static_cast<std::int64_t>(p.term_first.size()) - 1;
  return static_cast<std::int64_t>(p.input.size());
}

}  // namespace epsim
