#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/npz.h"
#include "sim/moe/layer_file.h"

namespace {

std::string layer_of(bool shared) {
  const std::vector<float> values(2 * 3 * 4, 0.5F);
  const auto some = [&](std::size_t count) { return std::span<const float>(values).first(count); };
  epsim::NpzWriter npz;
  npz.add("x", {2, 3}, some(6)), npz.add("gate", {3, 2}, some(6)), npz.add("r", {2, 3}, some(6));
  npz.add("w1", {2, 3, 4}, some(24)), npz.add("w3", {2, 3, 4}, some(24)), npz.add("w2", {2, 4, 3}, some(24)), npz.add("b1", {2, 4}, some(8));
  if (shared) npz.add("shared_w1", {3, 1}, some(3)), npz.add("shared_w3", {3, 1}, some(3)), npz.add("shared_w2", {1, 3}, some(3)), npz.add("shared_gate", {3, 1}, some(3));
  return npz.bytes();
}

}  // namespace

/// The first byte chooses the activation. Checksums would refuse nearly every mutation of an archive, so arrays come as mutated shapes: what is not an archive is read as
/// "name length length ..." lines of arrays of ones.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::string bytes(reinterpret_cast<const char*>(data), size);
  const auto activation = static_cast<epsim::Activation>(bytes.empty() ? 0 : static_cast<unsigned char>(bytes[0]) % epsim::activation_names().size());
  if (!bytes.starts_with("PK")) {
    epsim::NpzWriter npz;
    std::size_t at = 0;
    while (at < bytes.size()) {
      const std::size_t end = std::min(bytes.find('\n', at), bytes.size());
      std::string name;
      std::vector<std::int64_t> shape;
      std::int64_t count = 1;
      std::size_t i = at;
      for (; i < end && bytes[i] != ' '; ++i) name += bytes[i];
      for (; i < end && count <= 4096; ++i)
        if (bytes[i] >= '0' && bytes[i] <= '9') shape.push_back(bytes[i] - '0'), count *= shape.back();
      if (count <= 4096 && !name.empty() && name.size() < 100) npz.add(name, shape, std::vector<float>(static_cast<std::size_t>(count), 1.0F));
      at = end + 1;
    }
    bytes = npz.bytes();
  }
  try {
    epsim::LayerFile file = epsim::read_layer_file(std::make_shared<epsim::SourceText>(epsim::SourceText{"fuzz.npz", bytes}), activation);
    for (const epsim::LayerTensor& t : epsim::tensors(file.shape, file.weights)) {
      std::size_t count = 1;
      for (const std::int64_t n : t.shape) count *= static_cast<std::size_t>(n);
      epsim::ensure(t.values->empty() || t.values->size() == count, "an array has the layer's shape");
    }
  } catch (const epsim::InputError&) {
  }
  return 0;
}

std::vector<std::string> fuzz_seeds() {
  return {layer_of(false), layer_of(true), "x 2 3\ngate 3 2\nw1 2 3 4\nw3 2 3 4\nw2 2 4 3\nr 2 3\nb1 2 4\n",
          "x 2 3\ngate 3 2\nw1 2 3 4\nw3 2 3 4\nw2 2 4 3\nshared_w1 3 1\nshared_w3 3 1\nshared_w2 1 3\nshared_gate 3\n"};
}
