#include <algorithm>

#include <fmt/format.h>

#include "policies/compression_file.h"

namespace epsim::parts_compression {

/// The maps of a file, such as `epsim compress` writes.
Compression given(Params& p, const Shape* shape) {
  Compression compression;
  compression.summary = "the map of a file that `epsim compress` wrote: which expert each one becomes, layer by layer";
  const std::string file = p.path("file", "JSON with layers [layer], becomes [[layer][expert]] (-1: pruned) and, if there, skip_below [layer]");
  if (!p.usable() || !shape) return compression;
  CompressionFile maps;
  try {
    maps = read_compression(read_text(file));
  } catch (const InputError& e) {
    for (const Diagnostic& d : e.problems()) p.error("file", d.at.line > 0 ? fmt::format("{}:{}:{}: {}", d.at.source->name, d.at.line, d.at.column, d.message) : d.message);
    return compression;
  }
  const ExpertMap& one = maps.maps.front();
  const bool skips = std::ranges::any_of(maps.maps, [](const ExpertMap& m) { return m.skip_below > 0; });
  if (static_cast<int>(one.to.size()) != shape->experts) p.error("file", fmt::format("{} is for {} experts, the model has {}", file, one.to.size(), shape->experts));
  if (one.experts < shape->top_k) p.error("file", fmt::format("{} leaves {} experts, too few: a token chooses {}", file, one.experts, shape->top_k));
  if (skips && shape->source_has_choices && !shape->source_has_weights) p.error("file", fmt::format("{} skips choices by weight, and the source brings no weights", file));
  if (!p.usable()) return compression;
  compression.experts = one.experts, compression.pruned = one.pruned(), compression.skips = skips;
  compression.decide = [maps = std::move(maps), file](const ExpertsSeen& seen) {
    const auto row = std::ranges::find(maps.layers, seen.layer) - maps.layers.begin();
    if (row == std::ssize(maps.layers)) throw InputError({std::make_shared<const SourceText>(SourceText{file, ""})}, fmt::format("has no map of layer {}", seen.layer));
    return maps.maps[static_cast<std::size_t>(row)];
  };
  return compression;
}

}  // namespace epsim::parts_compression
