#include <cstdint>
#include <string>
#include <vector>

#include "base/check.h"
#include "base/setting.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto source = std::make_shared<epsim::SourceText>(epsim::SourceText{"fuzz.yaml", std::string(reinterpret_cast<const char*>(data), size)});
  const epsim::PartKeys parts = {{"cluster", "single_switch"}, {"placement", "contiguous"}};
  epsim::Setting root;
  try {
    root = epsim::parse_yaml(source);
    epsim::Diagnostics problems;
    epsim::part_choice(root, problems);
    // What is written reads back as the same value.
    const std::string once = epsim::to_yaml(root);
    const std::string twice = epsim::to_yaml(epsim::parse_yaml(std::make_shared<epsim::SourceText>(epsim::SourceText{"again", once})));
    epsim::ensure(once == twice, "to_yaml writes what parse_yaml reads");
  } catch (const epsim::InputError&) {
  }
  try {
    epsim::apply_override(root, source->text, parts);
    epsim::Setting base = root;
    epsim::overlay(base, root, parts);
  } catch (const epsim::InputError&) {
  }
  return 0;
}

std::vector<std::string> fuzz_seeds() {
  return {
      "seed: 42\nmodel: deepseek-v3\nlayers: 3-60\ncluster: {rail_fat_tree: {nodes: 8, ranks_per_node: 8, device: h800, oversubscription: 1}}\nplacement: "
      "{eplb: {slots: 288}}\n",
      "a:\n  - 1\n  - two: 'x y'\n    b: \"q\\n\"\n  - ~\nc: |\n  text\n  more\n",
      "placement.slots=288",
      "placement=eplb",
      "cluster={two_tier: {nodes: [1, 2]}}",
      "&a [*a, !!str 3]"};
}
