#pragma once
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

namespace epsim::testing {

/// A folder of a test's own that is gone when the test is.
class Workspace {
 public:
  explicit Workspace(const std::string& name) : root(std::filesystem::path(::testing::TempDir()) / (name + "_" + std::to_string(::getpid()))) {
    std::filesystem::remove_all(root);
    std::filesystem::create_directories(root);
  }
  ~Workspace() { std::filesystem::remove_all(root); }
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  /// Writes a file and gives its path.
  std::string write(const std::string& name, const std::string& bytes) const {
    std::ofstream(root / name, std::ios::binary) << bytes;
    return (root / name).string();
  }

  const std::filesystem::path root;
};

inline std::string bytes_of(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  EXPECT_TRUE(in) << path;
  return {std::istreambuf_iterator<char>(in), {}};
}

/// How a program ended and what it said.
struct Outcome {
  int status = -1;  ///< -1: it did not end by itself
  std::string out, err;
};

/// Runs the program that was built beside the tests. `environment` is put before it, as a shell takes it.
inline Outcome run_program(const std::vector<std::string>& arguments, const std::string& environment = "") {
  const Workspace streams("epsim_streams");
  std::string line = environment;
  const auto add = [&line](const char* before, const std::string& word) {
    line.append(before).push_back('\'');
    for (const char c : word) {
      if (c == '\'') line.append("'\\'");  // ends the quotes, a quote of its own, begins them again
      line.push_back(c);
    }
    line.push_back('\'');
  };
  add(" ", EPSIM_PROGRAM);
  for (const std::string& a : arguments) add(" ", a);
  add(" >", (streams.root / "out").string());
  add(" 2>", (streams.root / "err").string());
  line.append(" </dev/null");
  const int status = std::system(line.c_str());
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, bytes_of(streams.root / "out"), bytes_of(streams.root / "err")};
}

}  // namespace epsim::testing
