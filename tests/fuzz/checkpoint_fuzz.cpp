#include <cstdint>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <unistd.h>

#include "base/npz.h"
#include "sim/train/checkpoint.h"

namespace {

/// A training with every array that a checkpoint may have.
const epsim::Training& training() {
  static const epsim::Training t = [] {
    const auto text = std::filesystem::temp_directory_path() / fmt::format("epsim_checkpoint_fuzz_{}", ::getpid());
    std::ofstream(text) << std::string(600, 'a');
    const std::string yaml = "model: {layers: 1, hidden: 4, experts: 2, expert_ffn: 2, top_k: 1, taps: 1}\nlosses: [bias_update]\nsteps: 9\nbatch: 1\nsequence: 8\nevaluate_every: 5\n";
    const auto file = std::make_shared<epsim::SourceText>(epsim::SourceText{"fuzz.yaml", yaml});
    epsim::Training read = epsim::read_training(file, {}, {text.string()}, epsim::builtin_catalogs()).runs.front();
    std::filesystem::remove(text);
    return read;
  }();
  return t;
}

/// "name f|i length length ..." lines of a checkpoint's arrays, then those lines' archive: its own shapes, and numbers that are all alike but for the settings it holds for.
std::string lines_of(const std::string& bytes) {
  std::string lines;
  for (const auto& [name, array] : epsim::read_npz(std::make_shared<epsim::SourceText>(epsim::SourceText{"seed.npz", bytes}))) {
    lines += fmt::format("{} {}", name, array.is_float ? 'f' : 'i');
    for (const std::int64_t n : array.shape) lines += fmt::format(" {}", n);
    lines += "\n";
  }
  return lines;
}

std::string archive_of(const std::string& lines) {
  static const std::vector<std::int64_t> settings = epsim::read_npz(std::make_shared<epsim::SourceText>(epsim::SourceText{"seed.npz", checkpoint(training(), begin_training(training()))})).at("settings").integers;
  epsim::NpzWriter npz;
  for (std::size_t at = 0; at < lines.size();) {
    const std::size_t end = std::min(lines.find('\n', at), lines.size());
    const std::string line = lines.substr(at, end - at);
    at = end + 1;
    const std::size_t space = std::min(line.find(' '), line.size());
    const std::string name = line.substr(0, space);
    if (name.empty() || name.size() > 60) continue;
    std::vector<std::int64_t> shape;
    std::int64_t count = 1;
    for (std::size_t i = std::min(space + 2, line.size()); i < line.size() && count <= 4096; ++i)
      if (line[i] >= '0' && line[i] <= '9') {
        std::int64_t n = 0;
        for (; i < line.size() && line[i] >= '0' && line[i] <= '9' && n < 5000; ++i) n = 10 * n + line[i] - '0';
        shape.push_back(n), count *= n;
      }
    if (count > 4096) continue;
    if (name == "settings" && static_cast<std::size_t>(count) == settings.size())
      npz.add(name, shape, settings);
    else if (space + 1 < line.size() && line[space + 1] != 'f')
      npz.add(name, shape, std::vector<std::int64_t>(static_cast<std::size_t>(count), name == "step" ? 3 : 1));
    else
      npz.add(name, shape, std::vector<float>(static_cast<std::size_t>(count), 1.0F));
  }
  return npz.bytes();
}

}  // namespace

/// Checksums would refuse nearly every mutation of an archive, and its settings the rest, so that arrays come as lines of names, types and shapes as well.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::string bytes(reinterpret_cast<const char*>(data), size);
  if (!bytes.starts_with("PK")) bytes = archive_of(bytes);
  try {
    epsim::TrainState state = epsim::read_checkpoint(training(), std::make_shared<epsim::SourceText>(epsim::SourceText{"fuzz.npz", bytes}));
    epsim::ensure(state.step >= 0 && state.step <= training().steps && state.records.size() == static_cast<std::size_t>(state.step), "a record of every step");
    for (const epsim::TextModelTensor& a : tensors(training().model.shape, state.weights)) {
      std::size_t count = 1;
      for (const std::int64_t n : a.shape) count *= static_cast<std::size_t>(n);
      epsim::ensure(a.values->size() == count, "an array has the model's shape");
    }
    // What was read can be gone on from.
    checkpoint(training(), state);
  } catch (const epsim::InputError&) {
  }
  return 0;
}

std::vector<std::string> fuzz_seeds() {
  epsim::TrainState state = begin_training(training());
  const std::string begun = checkpoint(training(), state);
  for (int i = 0; i < 3; ++i) step(training(), state);
  const std::string after = checkpoint(training(), state);
  return {begun, after, lines_of(begun), lines_of(after)};
}
