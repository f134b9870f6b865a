#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "base/npz.h"
#include "workloads/import/formats.h"
#include "workloads/import/json_tree.h"

namespace epsim {
namespace {

/// Collects what the files of a recording hold; all must be of one mode and one shape.
class Collector {
 public:
  void add(const std::shared_ptr<const SourceText>& file) {
    if (file->text.starts_with("PK")) return add_arrays(file);
    const JsonReader r(file);
    const Json root = parse_json(file);
    refuse_placement(r, root);
    if (const Json* records = root.find("records"))
      add_records(r, root, r.list(*records, "records"));
    else
      add_logical(r, r.member(root, "logical_count"));
  }

  Recording done(const std::shared_ptr<const SourceText>& file) {
    Recording out;
    out.rows = rows_, out.warnings = std::move(warnings_);
    if (tokens_.tokens > 0) {
      if (!steps_.empty()) throw InputError({file}, "some files hold counts, others choices of tokens: import them one by one");
      out.found = fmt::format("SGLang recorder, choices of single tokens in {} passes", passes_);
      out.experts = 0, out.data = std::move(tokens_);
    } else {
      if (steps_.empty()) throw InputError({file}, "has no steps");
      out.found = fmt::format("SGLang recorder, counts of {} steps", steps_.size());
      out.experts = static_cast<int>(steps_.front().columns), out.data = RecordedCounts{std::move(steps_)};
    }
    return out;
  }

 private:
  /// Files of --init-expert-location, and what `epsim place` prints, whose `logical_count` is of replicas.
  static void refuse_placement(const JsonReader& r, const Json& root) {
    const Json* map = root.find("physical_to_logical_map");
    if (map && (root.find("logical_count") || root.find("records"))) return;
    if (!map) map = root.find("physical_to_logical");
    if (map) r.fail(*map, fmt::format("this is a placement, no recording: play it with `placement: {{given: {{file: {}}}}}`, which needs no import", r.file()->name));
  }

  void add_arrays(const std::shared_ptr<const SourceText>& file) {
    const std::map<std::string, NpyArray> arrays = read_npz(file);
    const auto found = arrays.find("logical_count");
    if (found == arrays.end()) throw InputError({file}, "has no array `logical_count` [steps, layers, experts]");
    const NpyArray& a = found->second;
    if (a.is_float || a.shape.size() < 2 || a.shape.size() > 3 || a.size() == 0)
      throw InputError({file}, fmt::format("`logical_count` must be whole numbers [steps, layers, experts], its shape is [{}]", fmt::join(a.shape, ", ")));
    const std::int64_t experts = a.shape.back(), rows = a.shape[a.shape.size() - 2];
    for (std::size_t at = 0; at < a.integers.size(); at += static_cast<std::size_t>(rows * experts)) {
      Matrix<std::int64_t>& step = steps_.emplace_back(rows, experts);
      for (std::size_t i = 0; i < step.cells.size(); ++i) {
        step.cells[i] = a.integers[at + i];
        if (step.cells[i] < 0 || step.cells[i] > kMostRecordedCount) throw InputError({file}, fmt::format("`logical_count` holds {}, expected counts from 0 to 2^40", step.cells[i]));
      }
      fits({file}, rows, experts);
    }
  }

  void add_logical(const JsonReader& r, const Json& count) {
    const auto& lists = r.list(count, "logical_count").items;
    if (lists.empty()) r.fail(count, "`logical_count` must be [[layer][expert]] or [[[step][layer][expert]]]");
    const bool single = lists.front().is_list() && (lists.front().items.empty() || !lists.front().items.front().is_list());  // [layer][expert]
    if (single) return add_step(r, count);
    for (const Json& step : lists) add_step(r, step);
  }

  void add_step(const JsonReader& r, const Json& step) {
    const auto& rows = r.list(step, "logical_count").items;
    if (rows.empty()) r.fail(step, "a step of `logical_count` has no layers");
    Matrix<std::int64_t> counts;
    for (std::size_t l = 0; l < rows.size(); ++l) {
      const std::vector<std::int64_t> row = r.wholes(rows[l], "logical_count", 0, kMostRecordedCount);
      if (l == 0) counts = Matrix<std::int64_t>(static_cast<std::int64_t>(rows.size()), static_cast<std::int64_t>(row.size()));
      if (row.empty() || static_cast<std::int64_t>(row.size()) != counts.columns)
        r.fail(rows[l], fmt::format("this layer of `logical_count` has {} experts, the first has {}", row.size(), counts.columns));
      std::ranges::copy(row, counts.row(static_cast<std::int64_t>(l)).begin());
    }
    fits(locate(r.file(), step.offset), counts.rows, counts.columns);
    steps_.push_back(std::move(counts));
  }

  void add_records(const JsonReader& r, const Json& root, const Json& records) {
    const Json* map = root.find("last_physical_to_logical_map");
    std::vector<std::vector<std::int64_t>> logical;
    std::int64_t experts = 0;
    if (map)
      for (const Json& row : r.list(*map, "last_physical_to_logical_map").items) {
        logical.push_back(r.wholes(row, "last_physical_to_logical_map", 0, kMostExperts - 1));
        for (const std::int64_t e : logical.back()) experts = std::max(experts, e + 1);
      }
    std::map<std::int64_t, std::vector<Matrix<std::int64_t>>> by_pass;  // counts of different ranks
    for (const Json& record : records.items) {
      if (const Json* ids = record.find("topk_ids_of_layer"))
        add_tokens(r, *ids, logical);
      else
        add_pass(r, record, logical, experts, by_pass[r.whole_member(record, "forward_pass_id", 0, kMostRecordedCount)]);
    }
    std::int64_t same = 0;
    for (auto& [pass, ranks] : by_pass) {
      Matrix<std::int64_t> sum = ranks.front();
      for (std::size_t i = 1; i < ranks.size(); ++i) {
        // Ranks that hold copies of the same tokens record the same counts.
        if (ranks[i].cells == ranks.front().cells) {
          ++same;
          continue;
        }
        for (std::size_t c = 0; c < sum.cells.size(); ++c) sum.cells[c] += ranks[i].cells[c];
      }
      steps_.push_back(std::move(sum));
    }
    if (same > 0) warnings_.push_back(fmt::format("{} records repeat the counts of another rank in the same pass and are counted once", same));
  }

  void add_pass(const JsonReader& r, const Json& record, const std::vector<std::vector<std::int64_t>>& logical, std::int64_t experts, std::vector<Matrix<std::int64_t>>& ranks) {
    const Json& count = r.member(record, "global_physical_count");
    const auto& rows = r.list(count, "global_physical_count").items;
    if (logical.size() != rows.size() || rows.empty())
      r.fail(count, fmt::format("`global_physical_count` has {} layers, `last_physical_to_logical_map` {}", rows.size(), logical.size()));
    check_size(locate(r.file(), count.offset), ++read_, static_cast<std::int64_t>(rows.size()), experts);
    Matrix<std::int64_t> counts(static_cast<std::int64_t>(rows.size()), experts);
    for (std::size_t l = 0; l < rows.size(); ++l) {
      const std::vector<std::int64_t> slots = r.wholes(rows[l], "global_physical_count", 0, kMostRecordedCount);
      if (slots.size() != logical[l].size()) r.fail(rows[l], fmt::format("{} slots are counted, the map has {}", slots.size(), logical[l].size()));
      for (std::size_t s = 0; s < slots.size(); ++s) counts(static_cast<std::int64_t>(l), logical[l][s]) += slots[s];
    }
    fits(locate(r.file(), count.offset), counts.rows, counts.columns);
    ranks.push_back(std::move(counts));
  }

  void add_tokens(const JsonReader& r, const Json& layers, const std::vector<std::vector<std::int64_t>>& logical) {
    const auto& rows = r.list(layers, "topk_ids_of_layer").items;
    if (rows.empty()) r.fail(layers, "`topk_ids_of_layer` must be [layer][token][k]");
    const std::size_t tokens = rows.front().items.size();
    const std::size_t k = tokens > 0 ? rows.front().items.front().numbers.size() : 0;
    if (tokens == 0) return;
    if (k == 0) r.fail(rows.front(), "`topk_ids_of_layer` must be [layer][token][k]");
    if (tokens_.top_k == 0) tokens_.top_k = static_cast<int>(std::min<std::size_t>(k, kMostExperts));
    fits(locate(r.file(), layers.offset), static_cast<std::int64_t>(rows.size()), 0);
    const std::size_t begin = tokens_.experts.size();
    tokens_.experts.resize(begin + tokens * rows.size() * k);
    for (std::size_t l = 0; l < rows.size(); ++l) {
      if (r.list(rows[l], "topk_ids_of_layer").items.size() != tokens) r.fail(rows[l], fmt::format("this layer has {} tokens, the first has {}", rows[l].items.size(), tokens));
      for (std::size_t t = 0; t < tokens; ++t) {
        const std::vector<std::int64_t> ids = r.wholes(rows[l].items[t], "topk_ids_of_layer", RecordedChoices::kNone, kMostExperts - 1);
        if (ids.size() != k || static_cast<int>(k) != tokens_.top_k) r.fail(rows[l].items[t], fmt::format("this token has {} choices, the first has {}", ids.size(), tokens_.top_k));
        for (std::size_t j = 0; j < k; ++j) {
          std::int64_t id = ids[j];
          if (!logical.empty() && id >= 0) {
            if (l >= logical.size() || static_cast<std::size_t>(id) >= logical[l].size()) r.fail(rows[l].items[t], fmt::format("slot {} is not in `last_physical_to_logical_map`", id));
            id = logical[l][static_cast<std::size_t>(id)];
          }
          tokens_.experts[begin + (t * rows.size() + l) * k + j] = static_cast<std::int32_t>(id);
        }
      }
    }
    tokens_.tokens += static_cast<std::int64_t>(tokens);
    ++passes_;
  }

  void fits(const Location& at, std::int64_t rows, std::int64_t experts) {
    if (experts > kMostExperts) throw InputError(at, fmt::format("a layer has more than {} experts", kMostExperts));
    if (rows_ == 0) rows_ = rows, experts_ = experts;
    if (rows != rows_ || experts != experts_) throw InputError(at, fmt::format("{} layers of {} experts after {} of {}: steps must be alike", rows, experts, rows_, experts_));
  }

  std::int64_t rows_ = 0, experts_ = 0, passes_ = 0, read_ = 0;
  std::vector<Matrix<std::int64_t>> steps_;
  RecordedChoices tokens_;
  std::vector<std::string> warnings_;
};

}  // namespace

Recording read_sglang_recording(const SourceFiles& files, const ImportOptions&) {
  Collector all;
  for (const auto& file : files) all.add(file);
  return all.done(files.front());
}

}  // namespace epsim
