#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "workloads/import/load_dump.h"

std::vector<std::string> fuzz_seeds() {
  return {R"({"logical_count": [[1, 2, 3], [4, 5, 6]]})",
          R"({"model": "m", "layers": [3, 7], "logical_count": [[10, 0], [2.0, 1e3]], "source": {"logical_count": [1]}})",
          R"({"weight": [[1, 2]], "more": [true, null, "text \" \u00e9", [[[-1.5e-3]]]]})", "{\n \"logical_count\":\n [[\n 9007199254740992\n]]\n}\n"};
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto text = std::make_shared<epsim::SourceText>(epsim::SourceText{"loads.json", std::string(reinterpret_cast<const char*>(data), size)});
  try {
    const epsim::LoadDump loads = epsim::read_load_dump(text);
    epsim::ensure(!loads.logical_count.empty() && (loads.layers.empty() || loads.layers.size() == loads.logical_count.size()), "a load dump that was read has a layer");
    for (const std::vector<std::int64_t>& row : loads.logical_count) {
      epsim::ensure(!row.empty() && row.size() == loads.logical_count.front().size(), "its rows are equally long");
      for (const std::int64_t n : row) epsim::ensure(n >= 0, "its counts are not negative");
    }
  } catch (const epsim::InputError& e) {
    for (const epsim::Diagnostic& d : e.problems()) epsim::ensure(!epsim::render(d).empty() && d.at.source == text, "a problem says where it is");
  }
  return 0;
}
