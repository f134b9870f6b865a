#include "workloads/import/settle.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "base/units.h"

namespace epsim {
namespace {

std::int64_t sum(std::span<const std::int64_t> values) { return std::accumulate(values.begin(), values.end(), std::int64_t{0}); }

/// "3", "0 to 2" or "0, 4 and 5 more".
std::string name_few(const std::vector<std::int64_t>& values) {
  if (values.size() > 2 && values.back() - values.front() + 1 == static_cast<std::int64_t>(values.size())) return fmt::format("{} to {}", values.front(), values.back());
  const std::vector<std::int64_t> few(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(std::min<std::size_t>(values.size(), 4)));
  return fmt::format("{}{}", fmt::join(few, ", "), values.size() > few.size() ? fmt::format(" and {} more", values.size() - few.size()) : "");
}

class Settler {
 public:
  Settler(Recording& recording, const Location& file, const SettleOptions& options) : r_(recording), file_(file), o_(options) {}

  ImportReport settle() {
    report_.facts.push_back(r_.found);
    report_.warnings = r_.warnings;
    std::visit([this](auto& data) { settle(data); }, r_.data);
    return std::move(report_);
  }

 private:
  template <class... Args>
  void fact(fmt::format_string<Args...> text, Args&&... args) {
    report_.facts.push_back(fmt::format(text, std::forward<Args>(args)...));
  }
  template <class... Args>
  void warn(fmt::format_string<Args...> text, Args&&... args) {
    report_.warnings.push_back(fmt::format(text, std::forward<Args>(args)...));
  }
  template <class... Args>
  [[noreturn]] void fail(fmt::format_string<Args...> text, Args&&... args) const {
    throw InputError(file_, fmt::format(text, std::forward<Args>(args)...));
  }

  void settle(RecordedChoices& c) {
    skip_tokens(c);
    if (o_.model && c.top_k != o_.model->top_k) fail("tokens have {} choices, the model's top_k is {}", c.top_k, o_.model->top_k);
    std::int32_t most = -1;
    for (const std::int32_t e : c.experts) most = std::max(most, e);
    const bool told = o_.model || r_.experts > 0;
    const int experts = o_.model ? o_.model->num_experts : r_.experts > 0 ? r_.experts : most + 1;
    drop_tokens(c, experts);
    r_.experts = experts;
    settle_layers();
    fact("{} layers, {} experts{}, {} choices a token, {} tokens{}", r_.rows, experts, told ? "" : " (the largest id and 1)", c.top_k, c.tokens, c.weights.empty() ? "" : ", with weights");
    find_repeats(c);
    const Matrix<std::int64_t> counts = total_counts(r_);
    tell_balance(counts);
    find_twins(counts, "identical choices in sum");
  }

  void skip_tokens(RecordedChoices& c) {
    if (o_.skip == 0) return;
    if (o_.skip >= c.tokens) fail("has {} tokens: none is left without the first {}", c.tokens, o_.skip);
    const auto values = static_cast<std::ptrdiff_t>(o_.skip * r_.rows * c.top_k);
    c.experts.erase(c.experts.begin(), c.experts.begin() + values);
    if (!c.weights.empty()) c.weights.erase(c.weights.begin(), c.weights.begin() + values);
    c.tokens -= o_.skip;
    fact("the first {} tokens are left out", o_.skip);
  }

  /// Leaves out padding and, where that is allowed, tokens that cannot be right.
  void drop_tokens(RecordedChoices& c, int experts) {
    const auto width = static_cast<std::size_t>(r_.rows) * static_cast<std::size_t>(c.top_k), k = static_cast<std::size_t>(c.top_k);
    std::int64_t padding = 0, partial = 0, bad = 0, kept = 0;
    for (std::int64_t t = 0; t < c.tokens; ++t) {
      const auto begin = static_cast<std::size_t>(t) * width;
      const std::span<const std::int32_t> ids(c.experts.data() + begin, width);
      const auto none = std::ranges::count(ids, RecordedChoices::kNone);
      std::size_t wrong = width;
      bool twice = false;
      for (std::size_t i = 0; i < width && wrong == width && none == 0; ++i) {
        twice = std::find(ids.begin() + static_cast<std::ptrdiff_t>(i / k * k), ids.begin() + static_cast<std::ptrdiff_t>(i), ids[i]) != ids.begin() + static_cast<std::ptrdiff_t>(i);
        if (ids[i] >= experts || twice) wrong = i;
      }
      if (wrong < width && !o_.drop_bad_tokens)
        fail("token {}, layer {}, choice {}: expert {} {}; leave such tokens out with --drop-bad-tokens", t, wrong / k, wrong % k, ids[wrong],
             twice ? std::string("is there twice") : fmt::format("is not one of {}", experts));
      if (none == static_cast<std::ptrdiff_t>(width)) {
        ++padding;
      } else if (none > 0) {
        ++partial;
      } else if (wrong < width) {
        ++bad;
      } else {
        const auto to = static_cast<std::ptrdiff_t>(static_cast<std::size_t>(kept++) * width), from = static_cast<std::ptrdiff_t>(begin);
        if (to == from) continue;
        std::copy_n(c.experts.begin() + from, width, c.experts.begin() + to);
        if (!c.weights.empty()) std::copy_n(c.weights.begin() + from, width, c.weights.begin() + to);
      }
    }
    c.tokens = kept;
    c.experts.resize(static_cast<std::size_t>(kept) * width);
    if (!c.weights.empty()) c.weights.resize(c.experts.size());
    if (padding > 0) fact("{} tokens of padding are left out", padding);
    if (partial > 0) warn("{} tokens have no choice in some layer and are left out", partial);
    if (bad > 0) warn("{} tokens with experts out of range or twice are left out", bad);
    if (kept == 0) fail("no token is left");
  }

  /// Recorders warm up with tokens of one value.
  void find_repeats(const RecordedChoices& c) {
    const auto width = static_cast<std::ptrdiff_t>(r_.rows) * c.top_k;
    std::int64_t repeats = 0, leading = 0;
    for (std::int64_t t = 1; t < c.tokens; ++t) {
      const auto at = c.experts.begin() + t * width;
      if (!std::equal(at, at + width, at - width)) continue;
      ++repeats;
      if (leading == t - 1) leading = t;
    }
    constexpr std::int64_t kSuspicious = 8;
    if (leading + 1 >= kSuspicious) warn("the first {} tokens choose alike in all layers: a warm-up? --skip {} leaves them out", leading + 1, leading + 1);
    if (repeats > std::max(kSuspicious, c.tokens / 20)) warn("{} tokens of {} choose as the token before them in all layers: padding, or a decoder that repeats itself?", repeats, c.tokens);
  }

  void settle(RecordedCounts& c) {
    if (o_.skip >= static_cast<std::int64_t>(c.steps.size())) fail("has {} steps: none is left without the first {}", c.steps.size(), o_.skip);
    find_warm_up(c);
    c.steps.erase(c.steps.begin(), c.steps.begin() + static_cast<std::ptrdiff_t>(o_.skip));
    if (o_.skip > 0) fact("the first {} steps are left out", o_.skip);
    settle_experts(c);
    drop_empty_layers(c);
    settle_layers();
    const Matrix<std::int64_t> counts = total_counts(r_);
    fact("{} layers, {} experts, {} steps, {} choices in the first layer", r_.rows, r_.experts, c.steps.size(), sum(counts.row(0)));
    tell_balance(counts);
    compare_sums(counts);
    find_twins(counts, "identical counts");
  }

  void settle_experts(RecordedCounts& c) {
    const auto found = static_cast<int>(c.steps.front().columns);
    const bool told = r_.experts > 0;
    if (o_.model && (found > o_.model->num_experts || (told && found != o_.model->num_experts))) fail("counts {} experts, the model has {}", found, o_.model->num_experts);
    r_.experts = o_.model ? o_.model->num_experts : found;
    if (!told && !o_.model) warn("the file does not say how many experts there are: {}, from the largest id; give --model", found);
    if (r_.experts == found) return;
    for (Matrix<std::int64_t>& step : c.steps) {
      Matrix<std::int64_t> wide(step.rows, r_.experts);
      for (std::int64_t l = 0; l < step.rows; ++l) std::ranges::copy(step.row(l), wide.row(l).begin());
      step = std::move(wide);
    }
  }

  /// Some recorders keep a row for every layer of the model, also for those without experts.
  void drop_empty_layers(RecordedCounts& c) {
    std::vector<std::int64_t> empty, full;
    for (std::int64_t l = 0; l < r_.rows; ++l) (std::ranges::all_of(c.steps, [l](const auto& step) { return sum(step.row(l)) == 0; }) ? empty : full).push_back(l);
    if (full.empty()) fail("all counts are 0");
    if (empty.empty()) return;
    warn("layers {} have no counts and are left out (dense layers, or a recorder that missed them)", name_few(empty));
    std::vector<int> layers;
    for (const std::int64_t l : full) layers.push_back(r_.layers.empty() ? static_cast<int>(l) : r_.layers[static_cast<std::size_t>(l)]);
    for (Matrix<std::int64_t>& step : c.steps) {
      Matrix<std::int64_t> less(static_cast<std::int64_t>(full.size()), step.columns);
      for (std::size_t l = 0; l < full.size(); ++l) std::ranges::copy(step.row(full[l]), less.row(static_cast<std::int64_t>(l)).begin());
      step = std::move(less);
    }
    r_.layers = std::move(layers), r_.rows = static_cast<std::int64_t>(full.size());
  }

  /// Leading steps with nothing in them, or with far more or fewer tokens than the rest have in the median, or with loads far from the rest's.
  void find_warm_up(const RecordedCounts& c) {
    const auto n = static_cast<std::int64_t>(c.steps.size());
    if (n < 3) return;
    std::vector<double> totals;
    for (const Matrix<std::int64_t>& step : c.steps) totals.push_back(static_cast<double>(sum(step.cells)));
    std::vector<double> sorted(totals.begin() + n / 4, totals.end());
    std::ranges::nth_element(sorted, sorted.begin() + static_cast<std::ptrdiff_t>(sorted.size() / 2));
    const double median = sorted[sorted.size() / 2];
    std::vector<double> mean(c.steps.front().cells.size());
    for (std::size_t s = static_cast<std::size_t>(n / 2); s < c.steps.size(); ++s)
      for (std::size_t i = 0; i < mean.size() && totals[s] > 0; ++i) mean[i] += static_cast<double>(c.steps[s].cells[i]) / totals[s] / static_cast<double>(n - n / 2);
    const auto distance = [&](std::size_t s) {  // total variation, 0 to 1
      double d = 0;
      for (std::size_t i = 0; i < mean.size(); ++i) d += std::abs(static_cast<double>(c.steps[s].cells[i]) / totals[s] - mean[i]) / 2;
      return d;
    };
    double usual = 0;
    for (std::size_t s = static_cast<std::size_t>(n / 2); s < c.steps.size(); ++s) usual = std::max(usual, totals[s] > 0 ? distance(s) : 0);
    std::int64_t leading = 0;
    for (; leading < n / 2; ++leading) {
      const auto s = static_cast<std::size_t>(leading);
      constexpr double kFactor = 4, kFar = 0.2;
      const bool strange = totals[s] == 0 || totals[s] * kFactor < median || totals[s] > kFactor * median || (distance(s) > kFar && distance(s) > 2 * usual);
      if (!strange) break;
    }
    if (leading > o_.skip) warn("the first {} of {} steps differ wildly from the rest: a warm-up? --skip {} leaves them out", leading, n, leading);
    const auto idle = std::count(totals.begin() + std::max(leading, o_.skip), totals.end(), 0.0);
    if (idle > 0) warn("{} steps have no counts at all", idle);
  }

  /// Every layer of a step sees the same tokens.
  void compare_sums(const Matrix<std::int64_t>& counts) {
    std::int64_t least = 0, most = 0;
    for (std::int64_t l = 1; l < counts.rows; ++l) {
      if (sum(counts.row(l)) < sum(counts.row(least))) least = l;
      if (sum(counts.row(l)) > sum(counts.row(most))) most = l;
    }
    if (sum(counts.row(least)) != sum(counts.row(most)))
      warn("layers disagree on the number of choices: {} in layer {}, {} in layer {}", sum(counts.row(least)), layer(least), sum(counts.row(most)), layer(most));
    if (o_.model && sum(counts.row(0)) % o_.model->top_k != 0) warn("{} choices in layer {} are no multiple of the model's top_k {}", sum(counts.row(0)), layer(0), o_.model->top_k);
  }

  /// A recorder that writes to the wrong layer leaves two rows alike.
  void find_twins(const Matrix<std::int64_t>& counts, std::string_view what) {
    std::map<std::vector<std::int64_t>, std::int64_t> known;
    std::vector<std::int64_t> twins;
    for (std::int64_t l = 0; l < counts.rows; ++l) {
      const std::span<const std::int64_t> row = counts.row(l);
      if (sum(row) >= 4 * counts.columns && !known.try_emplace({row.begin(), row.end()}, l).second) twins.push_back(l);
    }
    if (!twins.empty()) {
      const auto row = counts.row(twins.front());
      warn("layers {} and {} have {}{}: a recorder that writes to the wrong layer?", layer(known[{row.begin(), row.end()}]), layer(twins.front()), what,
           twins.size() > 1 ? fmt::format(" ({} more pairs)", twins.size() - 1) : "");
    }
  }

  void tell_balance(const Matrix<std::int64_t>& counts) {
    double most = 0, mean = 0;
    std::int64_t where = 0;
    for (std::int64_t l = 0; l < counts.rows; ++l) {
      const auto row = counts.row(l);
      const double ratio = static_cast<double>(std::ranges::max(row)) * static_cast<double>(counts.columns) / std::max(1.0, static_cast<double>(sum(row)));
      mean += ratio / static_cast<double>(counts.rows);
      if (ratio > most) most = ratio, where = l;
    }
    fact("hottest expert over mean: {:.2f} in the mean of the layers, {:.2f} in layer {}", mean, most, layer(where));
  }

  void settle(RecordedSlots& s) {
    if (o_.skip > 0) fail("a placement has no steps to skip");
    std::int32_t most = 0;
    for (const auto& row : s.expert_of_slot) most = std::max(most, std::ranges::max(row));
    r_.experts = o_.model ? o_.model->num_experts : most + 1;
    settle_layers();
    std::int64_t doubled = 0;
    for (std::size_t l = 0; l < s.expert_of_slot.size(); ++l) {
      std::vector<bool> placed(static_cast<std::size_t>(r_.experts));
      for (const std::int32_t e : s.expert_of_slot[l]) {
        if (e >= r_.experts) fail("layer {}: expert {} is not one of {}", layer(static_cast<std::int64_t>(l)), e, r_.experts);
        placed[static_cast<std::size_t>(e)] = true;
      }
      const auto missing = std::ranges::find(placed, false);
      if (missing != placed.end()) fail("layer {}: expert {} has no slot", layer(static_cast<std::int64_t>(l)), missing - placed.begin());
      for (std::size_t rank = 0; rank + 1 < s.first_slot[l].size(); ++rank) {
        std::vector<std::int32_t> mine(s.expert_of_slot[l].begin() + s.first_slot[l][rank], s.expert_of_slot[l].begin() + s.first_slot[l][rank + 1]);
        std::ranges::sort(mine);
        doubled += mine.end() - std::unique(mine.begin(), mine.end());
      }
    }
    if (!o_.model && r_.layers.empty()) warn("the file numbers its layers among those that have experts: they are 0 to {} here; --model gives them the model's numbers", r_.rows - 1);
    fact("{} layers, {} experts in {} slots on {} ranks", r_.rows, r_.experts, s.expert_of_slot.front().size(), s.first_slot.front().size() - 1);
    if (doubled > 0) warn("{} slots hold a second replica of an expert that their rank has already", doubled);
  }

  void settle(RecordedTraffic& t) {
    if (o_.skip >= static_cast<std::int64_t>(t.exchanges.size())) fail("has {} exchanges: none is left without the first {}", t.exchanges.size(), o_.skip);
    t.exchanges.erase(t.exchanges.begin(), t.exchanges.begin() + static_cast<std::ptrdiff_t>(o_.skip));
    double total = 0;
    std::int64_t empty = 0;
    for (const Matrix<std::int64_t>& m : t.exchanges) {
      const auto bytes = sum(m.cells);
      total += static_cast<double>(bytes), empty += bytes == 0 ? 1 : 0;
    }
    fact("{} exchanges between {} ranks, {} together", t.exchanges.size(), t.exchanges.front().rows, format_bytes(total));
    if (empty > 0) warn("{} exchanges move nothing", empty);
  }

  /// Rows get model indices, where there is a model; what the file says must be MoE layers of it.
  void settle_layers() {
    if (!o_.model) return;
    const std::vector<int>& moe = o_.model->moe_layers;
    if (r_.layers.empty()) {
      if (r_.rows == static_cast<std::int64_t>(moe.size()))
        r_.layers = moe;
      else if (r_.rows > static_cast<std::int64_t>(moe.size()))
        fail("has {} layers, the model has {} MoE layers", r_.rows, moe.size());
      else
        warn("has {} of the model's {} MoE layers and does not say which: taken as the first", r_.rows, moe.size());
    }
    for (const int l : r_.layers)
      if (!std::ranges::binary_search(moe, l)) fail("layer {} is no MoE layer of the model", l);
  }

  std::int64_t layer(std::int64_t row) const { return r_.layers.empty() ? row : r_.layers[static_cast<std::size_t>(row)]; }

  Recording& r_;
  const Location& file_;
  const SettleOptions& o_;
  ImportReport report_;
};

}  // namespace

ImportReport settle(Recording& recording, const Location& file, const SettleOptions& options) { return Settler(recording, file, options).settle(); }

Matrix<std::int64_t> total_counts(const Recording& recording) {
  Matrix<std::int64_t> out(recording.rows, recording.experts);
  if (const auto* counts = std::get_if<RecordedCounts>(&recording.data)) {
    for (const Matrix<std::int64_t>& step : counts->steps)
      for (std::size_t i = 0; i < out.cells.size(); ++i) out.cells[i] += step.cells[i];
  } else if (const auto* choices = std::get_if<RecordedChoices>(&recording.data)) {
    for (std::size_t i = 0; i < choices->experts.size(); ++i)
      ++out(static_cast<std::int64_t>(i) / choices->top_k % recording.rows, choices->experts[i]);
  }
  return out;
}

}  // namespace epsim
