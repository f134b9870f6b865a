#pragma once
#include <gtest/gtest.h>

#include <fstream>
#include <set>
#include <string>

namespace epsim {

/// The keys that a "## section" of docs/output.md documents: the first cells of its table.
inline std::set<std::string> documented(const std::string& section) {
  std::ifstream in(EPSIM_SOURCE_DIR "/docs/output.md");
  std::set<std::string> keys;
  std::string line, now;
  while (std::getline(in, line)) {
    if (line.starts_with("## ")) now = line.substr(3);
    if (now != section || !line.starts_with("| `")) continue;
    EXPECT_TRUE(keys.insert(line.substr(3, line.find('`', 3) - 3)).second) << line << " stands twice";
  }
  EXPECT_FALSE(keys.empty()) << "docs/output.md has no table under " << section;
  return keys;
}

}  // namespace epsim
