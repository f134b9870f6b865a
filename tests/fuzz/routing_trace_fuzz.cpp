#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "workloads/import/ours.h"
#include "workloads/import/routing_trace.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const auto arrays = epsim::read_trace(std::make_shared<epsim::SourceText>(epsim::SourceText{"trace", {reinterpret_cast<const char*>(data), size}}));
    for (const auto& [name, a] : arrays) epsim::ensure(static_cast<std::size_t>(a.size()) == (a.is_float ? a.floats.size() : a.integers.size()), "an array has the values of its shape");
  } catch (const epsim::InputError&) {
  }
  return 0;
}

std::vector<std::string> fuzz_seeds() {
  epsim::RecordedChoices choices;
  choices.tokens = 2, choices.top_k = 2, choices.experts = {1, 2, 3, 300, 0, 1, 2, 3}, choices.weights = {1, 2, 3, 4, 5, 6, 7, 8};
  epsim::Recording recording;
  recording.rows = 2, recording.layers = {0, 1}, recording.data = choices;
  return {epsim::to_protobuf_trace(recording), epsim::to_trace(recording)};
}
