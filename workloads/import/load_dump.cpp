#include "workloads/import/load_dump.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "workloads/import/json_text.h"

namespace epsim {
namespace {

constexpr std::int64_t kMostTokens = std::int64_t{1} << 40;  // sums of 65,536 of them still fit

nlohmann::json parse(const std::shared_ptr<const SourceText>& file) {
  try {
    return nlohmann::json::parse(file->text);
  } catch (const nlohmann::json::parse_error& e) {
    throw InputError(locate(file, e.byte > 0 ? e.byte - 1 : 0), "not valid JSON");
  } catch (const nlohmann::json::exception&) {  // what it refuses without a place: numbers like 1e999
    throw InputError({file, 0, 0}, "not usable JSON: a number is out of range");
  }
}

std::string step(std::size_t i) { return std::to_string(i); }

}  // namespace

LoadDump read_load_dump(std::shared_ptr<const SourceText> file) {
  const nlohmann::json json = parse(file);
  LoadDump dump;
  if (!json.is_object() || !json.contains("logical_count"))
    throw InputError(json_location(file, {}), "expected an object with `logical_count` [[layer][expert]]");
  const nlohmann::json& counts = json["logical_count"];
  if (!counts.is_array() || counts.empty() || !counts[0].is_array() || counts[0].empty() || counts[0].size() > 65535)
    throw InputError(json_location(file, {"logical_count"}), "`logical_count` must be a list of layers, each a list of 1 to 65535 expert counts");
  Diagnostics problems;
  for (std::size_t l = 0; l < counts.size() && problems.size() < 20; ++l) {
    std::vector<std::int64_t>& row = dump.logical_count.emplace_back();
    if (!counts[l].is_array() || counts[l].size() != counts[0].size()) {
      problems.add(json_location(file, {"logical_count", step(l)}),
                   fmt::format("`logical_count[{}]` must be a list of {} counts, as long as the first", l, counts[0].size()));
      continue;
    }
    for (std::size_t e = 0; e < counts[l].size() && problems.size() < 20; ++e) {
      const nlohmann::json& c = counts[l][e];
      const bool whole = c.is_number_integer() && !(c.is_number_unsigned() && c.get<std::uint64_t>() > static_cast<std::uint64_t>(kMostTokens));
      if (const std::int64_t n = whole ? c.get<std::int64_t>() : -1; n >= 0 && n <= kMostTokens)
        row.push_back(n);
      else
        problems.add(json_location(file, {"logical_count", step(l), step(e)}),
                     fmt::format("`logical_count[{}][{}]` must be a count of tokens from 0 to 2^40", l, e));
    }
  }
  if (json.contains("layers") && !json["layers"].is_null()) {
    const nlohmann::json& layers = json["layers"];
    if (!layers.is_array() || layers.size() != counts.size())
      problems.add(json_location(file, {"layers"}),
                   fmt::format("`layers` must be a list of {} layer numbers, one for each row of `logical_count`", counts.size()));
    else
      for (std::size_t l = 0; l < layers.size(); ++l) {
        const bool whole = layers[l].is_number_unsigned() && layers[l].get<std::uint64_t>() <= 100'000;
        const int layer = whole ? layers[l].get<int>() : -1;
        if (!whole) problems.add(json_location(file, {"layers", step(l)}), fmt::format("`layers[{}]` must be a layer number", l));
        if (whole && std::find(dump.layers.begin(), dump.layers.end(), layer) != dump.layers.end())
          problems.add(json_location(file, {"layers", step(l)}), fmt::format("layer {} is there twice", layer));
        dump.layers.push_back(layer);
      }
  }
  problems.check();
  return dump;
}

}  // namespace epsim
