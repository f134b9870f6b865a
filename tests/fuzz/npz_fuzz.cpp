#include <zlib.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/npz.h"

namespace {

/// A stored zip with one member, right in all its sums: mutations of an array get past the checksum.
std::string zip_around(const std::string& npy) {
  std::string out, facts;
  const auto put = [](std::string& s, std::uint64_t v, int bytes) {
    for (int i = 0; i < bytes; ++i) s += static_cast<char>(i < 8 ? v >> (8 * i) : 0);
  };
  put(facts, 20, 10);
  put(facts, crc32_z(0, reinterpret_cast<const Bytef*>(npy.data()), npy.size()), 4);
  put(facts, npy.size(), 4), put(facts, npy.size(), 4), put(facts, 5, 4);
  put(out, 0x04034b50, 4);
  out += facts + "a.npy" + npy;
  const std::size_t begin = out.size();
  put(out, 0x02014b50, 4), put(out, 20, 2);
  out += facts + std::string(14, '\0') + "a.npy";
  const std::size_t size = out.size() - begin;
  put(out, 0x06054b50, 4), put(out, 0, 4), put(out, 0x10001, 4), put(out, size, 4), put(out, begin, 4), put(out, 0, 2);
  return out;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::string bytes(reinterpret_cast<const char*>(data), size);
  if (bytes.starts_with('\x93')) bytes = zip_around(bytes);
  try {
    for (const auto& [name, array] : epsim::read_npz(std::make_shared<epsim::SourceText>(epsim::SourceText{"fuzz.npz", bytes})))
      epsim::ensure(static_cast<std::size_t>(array.size()) == (array.is_float ? array.floats.size() : array.integers.size()), "a shape fits its values");
  } catch (const epsim::InputError&) {
  }
  return 0;
}

std::vector<std::string> fuzz_seeds() {
  epsim::NpzWriter ids, both;
  ids.add("expert_ids", {2, 1, 2}, std::vector<std::int64_t>{0, 1, 2, 3});
  both.add("x", {3}, std::vector<float>{1, 2, 3});
  both.add("y", {}, std::vector<double>{1});
  const std::string npy = ids.bytes().substr(30 + 14, 128 + 32);
  std::string turned = npy;
  turned.replace(turned.find("False"), 5, "True ");
  return {ids.bytes(), both.bytes(), npy, turned};
}
