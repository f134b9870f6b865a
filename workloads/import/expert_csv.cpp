#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "base/units.h"
#include "workloads/import/formats.h"

namespace epsim {
namespace {

constexpr std::size_t kNone = std::string::npos;

std::vector<std::string_view> cells_of(std::string_view line) {
  std::vector<std::string_view> cells;
  for (std::size_t begin = 0;;) {
    const std::size_t end = std::min(line.find(',', begin), line.size());
    std::string_view cell = line.substr(begin, end - begin);
    while (!cell.empty() && (cell.front() == ' ' || cell.front() == '"')) cell.remove_prefix(1);
    while (!cell.empty() && (cell.back() == ' ' || cell.back() == '\r' || cell.back() == '"')) cell.remove_suffix(1);
    cells.push_back(cell);
    if (end == line.size()) return cells;
    begin = end + 1;
  }
}

/// Where each known column stands; without a header the columns are layer and expert.
struct Columns {
  std::size_t step = kNone, layer = kNone, expert = kNone, tokens = kNone;
  std::size_t all = 2;
};

class Counter {
 public:
  void add(const std::shared_ptr<const SourceText>& file) {
    std::string_view rest = file->text;
    if (rest.starts_with("\xef\xbb\xbf")) rest.remove_prefix(3);
    const std::string_view first = rest.substr(0, rest.find('\n'));
    if (const std::size_t semicolon = first.find(';'); semicolon != kNone && first.find(',') == kNone)
      throw InputError({file, 1, static_cast<int>(semicolon) + 1}, "columns are separated by `;`, expected `,`");
    Columns columns{.layer = 0, .expert = 1};
    for (int line = 1; !rest.empty(); ++line) {
      const std::size_t end = std::min(rest.find('\n'), rest.size());
      const std::vector<std::string_view> cells = cells_of(rest.substr(0, end));
      rest.remove_prefix(std::min(end + 1, rest.size()));
      if (cells.size() == 1 && cells[0].empty()) continue;
      if (line == 1 && cells[0].find_first_not_of("0123456789") != kNone)
        columns = header(file, cells);
      else
        add(file, line, cells, columns);
    }
  }

  Recording done(const std::shared_ptr<const SourceText>& file) const {
    if (lines_ == 0) throw InputError({file}, "has no lines with a layer and an expert");
    Recording out;
    std::map<std::int64_t, std::int64_t> rows, steps;
    for (const auto& [key, unused] : counts_) steps.emplace(std::get<0>(key), 0), rows.emplace(std::get<1>(key), 0);
    for (auto& [layer, row] : rows) row = out.rows++, out.layers.push_back(static_cast<int>(layer));
    check_size({file}, static_cast<std::int64_t>(steps.size()), out.rows, most_ + 1);
    RecordedCounts data;
    for (auto& [step, at] : steps) at = static_cast<std::int64_t>(data.steps.size()), data.steps.emplace_back(out.rows, most_ + 1);
    for (const auto& [key, n] : counts_) data.steps[static_cast<std::size_t>(steps[std::get<0>(key)])](rows[std::get<1>(key)], std::get<2>(key)) += n;
    out.found = fmt::format("CSV of {} lines", lines_);
    if (again_ > 0) out.warnings.push_back(fmt::format("{} lines give tokens of a step, layer and expert that a line before gave: they are added up", again_));
    out.experts = 0;
    out.data = std::move(data);
    return out;
  }

 private:
  static Columns header(const std::shared_ptr<const SourceText>& file, const std::vector<std::string_view>& cells) {
    Columns columns{.all = cells.size()};
    for (std::size_t i = 0; i < cells.size(); ++i) {
      std::string name(cells[i]);
      std::ranges::transform(name, name.begin(), [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
      std::size_t* known = name == "step" ? &columns.step : name == "layer" ? &columns.layer : name == "expert" ? &columns.expert : name == "tokens" ? &columns.tokens : nullptr;
      if (!known) throw InputError({file, 1, 1}, fmt::format("column `{}` is not known{}", cells[i].substr(0, 40), suggest(cells[i].substr(0, 40), {"step", "layer", "expert", "tokens"})));
      if (*known != kNone) throw InputError({file, 1, 1}, fmt::format("column `{}` is there twice", cells[i]));
      *known = i;
    }
    if (columns.layer == kNone || columns.expert == kNone) throw InputError({file, 1, 1}, "expected the columns `layer` and `expert`");
    return columns;
  }

  void add(const std::shared_ptr<const SourceText>& file, int line, const std::vector<std::string_view>& cells, const Columns& columns) {
    const auto value = [&](std::size_t column, std::string_view name, std::int64_t fallback, std::int64_t max) {
      if (column == kNone) return fallback;
      const auto v = column < cells.size() ? parse_integer(cells[column]) : std::nullopt;
      if (!v || *v < 0 || *v > max) {
        const int at = column < cells.size() ? static_cast<int>(cells[column].data() - cells[0].data()) + 1 : 1;
        throw InputError({file, line, at}, fmt::format("`{}` must be a whole number from 0 to {}", name, max));
      }
      return *v;
    };
    if (cells.size() > columns.all)
      throw InputError({file, line, static_cast<int>(cells[columns.all].data() - cells[0].data()) + 1}, fmt::format("a line has {} cells, this one {}", columns.all, cells.size()));
    constexpr std::int64_t kMost = std::int64_t{1} << 40;
    const std::int64_t step = value(columns.step, "step", 0, kMost), layer = value(columns.layer, "layer", 0, 1'000'000);
    const std::int64_t expert = value(columns.expert, "expert", 0, kMostExperts - 1), tokens = value(columns.tokens, "tokens", 1, kMost);
    // Without a column of tokens a line is one choice, and equal ones are what is counted.
    again_ += columns.tokens != kNone && counts_.contains({step, layer, expert});
    counts_[{step, layer, expert}] += tokens, most_ = std::max(most_, expert), ++lines_;
  }

  std::map<std::tuple<std::int64_t, std::int64_t, std::int64_t>, std::int64_t> counts_;
  std::int64_t most_ = 0, lines_ = 0, again_ = 0;
};

}  // namespace

Recording read_expert_csv(const SourceFiles& files, const ImportOptions&) {
  Counter all;
  for (const auto& file : files) all.add(file);
  return all.done(files.front());
}

}  // namespace epsim
