#pragma once
#include <iosfwd>
#include <string>
#include <vector>

namespace epsim {

/// A table for people: columns as wide as their widest cell (in characters, UTF-8), set left where `left` says so, else right. No trailing blanks.
class TextTable {
 public:
  /// `left`: one entry a column. The first row added is the header.
  explicit TextTable(std::vector<bool> left) : left_(std::move(left)) {}
  void add(std::vector<std::string> row) { rows_.push_back(std::move(row)); }
  void write(std::ostream& out, int indent = 2) const;

 private:
  std::vector<bool> left_;
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace epsim
