#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "workloads/import/load_dump.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto file = std::make_shared<epsim::SourceText>(epsim::SourceText{"loads.json", std::string(reinterpret_cast<const char*>(data), size)});
  try {
    const epsim::LoadDump dump = epsim::read_load_dump(file);
    for (const auto& row : dump.logical_count) epsim::ensure(static_cast<int>(row.size()) == dump.experts(), "rows are equally long");
    epsim::ensure(dump.layers.empty() || dump.layers.size() == dump.logical_count.size(), "each row has a layer");
  } catch (const epsim::InputError&) {
  }
  return 0;
}

std::vector<std::string> fuzz_seeds() {
  return {R"({"model": "x", "layers": [0, 7], "logical_count": [[1, 2, 3], [4, 5, 6]], "source": "a \"quoted\" {name}"})", R"({"logical_count": [[1]]})"};
}
