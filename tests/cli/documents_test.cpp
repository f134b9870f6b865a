// The documents are true: every key that a verb prints is on docs/output.md and no other, and every experiment in a document can be read.
#include <gmock/gmock.h>

#include <fstream>
#include <iomanip>
#include <map>
#include <sstream>
#include <nlohmann/json.hpp>

#include "base/npz.h"
#include "sim/experiment.h"
#include "tests/support/output_page.h"
#include "tests/support/program.h"

namespace epsim {
namespace {

using Json = nlohmann::json;
using testing::Outcome;
using testing::run_program;
using testing::Workspace;

const std::string kRoot = EPSIM_SOURCE_DIR;

/// Runs `epsim ARGUMENTS --format json`. MPI must not look for a network in a sandbox, nor refuse root.
Json run_json(std::vector<std::string> arguments) {
  arguments.insert(arguments.end(), {"--format", "json"});
  const Outcome r = run_program(arguments, "OMPI_MCA_ess_singleton_isolated=1 OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1");
  EXPECT_EQ(r.status, 0) << r.err;
  return Json::parse(r.out);
}

/// Keys as the page spells them: "a", "a.b" for maps that are given in `nested`, "a[].b" for lists of maps given there.
std::set<std::string> keys_of(const Json& object, const std::set<std::string>& nested) {
  std::set<std::string> keys;
  for (const auto& [key, value] : object.items()) {
    if (!nested.contains(key)) {
      keys.insert(key);
    } else if (value.is_array()) {
      for (const auto& [inner, unused] : value.front().items()) keys.insert(key + "[]." + inner);
    } else {
      for (const auto& [inner, unused] : value.items()) keys.insert(key + "." + inner);
    }
  }
  return keys;
}

TEST(Documents, HaveEveryKeyOfExecute) {
  const Workspace space("epsim_documents");
  Json out = run_json({"execute", kRoot + "/examples/execute.yaml", "--backward", "--repeat", "1", "--dump", space.root.string()});
  std::set<std::string> expected = documented("execute");
  for (const auto& [key, unused] : out["layers"][0].items()) EXPECT_TRUE(key == "layer" || out.contains(key)) << key;
  EXPECT_EQ(expected.erase("layers[]"), 1U);
  EXPECT_EQ(expected.erase("layers[].layer"), 1U);
  out.erase("layers");
  EXPECT_EQ(keys_of(out, {"measured", "simulated", "backward"}), expected);

  std::set<std::string> arrays;
  for (const auto& [name, unused] : read_npz(read_text((space.root / "dump.npz").string()))) arrays.insert(name);
  EXPECT_EQ(arrays, documented("dump.npz"));
}

TEST(Documents, HaveEveryKeyOfPlace) {
  const Workspace space("epsim_documents");
  const std::string loads = space.write("loads.json", R"({"logical_count": [[5, 3, 2, 9]]})");
  const Json out = run_json({"place", "--loads", loads, "--slots", "6", "--ranks", "2", "--nodes", "1", "--policy", "eplb"});
  EXPECT_EQ(keys_of(out, {"metrics"}), documented("place"));
}

TEST(Documents, HaveEveryKeyOfAlltoall) {
  const Workspace space("epsim_documents");
  const std::string matrix = space.write("bytes.csv", "0,5\n7,0\n");
  const Json out = run_json({"alltoall", "--cluster", "{single_switch: {ranks: 2, device: cpu}}", "--exchange", "direct", "--network", "fair", "--matrix", matrix});
  EXPECT_EQ(keys_of(out, {"links"}), documented("alltoall"));
}

TEST(Documents, HaveEveryKeyOfTopo) {
  const Json out = run_json({"topo", "show", "{single_switch: {ranks: 2, device: cpu}}", "--path", "0:1"});
  EXPECT_EQ(keys_of(out, {"tiers", "paths"}), documented("topo"));
}

TEST(Documents, HaveOnlyClustersThatCanBeBuilt) {
  const std::string page = read_text(kRoot + "/docs/topology.md")->text, fence = "```yaml\n";
  int built = 0;
  for (std::size_t at = 0; (at = page.find(fence, at)) != std::string::npos; ++at, ++built) {
    const std::size_t begin = at + fence.size();
    const Setting root = parse_yaml(std::make_shared<SourceText>(SourceText{"docs/topology.md", page.substr(begin, page.find("```", begin) - begin)}));
    Diagnostics problems;
    EXPECT_NO_THROW(builtin_clusters().make(*root.find("cluster"), problems)) << at;
    EXPECT_NO_THROW(problems.check());
  }
  EXPECT_GE(built, 1);
}

TEST(Documents, HaveEveryKeyOfModel) { EXPECT_EQ(keys_of(run_json({"model", "deepseek-v3"}), {}), documented("model")); }

TEST(Documents, HaveOnlyExperimentsThatCanBeRead) {
  int read = 0;
  for (const char* page : {"README.md", "docs/architecture.md", "CONTRIBUTING.md", "docs/data.md", "docs/training.md"}) {
    std::ifstream in(kRoot + "/" + page);
    std::string line, block;
    bool yaml = false;
    while (std::getline(in, line)) {
      if (line == "```yaml") {
        yaml = true, block.clear();
      } else if (yaml && line == "```") {
        yaml = false;
        if (block.find("cluster:") == std::string::npos) continue;
        // Paths in a document are relative to the root of the repository.
        EXPECT_NO_THROW(read_experiment(std::make_shared<SourceText>(SourceText{kRoot + "/" + page, block}), {}, builtin_catalogs())) << page;
        ++read;
      } else if (yaml) {
        block += line + "\n";
      }
    }
  }
  EXPECT_GE(read, 1);
}

// Each line of a block "json FORMAT" is a whole file of that format.
TEST(Documents, HaveOnlyRecordingsThatCanBeImported) {
  const Workspace space("epsim_documents");
  std::ifstream in(kRoot + "/docs/data.md");
  std::map<std::string, int> imported;
  const std::string fence = "```json ";
  for (std::string line, format; std::getline(in, line);) {
    if (line.starts_with("```")) {
      format = line.starts_with(fence) ? line.substr(fence.size()) : "";
    } else if (!format.empty()) {
      const Outcome o = run_program({"import", space.write("recording.json", line), "--from", format, "--out", (space.root / "counts.json").string()});
      EXPECT_EQ(o.status, 0) << line << "\n" << o.err;
      ++imported[format];
    }
  }
  EXPECT_THAT(imported, ::testing::ElementsAre(::testing::Pair("megatron", 1), ::testing::Pair("sglang", 3), ::testing::Pair("tensorrt-llm", 1)));
}

TEST(Documents, RoutesLogitsAsTheReadmeSays) {
  const Workspace space("epsim_documents");
  NpzWriter npz;
  const std::vector<float> logits = {1, 2, 3, 4, 5, 6, 7, 8, 8, 7, 6, 5, 4, 3, 2, 1};
  npz.add("logits", {2, 8}, std::span<const float>(logits));
  const std::string page = read_text(kRoot + "/README.md")->text, verb = "\nepsim route ";
  const std::size_t begin = page.find(verb) + verb.size();
  std::istringstream words(page.substr(begin, page.find('\n', begin) - begin));
  std::vector<std::string> command = {"route"};
  for (std::string word; words >> std::quoted(word);) command.push_back(word == "FILE.npz" ? space.write(command.back() == "--logits" ? "logits.npz" : "routed.npz", npz.bytes()) : word);
  const Outcome o = run_program(command);
  EXPECT_EQ(o.status, 0) << o.err;
  EXPECT_THAT(o.out, ::testing::AllOf(::testing::HasSubstr("2 tokens, 8 experts"), ::testing::HasSubstr("wrote ")));
}

// Every `epsim VERB --option` that a document shows is one that the program knows.
TEST(Documents, ShowOnlyCommandsThatExist) {
  int shown = 0;
  for (const char* page : {"README.md", "docs/output.md", "docs/topology.md", "docs/architecture.md", "docs/data.md", "docs/placement.md", "docs/training.md", "docs/compression.md"}) {
    std::ifstream in(kRoot + "/" + page);
    std::string line;
    while (std::getline(in, line))
      for (std::size_t at = line.find("epsim "); at != std::string::npos; at = line.find("epsim ", at + 1)) {
        std::istringstream words(line.substr(at + 6, line.find_first_of("`#", at) - at - 6));
        std::string verb, word;
        words >> verb;
        std::vector<std::string> command = {verb};
        if (verb == "topo" && words >> word) command.push_back(word);
        command.push_back("--help");
        const Outcome help = run_program(command);
        if (help.status != 0) continue;  // prose
        while (words >> word)
          if (const auto dashes = word.find("--"); dashes != std::string::npos && dashes <= 1) {
            const std::string option = word.substr(dashes, word.find_first_of("]=.,)", dashes) - dashes);
            EXPECT_NE(help.out.find(option), std::string::npos) << page << ": epsim " << verb << " has no " << option;
            ++shown;
          }
      }
  }
  EXPECT_GE(shown, 8);
}

}  // namespace
}  // namespace epsim
