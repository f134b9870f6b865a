#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "base/units.h"
#include "workloads/import/formats.h"
#include "workloads/import/json_tree.h"

namespace epsim {
namespace {

constexpr std::int64_t kMostTokens = std::int64_t{1} << 28;  // bundles are unpacked

struct Bundle {
  std::vector<std::int32_t> experts;
  std::int64_t count = 0;
};
using Sources = std::map<std::int64_t, std::vector<Bundle>>;  // by source rank

/// "model.layers.12.mlp.gate" or 12.
std::int64_t layer_of(const JsonReader& r, const Json& record) {
  if (const Json* layer = record.find("layer")) return r.whole(*layer, "layer", 0, 1'000'000);
  const Json& gate = r.member(record, "gate");
  if (gate.kind == Json::Kind::number) return r.whole(gate, "gate", 0, 1'000'000);
  const std::size_t digits = gate.text.find_first_of("0123456789");
  const std::size_t end = std::min(gate.text.find_first_not_of("0123456789", std::min(digits, gate.text.size())), gate.text.size());
  if (digits == std::string::npos || end - digits > 6) r.fail(gate, "`gate` names no layer, such as `model.layers.12.mlp.gate`");
  return *parse_integer(gate.text.substr(digits, end - digits));
}

class Collector {
 public:
  void add(const std::shared_ptr<const SourceText>& file) {
    const JsonReader r(file);
    // One object over several lines is the whole trace; lines of objects are bundles.
    const std::size_t end = file->text.find('\n');
    const std::size_t layers = file->text.find("\"layers\"");
    if (layers != std::string::npos && (file->text.find("\"topk_experts\"") > layers || end == std::string::npos)) {
      const Json root = parse_json(file);
      for (const Json& layer : r.list(r.member(root, "layers"), "layers").items) add_layer(r, layer);
    } else {
      for_each_json_line(file, [&](const Json& record) {
        if (!record.find("topk_experts") && record.find("format")) return;  // a line about the trace
        const Json* count = record.find("count");
        add(r, record, layer_of(r, record), r.whole_member(record, "source_rank", 0, 1'000'000),
            r.wholes(r.member(record, "topk_experts"), "topk_experts", 0, kMostExperts - 1), count ? r.whole(*count, "count", 1, kMostTokens) : 1);
      });
    }
  }

  Recording done(const std::shared_ptr<const SourceText>& file) {
    if (layers_.empty()) throw InputError({file}, "has no bundles");
    Recording out;
    out.rows = static_cast<std::int64_t>(layers_.size());
    for (const auto& [layer, unused] : layers_) out.layers.push_back(static_cast<int>(layer));
    if (alike()) {
      out.found = "bundles of tokens by source rank and experts";
      out.data = unpack();
      if (out.rows > 1) out.warnings.emplace_back("bundles do not say which tokens of two layers are the same: tokens of a source rank are joined in the order of the file");
    } else {
      out.found = "bundles of tokens by source rank and experts, as counts";
      out.data = count(file);
      out.warnings.emplace_back("layers have different numbers of tokens from a source rank: they cannot be joined into tokens, only counted");
    }
    return out;
  }

 private:
  void add_layer(const JsonReader& r, const Json& layer) {
    const std::vector<std::int64_t> sources = r.wholes(r.member(layer, "source_rank"), "source_rank", 0, 1'000'000), counts = r.wholes(r.member(layer, "count"), "count", 1, kMostTokens);
    const Json& sets = r.list(r.member(layer, "topk_experts"), "topk_experts");
    if (sets.items.size() != sources.size() || counts.size() != sources.size())
      r.fail(layer, fmt::format("`source_rank`, `topk_experts` and `count` have {}, {} and {} entries", sources.size(), sets.items.size(), counts.size()));
    const std::int64_t index = layer_of(r, layer);
    for (std::size_t i = 0; i < sources.size(); ++i) add(r, sets.items[i], index, sources[i], r.wholes(sets.items[i], "topk_experts", 0, kMostExperts - 1), counts[i]);
  }

  void add(const JsonReader& r, const Json& at, std::int64_t layer, std::int64_t source, const std::vector<std::int64_t>& experts, std::int64_t count) {
    if (top_k_ == 0) top_k_ = static_cast<int>(std::min<std::size_t>(experts.size(), kMostExperts));
    if (experts.empty() || static_cast<int>(experts.size()) != top_k_) r.fail(at, fmt::format("this bundle has {} experts, the first has {}", experts.size(), top_k_));
    layers_[layer][source].push_back({{experts.begin(), experts.end()}, count});
    tokens_[{layer, source}] += count, total_ += count * top_k_;
    if (total_ > kMostTokens) r.fail(at, fmt::format("the bundles hold more than {} choices over all layers", kMostTokens));
  }

  bool alike() const {
    const Sources& first = layers_.begin()->second;
    return std::ranges::all_of(layers_, [&](const auto& layer) {
      return layer.second.size() == first.size() && std::ranges::all_of(first, [&](const auto& source) {
               const auto n = tokens_.find({layer.first, source.first});
               return n != tokens_.end() && n->second == tokens_.at({layers_.begin()->first, source.first});
             });
    });
  }

  RecordedChoices unpack() const {
    RecordedChoices out;
    out.top_k = top_k_;
    for (const auto& [source, unused] : layers_.begin()->second) out.tokens += tokens_.at({layers_.begin()->first, source});
    const auto rows = static_cast<std::int64_t>(layers_.size());
    out.experts.resize(static_cast<std::size_t>(out.tokens * rows * top_k_));
    std::int64_t row = 0;
    for (const auto& [layer, sources] : layers_) {
      std::int64_t token = 0;
      for (const auto& [source, bundles] : sources)
        for (const Bundle& b : bundles)
          for (std::int64_t i = 0; i < b.count; ++i, ++token) std::ranges::copy(b.experts, out.experts.begin() + (token * rows + row) * top_k_);
      ++row;
    }
    return out;
  }

  RecordedCounts count(const std::shared_ptr<const SourceText>& file) const {
    std::int32_t most = 0;
    for (const auto& [layer, sources] : layers_)
      for (const auto& [source, bundles] : sources)
        for (const Bundle& b : bundles) most = std::max(most, std::ranges::max(b.experts));
    check_size({file}, 1, static_cast<std::int64_t>(layers_.size()), most + 1);
    RecordedCounts out;
    Matrix<std::int64_t>& counts = out.steps.emplace_back(static_cast<std::int64_t>(layers_.size()), most + 1);
    std::int64_t row = 0;
    for (const auto& [layer, sources] : layers_) {
      for (const auto& [source, bundles] : sources)
        for (const Bundle& b : bundles)
          for (const std::int32_t e : b.experts) counts(row, e) += b.count;
      ++row;
    }
    return out;
  }

  int top_k_ = 0;
  std::int64_t total_ = 0;
  std::map<std::int64_t, Sources> layers_;
  std::map<std::pair<std::int64_t, std::int64_t>, std::int64_t> tokens_;  // of (layer, source)
};

}  // namespace

Recording read_bundle_trace(const SourceFiles& files, const ImportOptions&) {
  Collector all;
  for (const auto& file : files) all.add(file);
  return all.done(files.front());
}

}  // namespace epsim
