#include "policies/compression_file.h"

#include <algorithm>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "workloads/import/json_tree.h"
#include "workloads/import/recording.h"

namespace epsim {
namespace {

ExpertMap read_map(const JsonReader& r, const Json& row) {
  const std::vector<std::int64_t> becomes = r.wholes(row, "becomes", -1, kMostExperts - 1);
  ExpertMap map;
  std::vector<bool> made(becomes.size());
  for (const std::int64_t e : becomes) {
    if (e >= std::ssize(becomes)) r.fail(row, fmt::format("an expert becomes {}, a layer has {}", e, becomes.size()));
    map.to.push_back(e < 0 ? kNoExpert : static_cast<std::uint16_t>(e));
    if (e >= 0) made[static_cast<std::size_t>(e)] = true, map.experts = std::max(map.experts, static_cast<int>(e) + 1);
  }
  if (map.experts == 0) r.fail(row, "a layer must be left with an expert");
  if (const auto missing = std::ranges::find(made, false); missing - made.begin() < map.experts) r.fail(row, fmt::format("no expert becomes {}, but one becomes {}", missing - made.begin(), map.experts - 1));
  return map;
}

}  // namespace

CompressionFile read_compression(const std::shared_ptr<const SourceText>& file) {
  const JsonReader r(file);
  const Json root = parse_json(file);
  const Json &layers = r.member(root, "layers"), &becomes = r.list(r.member(root, "becomes"), "becomes");
  CompressionFile out;
  for (const std::int64_t l : r.wholes(layers, "layers", 0, 1'000'000)) {
    if (std::ranges::find(out.layers, l) != out.layers.end()) r.fail(layers, fmt::format("`layers` names layer {} twice", l));
    out.layers.push_back(static_cast<int>(l));
  }
  if (becomes.items.empty() || becomes.items.size() != out.layers.size()) r.fail(becomes, fmt::format("`layers` names {} layers, `becomes` has {} lists of experts", out.layers.size(), becomes.items.size()));
  for (const Json& row : becomes.items) {
    out.maps.push_back(read_map(r, row));
    const ExpertMap &first = out.maps.front(), &now = out.maps.back();
    if (now.to.size() != first.to.size() || now.experts != first.experts || now.pruned() != first.pruned())
      r.fail(row, fmt::format("{} experts, of which {} are left and {} pruned, but in the first layer {}, {} and {}: layers must agree", now.to.size(), now.experts, now.pruned(), first.to.size(), first.experts, first.pruned()));
  }
  if (const Json* skip = root.find("skip_below")) {
    r.list(*skip, "skip_below");
    if (skip->numbers.size() != out.maps.size()) r.fail(*skip, fmt::format("`skip_below` must be a number for each of the {} layers", out.maps.size()));
    for (std::size_t l = 0; l < out.maps.size(); ++l) {
      if (!(skip->numbers[l] >= 0 && skip->numbers[l] <= 1)) r.fail(*skip, "`skip_below` holds shares from 0 to 1");
      out.maps[l].skip_below = skip->numbers[l];
    }
  }
  return out;
}

std::string to_json(const CompressionFile& compression) {
  std::vector<std::string> rows;
  std::vector<double> skip;
  for (const ExpertMap& map : compression.maps) {
    std::vector<int> row;
    for (const std::uint16_t e : map.to) row.push_back(e == kNoExpert ? -1 : e);
    rows.push_back(fmt::format("[{}]", fmt::join(row, ", ")));
    skip.push_back(map.skip_below);
  }
  std::string out = fmt::format("{{\n  \"layers\": [{}],\n  \"becomes\": [\n    {}\n  ]", fmt::join(compression.layers, ", "), fmt::join(rows, ",\n    "));
  if (std::ranges::any_of(skip, [](double s) { return s > 0; })) out += fmt::format(",\n  \"skip_below\": [{}]", fmt::join(skip, ", "));
  return out + "\n}\n";
}

}  // namespace epsim
