#include "sim/train/checkpoint.h"

#include <cmath>
#include <map>

#include <fmt/format.h>

#include "base/npz.h"

namespace epsim {
namespace {

/// Settings and text that a checkpoint holds for; what does not change a step is left out.
std::string identity(const Training& t) {
  Setting settings = t.resolved;
  std::erase_if(settings.entries, [](const Setting::Entry& e) { return e.key == "text" || e.key == "checkpoint_every" || e.key.starts_with("trace_"); });
  std::uint64_t digest = 0xcbf29ce484222325;  // FNV-1a
  for (const auto* part : {&t.text.train, &t.text.held_out})
    for (const std::uint8_t byte : *part) digest = (digest ^ byte) * 0x100000001b3;
  return fmt::format("seed {}, text {:016x} ({} and {} bytes), {}", t.seed, digest, t.text.train.size(), t.text.held_out.size(), to_yaml(settings));
}

struct Part {
  const char* name;
  TextModelWeights TrainState::*weights;
};
constexpr Part kParts[] = {{"weight.", &TrainState::weights}, {"mean.", &TrainState::mean}, {"square.", &TrainState::square}};

std::int64_t counts_of(const Training& t, std::int64_t steps) { return steps * t.model.shape.layers * t.model.shape.moe.columns(); }

/// The columns of experts.csv: e0, e1, ..., and zero0, identity0, constant0, ... of experts that compute nothing.
std::vector<std::string> column_names(const LayerShape& s) {
  std::vector<std::string> names;
  for (const auto& [kind, count] : {std::pair{"e", s.experts}, {"zero", s.idle.zero}, {"identity", s.idle.identity}, {"constant", s.idle.constant}})
    for (int i = 0; i < count; ++i) names.push_back(fmt::format("{}{}", kind, i));
  return names;
}

}  // namespace

std::string checkpoint(const Training& t, const TrainState& state) {
  NpzWriter out;
  const std::string about = identity(t);
  const std::vector<std::int32_t> letters(about.begin(), about.end());
  out.add("settings", {static_cast<std::int64_t>(letters.size())}, std::span<const std::int32_t>(letters));
  const std::int64_t layers = t.model.shape.layers, columns = t.model.shape.moe.columns(), steps = state.step;
  out.add("step", {1}, std::span<const std::int64_t>(&steps, 1));
  for (const Part& part : kParts) {
    TextModelWeights weights = state.*part.weights;
    for (const TextModelTensor& a : tensors(t.model.shape, weights)) out.add(part.name + a.name, a.shape, std::span<const float>(*a.values));
  }
  if (!state.bias.empty()) {
    std::vector<float> bias;
    for (const auto& row : state.bias) bias.insert(bias.end(), row.begin(), row.end());
    out.add("bias", {layers, columns}, std::span<const float>(bias));
  }
  std::vector<double> records;
  for (const StepRecord& r : state.records)
    for (const RecordColumn& c : record_columns()) records.push_back(r.*c.value);
  out.add("records", {steps, static_cast<std::int64_t>(record_columns().size())}, std::span<const double>(records));
  out.add("choices", {steps, layers, columns}, std::span<const std::int64_t>(state.choices));
  out.add("kept", {steps, layers, columns}, std::span<const std::int64_t>(state.kept));
  return out.bytes();
}

TrainState read_checkpoint(const Training& t, std::shared_ptr<const SourceText> file) {
  const Location at{file, 0, 0};
  std::map<std::string, NpyArray> arrays = read_npz(file);
  const auto take = [&](const std::string& name, std::int64_t size, bool floats) -> const NpyArray& {
    const auto found = arrays.find(name);
    if (found == arrays.end()) throw InputError(at, fmt::format("is no checkpoint of this training: there is no array `{}`", name));
    if (found->second.is_float != floats || (size >= 0 && found->second.size() != size)) throw InputError(at, fmt::format("is no checkpoint of this training: array `{}` has another type or size", name));
    return found->second;
  };
  const NpyArray& letters = take("settings", -1, false);
  const std::string about(letters.integers.begin(), letters.integers.end()), ours = identity(t);
  if (about != ours) throw InputError(at, fmt::format("is a checkpoint of another training.\n  there: {}\n  here:  {}\nTake another --out, or the settings and the text that it was begun with", about, ours));
  TrainState state = begin_training(t);
  const std::int64_t steps = take("step", 1, false).integers.front();
  if (steps < 0 || steps > t.steps) throw InputError(at, fmt::format("array `step` is {}, expected 0 to {}", steps, t.steps));
  state.step = static_cast<int>(steps);
  const auto copy = [](const NpyArray& from, std::vector<float>& to) {
    for (std::size_t i = 0; i < to.size(); ++i) to[i] = static_cast<float>(from.floats[i]);
  };
  for (const Part& part : kParts)
    for (const TextModelTensor& a : tensors(t.model.shape, state.*part.weights)) copy(take(part.name + a.name, static_cast<std::int64_t>(a.values->size()), true), *a.values);
  if (!state.bias.empty()) {
    const NpyArray& bias = take("bias", counts_of(t, 1), true);
    std::size_t i = 0;
    for (auto& row : state.bias)
      for (float& b : row) b = static_cast<float>(bias.floats[i++]);
  }
  const NpyArray& records = take("records", steps * static_cast<std::int64_t>(record_columns().size()), true);
  state.records.resize(static_cast<std::size_t>(steps));
  std::size_t i = 0;
  for (StepRecord& r : state.records)
    for (const RecordColumn& c : record_columns()) r.*c.value = records.floats[i++];
  state.choices = take("choices", counts_of(t, steps), false).integers;
  state.kept = take("kept", counts_of(t, steps), false).integers;
  return state;
}

std::string steps_csv(const TrainState& state) {
  std::string out = "step";
  for (const RecordColumn& c : record_columns()) out += fmt::format(",{}", c.name);
  out += "\n";
  for (std::size_t s = 0; s < state.records.size(); ++s) {
    out += fmt::format("{}", s + 1);
    for (const RecordColumn& c : record_columns()) {
      const double v = state.records[s].*c.value;
      out += std::isnan(v) ? "," : fmt::format(",{:.9g}", v);
    }
    out += "\n";
  }
  return out;
}

std::string experts_csv(const Training& t, const TrainState& state) {
  const int layers = t.model.shape.layers, columns = t.model.shape.moe.columns();
  std::string out = "step,layer,choices,dropped";
  for (const std::string& name : column_names(t.model.shape.moe)) out += "," + name;
  out += "\n";
  for (std::size_t row = 0; row < state.choices.size(); row += static_cast<std::size_t>(columns)) {
    std::int64_t all = 0, kept = 0;
    std::string each;
    for (std::size_t i = row; i < row + static_cast<std::size_t>(columns); ++i) {
      all += state.choices[i], kept += state.kept[i];
      each += fmt::format(",{}", state.choices[i]);
    }
    const std::size_t line = row / static_cast<std::size_t>(columns);
    out += fmt::format("{},{},{},{}{}\n", line / static_cast<std::size_t>(layers) + 1, line % static_cast<std::size_t>(layers), all, all - kept, each);
  }
  return out;
}

}  // namespace epsim
