#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "analysis/measure.h"

namespace epsim {

/// A value of a table: a count, a quantity or a text.
using FieldValue = std::variant<std::int64_t, double, std::string>;

/// One column of the per-layer table. Names carry their unit: `_s` seconds, `_bytes` bytes; anything else is a count or a pure number.
struct LayerField {
  std::string_view name;
  FieldValue (*value)(const LayerMetrics&);
};

/// The columns of metrics.csv and of `layers[]` in metrics.json, in order.
const std::vector<LayerField>& layer_fields();

/// Batches after which moves have paid for themselves; "never" where they do not, empty where none had to.
FieldValue break_even_field(const BreakEven& break_even);

/// How far to trust each group of figures, as (group, label) in a fixed order. Labels begin with "exact", "bound", "modelled, calibrated by parts" or "modelled, assumed".
std::vector<std::pair<std::string, std::string>> trust(const Experiment& experiment);

/// One RFC 4180 field: quoted where it must be.
std::string csv_field(const FieldValue& value);

}  // namespace epsim
