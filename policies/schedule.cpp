#include "policies/schedule.h"

#include <cmath>

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

std::int64_t RankRows::buffer_rows(std::size_t phase) const {
  const PhaseRows& p = phases[phase];
  if (!p.receive_first.empty()) return p.receive_first.back();
  if (!p.term_first.empty()) return static_cast<std::int64_t>(p.term_first.size()) - 1;
  return static_cast<std::int64_t>(p.input.size());
}

}  // namespace epsim
