#pragma once
#include <cstdio>
#include <stdexcept>
#include <string>
#include <vector>

namespace epsim::bench {

/// The numbers of a file of doubles and nothing else, as the programs of this folder pass matrices to each other: [source][destination], bytes or seconds. Throws std::runtime_error.
inline std::vector<double> read_doubles(const std::string& path) {
  std::FILE* file = std::fopen(path.c_str(), "rb");
  if (!file) throw std::runtime_error("cannot read " + path);
  std::fseek(file, 0, SEEK_END);
  std::vector<double> numbers(static_cast<std::size_t>(std::ftell(file)) / sizeof(double));
  std::rewind(file);
  const bool whole = std::fread(numbers.data(), sizeof(double), numbers.size(), file) == numbers.size();
  std::fclose(file);
  if (!whole) throw std::runtime_error("cannot read " + path);
  return numbers;
}

inline void write_doubles(const std::string& path, const std::vector<double>& numbers) {
  std::FILE* file = std::fopen(path.c_str(), "wb");
  const bool whole = file && std::fwrite(numbers.data(), sizeof(double), numbers.size(), file) == numbers.size();
  if (!file || std::fclose(file) != 0 || !whole) throw std::runtime_error("cannot write " + path);
}

/// Ranks of a square matrix of this many cells. Throws std::runtime_error where it is no square.
inline int ranks_of(const std::vector<double>& cells) {
  int n = 0;
  while (static_cast<std::size_t>(n) * static_cast<std::size_t>(n) < cells.size()) ++n;
  if (n == 0 || static_cast<std::size_t>(n) * static_cast<std::size_t>(n) != cells.size()) throw std::runtime_error("expected a square matrix");
  return n;
}

}  // namespace epsim::bench
