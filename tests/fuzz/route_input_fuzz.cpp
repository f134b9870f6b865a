#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/npz.h"
#include "cli/route_input.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  for (const char* name : {"fuzz.npz", "fuzz.npy", "fuzz.safetensors"}) {
    try {
      const epsim::RouteInput in = epsim::read_route_input(std::make_shared<epsim::SourceText>(epsim::SourceText{name, bytes}));
      epsim::ensure(in.logits.size() == static_cast<std::size_t>(in.tokens) * static_cast<std::size_t>(in.experts), "a logit for each token and expert");
    } catch (const epsim::InputError&) {
    }
  }
  return 0;
}

std::vector<std::string> fuzz_seeds() {
  epsim::NpzWriter logits, gate;
  logits.add("logits", {2, 3}, std::vector<float>{1, 2, 3, 4, 5, 6});
  logits.add("token_ids", {2}, std::vector<std::int64_t>{4, 5});
  gate.add("x", {1, 2}, std::vector<float>{1, 2});
  gate.add("gate", {2, 2}, std::vector<float>{1, 0, 0, 1});
  gate.add("bias", {2}, std::vector<float>{1, 0});
  const std::string header = R"({"logits":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]}})";
  std::string safe(8, '\0');
  safe[0] = static_cast<char>(header.size());
  return {logits.bytes(), gate.bytes(), logits.bytes().substr(30 + 10, 128 + 24), safe + header + std::string(8, '\0')};
}
