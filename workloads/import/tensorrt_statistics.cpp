#include <fmt/format.h>

#include <cmath>
#include <map>

#include "base/npz.h"
#include "base/units.h"
#include "workloads/import/formats.h"
#include "workloads/import/json_tree.h"
#include "workloads/import/safetensors.h"

namespace epsim {
namespace {

using StepLayer = std::pair<std::int64_t, std::int64_t>;

/// "12_3": iteration 12, layer 3. Other keys hold something else.
std::optional<StepLayer> parse_key(const std::string& key) {
  const std::size_t bar = key.find('_');
  if (bar == std::string::npos || bar == 0 || bar > 12 || key.size() - bar > 8) return {};
  if (key.find_first_not_of("0123456789_") != std::string::npos || key.find('_', bar + 1) != std::string::npos || bar + 1 == key.size()) return {};
  return StepLayer{*parse_integer(key.substr(0, bar)), *parse_integer(key.substr(bar + 1))};
}

class Collector {
 public:
  void add(const std::shared_ptr<const SourceText>& file) {
    const std::size_t first = file->text.find_first_not_of(" \t\r\n");
    if (file->text.starts_with("PK"))
      for (const auto& [name, array] : read_npz(file)) add(file, name, array);
    else if (first != std::string::npos && file->text[first] == '{')
      add_json(file);
    else
      for (const auto& [name, array] : read_safetensors(file)) add(file, name, array);
    ++files_;
  }

  Recording done(const std::shared_ptr<const SourceText>& file) {
    if (counts_.empty()) throw InputError({file}, "has no counts under keys such as `0_3` (iteration_layer)");
    std::map<std::int64_t, std::int64_t> rows, steps;
    for (const auto& [key, row] : counts_) steps.emplace(key.first, 0), rows.emplace(key.second, 0);
    Recording out;
    for (auto& [layer, row] : rows) row = out.rows++, out.layers.push_back(static_cast<int>(layer));
    check_size({file}, static_cast<std::int64_t>(steps.size()), out.rows, experts_);
    RecordedCounts data;
    for (auto& [step, at] : steps) {
      at = static_cast<std::int64_t>(data.steps.size());
      data.steps.emplace_back(out.rows, experts_);
    }
    for (const auto& [key, row] : counts_) std::ranges::copy(row, data.steps[static_cast<std::size_t>(steps[key.first])].row(rows[key.second]).begin());
    if (counts_.size() != rows.size() * steps.size())
      out.warnings.push_back(fmt::format("{} of {} (iteration, layer) pairs are missing and count as 0", rows.size() * steps.size() - counts_.size(), rows.size() * steps.size()));
    if (left_out_ > 0) out.warnings.push_back(fmt::format("{} arrays are no counts by iteration and layer and are left out", left_out_));
    out.found = fmt::format("TensorRT-LLM expert statistics of {} iterations in {} files", steps.size(), files_);
    out.experts = static_cast<int>(experts_);
    out.data = std::move(data);
    return out;
  }

 private:
  void add_json(const std::shared_ptr<const SourceText>& file) {
    const JsonReader r(file);
    const Json root = parse_json(file);
    if (const Json* experts = root.find("num_experts")) fits(locate(file, experts->offset), r.whole(*experts, "num_experts", 1, kMostExperts));
    for (const auto& [name, value] : root.entries) {
      const auto key = parse_key(name);
      if (key) merge(locate(file, value.offset), *key, r.wholes(value, name, 0, kMostRecordedCount));
    }
  }

  void add(const std::shared_ptr<const SourceText>& file, const std::string& name, const NpyArray& a) {
    const auto key = parse_key(name);
    if (!key || a.shape.size() != 1) {
      ++left_out_;
      return;
    }
    std::vector<std::int64_t> row = a.integers;
    for (const double x : a.floats) row.push_back(x >= 0 && x <= 0x1p40 && x == std::floor(x) ? static_cast<std::int64_t>(x) : -1);
    for (const std::int64_t n : row)
      if (n < 0 || n > kMostRecordedCount) throw InputError({file}, fmt::format("array `{}` holds something that is no count", name));
    merge({file}, *key, row);
  }

  void merge(const Location& at, const StepLayer& key, const std::vector<std::int64_t>& row) {
    fits(at, static_cast<std::int64_t>(row.size()));
    std::vector<std::int64_t>& sum = counts_[key];
    sum.resize(row.size());
    for (std::size_t e = 0; e < row.size(); ++e) sum[e] += row[e];
  }

  void fits(const Location& at, std::int64_t experts) {
    if (experts_ == 0) experts_ = experts;
    if (experts != experts_ || experts < 1 || experts > kMostExperts) throw InputError(at, fmt::format("{} experts are counted, others have {}", experts, experts_));
  }

  std::map<StepLayer, std::vector<std::int64_t>> counts_;
  std::int64_t experts_ = 0, left_out_ = 0, files_ = 0;
};

}  // namespace

Recording read_tensorrt_statistics(const SourceFiles& files, const ImportOptions&) {
  Collector all;
  for (const auto& file : files) all.add(file);
  return all.done(files.front());
}

}  // namespace epsim
