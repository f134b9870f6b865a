#include "workloads/import/ours.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/npz.h"
#include "workloads/import/settle.h"

namespace epsim {
namespace {

std::string lines(const nlohmann::ordered_json& list) {
  std::string out;
  for (const auto& item : list) out += (out.empty() ? "[\n    " : ",\n    ") + item.dump();
  return out + "\n  ]";
}

/// Objects of lists, a line a layer: made for diffs and for eyes.
std::string to_text(const std::vector<std::pair<std::string, nlohmann::ordered_json>>& entries) {
  std::string out;
  for (const auto& [key, value] : entries) out += fmt::format("{}\n  \"{}\": {}", out.empty() ? "{" : ",", key, value.is_array() && value.front().is_array() ? lines(value) : value.dump());
  return out + "\n}\n";
}

}  // namespace

std::string to_trace(const Recording& recording) {
  const auto& c = std::get<RecordedChoices>(recording.data);
  const std::vector<std::int64_t> shape = {c.tokens, recording.rows, c.top_k};
  NpzWriter out;
  out.add("expert_ids", shape, std::span<const std::int32_t>(c.experts));
  if (!c.weights.empty()) out.add("expert_weights", shape, std::span<const float>(c.weights));
  if (!recording.layers.empty()) out.add("layers", {recording.rows}, std::span<const std::int32_t>(recording.layers));
  return out.bytes();
}

std::string to_loads(const Recording& recording) {
  const Matrix<std::int64_t> counts = total_counts(recording);
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  for (std::int64_t l = 0; l < counts.rows; ++l) rows.push_back(std::vector<std::int64_t>(counts.row(l).begin(), counts.row(l).end()));
  std::vector<std::pair<std::string, nlohmann::ordered_json>> entries;
  if (!recording.layers.empty()) entries.emplace_back("layers", recording.layers);
  entries.emplace_back("logical_count", std::move(rows));
  return to_text(entries);
}

std::string to_placement(const Recording& recording) {
  const auto& s = std::get<RecordedSlots>(recording.data);
  std::vector<std::pair<std::string, nlohmann::ordered_json>> entries;
  if (!recording.layers.empty()) entries.emplace_back("layers", recording.layers);
  entries.emplace_back("physical_to_logical", s.expert_of_slot);
  entries.emplace_back("first_slot", s.first_slot);
  return to_text(entries);
}

std::string to_matrix_csv(const Recording& recording, std::optional<std::int64_t> exchange) {
  const auto& t = std::get<RecordedTraffic>(recording.data);
  Matrix<std::int64_t> bytes(t.exchanges.front().rows, t.exchanges.front().columns);
  for (std::size_t x = 0; x < t.exchanges.size(); ++x)
    for (std::size_t i = 0; i < bytes.cells.size(); ++i)
      if (!exchange || *exchange == static_cast<std::int64_t>(x)) bytes.cells[i] += t.exchanges[x].cells[i];
  std::string out;
  for (std::int64_t s = 0; s < bytes.rows; ++s) out += fmt::format("{}\n", fmt::join(bytes.row(s), ","));
  return out;
}

}  // namespace epsim
