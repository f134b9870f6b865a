#include "cli/matrix_csv.h"

#include <cmath>
#include <string>
#include <string_view>
#include <vector>

#include <fmt/format.h>

namespace epsim {
namespace {

constexpr std::size_t kMostProblems = 100;

struct Cell {
  std::string_view text;
  int column;  // of its first character that is no space, from 1
};

std::vector<Cell> cells_of(std::string_view line) {
  std::vector<Cell> cells;
  for (std::size_t begin = 0;; ++begin) {
    const std::size_t comma = std::min(line.find(',', begin), line.size());
    std::size_t first = begin, last = comma;
    while (first < last && (line[first] == ' ' || line[first] == '\t')) ++first;
    while (last > first && (line[last - 1] == ' ' || line[last - 1] == '\t')) --last;
    cells.push_back({line.substr(first, last - first), static_cast<int>(first) + 1});
    if (comma == line.size()) return cells;
    begin = comma;
  }
}

std::vector<std::string_view> lines_of(std::string_view text) {
  std::vector<std::string_view> lines;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    if (line.ends_with('\r')) line.remove_suffix(1);
    lines.push_back(line);
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  while (!lines.empty() && lines.back().find_first_not_of(" \t") == std::string_view::npos) lines.pop_back();
  return lines;
}

Bytes parse_cell(std::string_view text) {
  if (const auto number = parse_number(text)) return whole_bytes(*number);
  return -1;
}

}  // namespace

Bytes whole_bytes(double value) {
  return value >= 0 && value <= static_cast<double>(kMostPairBytes) && value == std::floor(value) ? static_cast<Bytes>(value) : -1;
}

Matrix<Bytes> read_matrix_csv(const std::shared_ptr<const SourceText>& source) {
  std::string_view text = source->text;
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);  // the byte order mark that spreadsheets write
  const std::vector<std::string_view> lines = lines_of(text);
  Diagnostics problems;
  const auto report = [&](int line, int column, std::string message) {
    if (problems.size() == kMostProblems) {
      problems.add({source, line, column}, "there are more problems from here on");
      problems.check();
    }
    problems.add({source, line, column}, std::move(message));
  };
  if (lines.empty()) report(0, 0, "expected rows of byte counts, the file is empty");

  std::vector<std::vector<Bytes>> rows;
  for (std::size_t i = 0; i < lines.size(); ++i) {
    const int line = static_cast<int>(i) + 1;
    std::vector<Bytes>& row = rows.emplace_back();
    for (const Cell& cell : cells_of(lines[i])) {
      row.push_back(parse_cell(cell.text));
      if (row.back() < 0) report(line, cell.column, fmt::format("expected a byte count (a whole number from 0 to 1e15), got `{}`", cell.text.substr(0, 40)));
    }
    if (row.size() != lines.size())
      report(line, 1, fmt::format("row {} has {} values, but the number of rows is {}: expected a square matrix", i + 1, row.size(), lines.size()));
  }
  problems.check();

  const auto n = static_cast<std::int64_t>(rows.size());
  Matrix<Bytes> matrix(n, n);
  for (std::int64_t s = 0; s < n; ++s) std::copy(rows[s].begin(), rows[s].end(), matrix.row(s).begin());
  return matrix;
}

}  // namespace epsim
