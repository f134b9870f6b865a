#include <fmt/format.h>

#include <cmath>
#include <map>

#include "base/npz.h"
#include "workloads/import/formats.h"

namespace epsim {
namespace {

/// Appends the tokens of one array.
void append(Recording& out, RecordedChoices& choices, const NpyArray& a, const std::string& name, const std::shared_ptr<const SourceText>& file) {
  if (a.is_float || a.shape.size() < 2 || a.shape.size() > 3)
    throw InputError({file}, fmt::format("array `{}` has shape [{}]{}, expected whole numbers [tokens, layers, k]", name, fmt::join(a.shape, ", "), a.is_float ? " of floats" : ""));
  const std::int64_t k = a.shape.size() == 3 ? a.shape[2] : 1;
  if (a.shape[1] == 0 || k == 0 || k > kMostExperts) throw InputError({file}, fmt::format("array `{}` has shape [{}], expected [tokens, layers, k]", name, fmt::join(a.shape, ", ")));
  if (out.rows == 0) out.rows = a.shape[1], choices.top_k = static_cast<int>(k);
  if (a.shape[1] != out.rows || k != choices.top_k)
    throw InputError({file}, fmt::format("array `{}` has {} layers of {} choices, the first has {} of {}", name, a.shape[1], k, out.rows, choices.top_k));
  for (std::size_t i = 0; i < a.integers.size(); ++i) {
    const std::int64_t e = a.integers[i];
    const auto at = static_cast<std::int64_t>(i);
    if (e < RecordedChoices::kNone || e >= kMostExperts)
      throw InputError({file}, fmt::format("{}[{}, {}, {}] is {}, expected an expert id (or -1 for padding)", name, at / (out.rows * k), at / k % out.rows, at % k, e));
    choices.experts.push_back(static_cast<std::int32_t>(e));
  }
  choices.tokens += a.shape[0];
}

}  // namespace

Recording read_routed_experts(const SourceFiles& files, const ImportOptions&) {
  Recording out;
  RecordedChoices choices;
  std::int64_t arrays = 0;
  std::string others;
  for (const auto& file : files) {
    if (!file->text.starts_with("PK")) {
      if (!file->text.starts_with("\x93NUMPY")) throw InputError({file}, file->text.empty() ? "is empty, expected an .npy or .npz" : "is neither an .npy nor an .npz");
      append(out, choices, read_npy(file), ".npy", file), ++arrays;
      continue;
    }
    const std::map<std::string, NpyArray> all = read_npz(file);
    const auto weights = all.find("expert_weights");
    for (const auto& [name, array] : all)
      if (name != "expert_weights" && !array.is_float && array.shape.size() >= 2) append(out, choices, array, name, file), ++arrays;
      else others += fmt::format("{}`{}` [{}]{}", others.empty() ? "" : ", ", name, fmt::join(array.shape, ", "), array.is_float ? " of floats" : "");
    if (weights == all.end()) continue;
    const NpyArray& w = weights->second;
    if (files.size() > 1 || arrays != 1 || !w.is_float || w.floats.size() != choices.experts.size())
      throw InputError({file}, "`expert_weights` must be floats of the shape of the one array of experts beside it");
    for (const double x : w.floats) {
      if (!std::isfinite(x)) throw InputError({file}, "`expert_weights` holds a value that is not a finite number");
      choices.weights.push_back(static_cast<float>(x));
    }
  }
  if (arrays == 0) throw InputError({files.front()}, fmt::format("has no array of whole numbers [tokens, layers, k]{}", others.empty() ? ": it has no arrays" : "; it has " + others));
  if (choices.tokens == 0) throw InputError({files.front()}, "has no tokens: expected whole numbers [tokens, layers, k]");
  out.found = fmt::format("routed experts in {} array{}", arrays, arrays == 1 ? "" : "s");
  out.data = std::move(choices);
  return out;
}

}  // namespace epsim
