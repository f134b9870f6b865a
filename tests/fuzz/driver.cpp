// Feeds a fuzz target with deterministic mutations of its own seeds: bytes flipped, cut, repeated, and words that break parsers.
// `NAME_fuzz RUNS` runs that many; `NAME_fuzz FILE...` replays files. A crash or an exception other than InputError is a failure.
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>
#include <vector>

#include "base/rng.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
/// Valid inputs that mutations start from.
std::vector<std::string> fuzz_seeds();

namespace {

std::string mutate(std::string s, epsim::Rng& rng) {
  static const std::vector<std::string> words = {"{", "}", "[", "]", ":", "\n", " ", "-1", "999999999999999999999", "nan", "1e999", "null", "\"", "'", "<", ">", "&", "\xff", std::string(1, '\0'),
                                                 "00", "true", ",,", "shape", "<node id=\"x\"/>"};
  for (std::uint64_t edits = 1 + rng.below(6); edits > 0; --edits) {
    const std::size_t at = rng.below(s.size() + 1);
    switch (rng.below(6)) {
      case 0: if (at < s.size()) s[at] = static_cast<char>(rng.below(256)); break;
      case 1: s.insert(at, words[rng.below(words.size())]); break;
      case 2: s.erase(at, rng.below(16)); break;
      case 3: s.resize(at); break;
      case 4: s.insert(at, s.substr(rng.below(s.size() + 1), rng.below(64))); break;
      case 5: if (at < s.size()) s[at] = static_cast<char>(s[at] ^ (1 << rng.below(8))); break;
    }
  }
  return s;
}

void one(const std::string& s) { LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(s.data()), s.size()); }

}  // namespace

int main(int argc, char** argv) {
  if (argc == 2 && std::atoi(argv[1]) > 0) {
    const std::vector<std::string> seeds = fuzz_seeds();
    for (const std::string& s : seeds) one(s);
    for (int run = 0; run < std::atoi(argv[1]); ++run) {
      epsim::Rng rng(7, epsim::Stream::test, static_cast<std::uint64_t>(run));
      one(mutate(seeds[rng.below(seeds.size())], rng));
    }
    std::cout << argv[1] << " inputs read\n";
    return 0;
  }
  for (int i = 1; i < argc; ++i) {
    std::ifstream in(argv[i], std::ios::binary);
    one({std::istreambuf_iterator<char>(in), {}});
  }
  return 0;
}
