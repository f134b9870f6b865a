#include "cli/saved_settings.h"

#include <filesystem>

#include <fmt/format.h>

namespace epsim {
namespace {

namespace fs = std::filesystem;

/// A path as it is written in a file of the folder. A link is followed on the way, and kept where it is the file.
void relocate(Setting& path, const fs::path& folder) {
  if (!path.is_scalar() || path.text.empty() || fs::path(path.text).is_absolute()) return;
  std::error_code error;
  const fs::path file = fs::absolute(resolve_path(path.text, path.at)).lexically_normal();
  const fs::path from = fs::weakly_canonical(file.parent_path(), error) / file.filename(), to = fs::weakly_canonical(fs::absolute(folder), error);
  const fs::path relative = from.lexically_relative(to);
  path.text = (error || relative.empty() ? file : relative).string();
}

/// The settings of a part that it reads as paths.
template <class Part, class... Context>
void relocate_part(Setting& settings, const Catalog<Part, Context...>& catalog, const fs::path& folder) {
  for (Setting::Entry& entry : settings.entries) {
    if (entry.key != catalog.kind()) continue;
    for (Setting::Entry& part : entry.value.entries) {
      const auto* maker = catalog.find(part.key);
      if (!maker) continue;
      Params listing;
      maker->make(listing, Context{}...);
      for (const ParamDoc& doc : listing.docs())
        if (doc.type == "a path" && part.value.find(doc.key)) relocate(part.value.get_or_add(doc.key, part.at), folder);
    }
  }
}

void relocate_model(Setting& model, const fs::path& folder) {
  if (!model.is_scalar()) return;
  const std::string dense = model.text.starts_with("dense:") ? "dense:" : "";
  model.text.erase(0, dense.size());
  if (model.text.find('/') != std::string::npos || model.text.ends_with(".json")) {
    relocate(model, folder);
    if (model.text.find('/') == std::string::npos) model.text = "./" + model.text;  // else it could be a preset's name
  }
  model.text = dense + model.text;
}

}  // namespace

std::string saved_settings(Setting settings, const std::string& folder, const Catalogs& c, const std::vector<std::string>& texts) {
  if (!texts.empty()) {
    Setting& text = settings.get_or_add("text", settings.at);
    text = Setting{};
    text.kind = Setting::Kind::list;
    for (const std::string& name : texts) {
      Setting file;
      file.kind = Setting::Kind::scalar, file.text = name;
      text.items.push_back(std::move(file));
    }
  }
  for (Setting::Entry& entry : settings.entries) {
    if (entry.key == "model") relocate_model(entry.value, folder);
    if (entry.key != "text") continue;
    relocate(entry.value, folder);
    for (Setting& file : entry.value.items) relocate(file, folder);
  }
  const auto parts = [&](const auto&... catalogs) { (relocate_part(settings, catalogs, folder), ...); };
  parts(c.cluster, c.source, c.router, c.compression, c.capacity, c.placement, c.replica, c.shared_expert, c.exchange, c.network, c.compute);
  std::string lines;
  for (const Setting::Entry& entry : settings.entries) lines += fmt::format("{}: {}\n", entry.key, to_yaml(entry.value));  // keys that were read: all are words
  return lines;
}

}  // namespace epsim
