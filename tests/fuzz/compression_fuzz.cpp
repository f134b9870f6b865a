#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "policies/compression_file.h"

/// What was read is written and read again, the same.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  const auto read = [](const std::string& json) { return epsim::read_compression(std::make_shared<epsim::SourceText>(epsim::SourceText{"fuzz.json", json})); };
  try {
    const epsim::CompressionFile file = read(text);
    const epsim::CompressionFile again = read(epsim::to_json(file));
    epsim::ensure(again.layers == file.layers && again.maps.size() == file.maps.size(), "as many layers are read as were written");
    for (std::size_t l = 0; l < file.maps.size(); ++l) {
      file.maps[l].check();
      epsim::ensure(again.maps[l].to == file.maps[l].to && again.maps[l].skip_below == file.maps[l].skip_below, "the maps that are read are those that were written");
    }
  } catch (const epsim::InputError&) {
  }
  return 0;
}

std::vector<std::string> fuzz_seeds() {
  return {R"({"layers": [0, 1], "becomes": [[0, 1, -1, 1], [0, 0, 1, -1]]})", R"({"layers": [7], "becomes": [[1, 0, 2]], "skip_below": [0.25]})",
          R"({"layers": [3], "becomes": [[0, 0, 0, 0]]})"};
}
