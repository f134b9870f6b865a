#include "workloads/source/shared/file.h"

#include <fmt/format.h>

#include <algorithm>

namespace epsim {

std::vector<std::pair<int, std::int64_t>> rows_by_position(Params& params, const SourceContext& context, std::int64_t rows, bool repeat,
                                                           const std::string& what) {
  std::vector<std::pair<int, std::int64_t>> out;
  const auto moe_layers = static_cast<std::int64_t>(context.moe_layers.size());
  if (rows > moe_layers) {
    params.error("file", fmt::format("{} has {} layers, the model has {} MoE layers", what, rows, moe_layers));
    return out;
  }
  for (int layer : context.layers) {
    const auto position = std::find(context.moe_layers.begin(), context.moe_layers.end(), layer) - context.moe_layers.begin();
    if (position >= rows && !repeat) {
      params.error(
          "file",
          fmt::format("{} has {} layers, but layer {} is number {} of the model's {} MoE layers; set `repeat: true` to use them again, or run fewer `layers`",
                      what, rows, layer, position + 1, moe_layers));
      return out;
    }
    out.emplace_back(layer, position % rows);
  }
  return out;
}

std::vector<std::pair<int, std::int64_t>> rows_by_name(Params& params, const SourceContext& context, const std::vector<int>& layers, const std::string& what) {
  std::vector<std::pair<int, std::int64_t>> out;
  for (const int layer : context.layers) {
    const auto row = std::find(layers.begin(), layers.end(), layer);
    if (row == layers.end()) params.error("file", fmt::format("{} has no layer {}; run only `layers` that it has, or set `repeat: true`", what, layer));
    out.emplace_back(layer, row - layers.begin());
  }
  return out;
}

void report_file(Params& params, const InputError& error) {
  for (const Diagnostic& d : error.problems()) {
    const std::string place = !d.at.source     ? ""
                              : d.at.line == 0 ? d.at.source->name + ": "
                                               : fmt::format("{}:{}:{}: ", d.at.source->name, d.at.line, d.at.column);
    params.error("file", place + d.message);
  }
}

}  // namespace epsim
