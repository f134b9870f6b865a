#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <tuple>

#include "workloads/import/routing_trace.h"
#include "workloads/source/shared/file.h"

namespace epsim::parts_source {
namespace {

struct Trace {
  std::int64_t tokens = 0, layers = 0, top_k = 0;
  std::vector<std::uint16_t> experts;  // [T][L][K]
  std::vector<float> weights;          // [T][L][K], or empty
  std::vector<int> of_model;           // [L] model layer indices, where the file says
};

std::string shape_of(const NpyArray& a) {
  std::string out;
  for (std::int64_t length : a.shape) out += fmt::format("{}{}", out.empty() ? "" : ", ", length);
  return "[" + out + "]";
}

std::string names_of(const std::map<std::string, NpyArray>& arrays) {
  std::string out;
  for (const auto& [name, array] : arrays) out += fmt::format("{}`{}` {}", out.empty() ? "" : ", ", name, shape_of(array));
  return out.empty() ? "none" : out;
}

std::string place(const Trace& t, std::size_t i) {
  const auto at = static_cast<std::int64_t>(i);
  return fmt::format("[{}, {}, {}]", at / (t.layers * t.top_k), at / t.top_k % t.layers, at % t.top_k);
}

/// Checks every id and weight; gives the first thing that is wrong.
std::string fill(Trace& trace, const NpyArray& ids, const NpyArray* weights, int experts) {
  trace.experts.reserve(ids.integers.size());
  for (std::size_t i = 0; i < ids.integers.size(); ++i) {
    const std::int64_t e = ids.integers[i];
    if (e < 0 || e >= experts) return fmt::format("expert_ids{} is {}, expected 0 to {}", place(trace, i), e, experts - 1);
    const std::size_t row = i / static_cast<std::size_t>(trace.top_k) * static_cast<std::size_t>(trace.top_k);
    for (std::size_t j = row; j < i; ++j)
      if (trace.experts[j] == e)
        return fmt::format("expert_ids{} is {} again, as expert_ids{}: a token's experts must differ", place(trace, i), e, place(trace, j));
    trace.experts.push_back(static_cast<std::uint16_t>(e));
  }
  if (!weights) return {};
  trace.weights.reserve(weights->floats.size());
  for (std::size_t i = 0; i < weights->floats.size(); ++i) {
    if (!std::isfinite(weights->floats[i])) return fmt::format("expert_weights{} is not a finite number", place(trace, i));
    trace.weights.push_back(static_cast<float>(weights->floats[i]));
  }
  return {};
}

void read(Trace& trace, const std::string& file, const SourceContext& context, Params& p) {
  std::map<std::string, NpyArray> arrays;
  try {
    arrays = read_trace(read_text(file));
  } catch (const InputError& e) {
    return report_file(p, e);
  }
  const auto ids = arrays.find("expert_ids");
  const auto weights = arrays.find("expert_weights");
  if (ids == arrays.end()) return p.error("file", fmt::format("{} has no array `expert_ids`, but {}: `epsim import` makes a trace of other programs' recordings", file, names_of(arrays)));
  const NpyArray& a = ids->second;
  if (a.is_float) return p.error("file", fmt::format("{}: expert_ids holds floats, expected integers", file));
  if (a.shape.size() != 3 || a.size() == 0)
    return p.error("file", fmt::format("{}: expert_ids has shape {}, expected [tokens, layers, top_k]", file, shape_of(a)));
  trace.tokens = a.shape[0], trace.layers = a.shape[1], trace.top_k = a.shape[2];
  if (trace.top_k != context.top_k)
    return p.error("file", fmt::format("{}: expert_ids has {} choices a token, the model's top_k is {}", file, trace.top_k, context.top_k));
  if (weights != arrays.end() && !weights->second.is_float) return p.error("file", fmt::format("{}: expert_weights holds integers, expected floats", file));
  if (weights != arrays.end() && weights->second.shape != a.shape)
    return p.error("file", fmt::format("{}: expert_weights has shape {}, expert_ids {}", file, shape_of(weights->second), shape_of(a)));
  if (const auto layers = arrays.find("layers"); layers != arrays.end()) {
    if (layers->second.is_float || layers->second.size() != trace.layers)
      return p.error("file", fmt::format("{}: layers has shape {}, expected a whole number for each of the {} layers", file, shape_of(layers->second), trace.layers));
    for (const std::int64_t layer : layers->second.integers) {
      const int l = layer < 0 || layer > 1'000'000 ? -1 : static_cast<int>(layer);
      if (l < 0 || std::ranges::find(trace.of_model, l) != trace.of_model.end())
        return p.error("file", fmt::format("{}: layers holds {}, expected different layer indices", file, layer));
      trace.of_model.push_back(l);
    }
  }
  const std::string wrong = fill(trace, a, weights == arrays.end() ? nullptr : &weights->second, context.experts);
  if (!wrong.empty()) p.error("file", file + ": " + wrong);
}

/// The trace in a file. Who reads a file that somebody holds gets the same: a grid of experiments takes no more memory than one of them.
std::shared_ptr<const Trace> shared_trace(const std::string& file, const SourceContext& context, Params& p) {
  static std::mutex mutex;
  static std::map<std::tuple<std::filesystem::path, std::filesystem::file_time_type, std::uintmax_t, int, int>, std::weak_ptr<const Trace>> held;
  const std::lock_guard lock(mutex);
  std::error_code none, no_time, no_size;  // a file that cannot be looked at cannot be read either, which says why
  const auto known = std::tuple(std::filesystem::canonical(file, none), std::filesystem::last_write_time(file, no_time), std::filesystem::file_size(file, no_size), context.experts, context.top_k);
  const bool exists = !none && !no_time && !no_size;
  if (const auto found = held.find(known); exists && found != held.end())
    if (auto trace = found->second.lock()) return trace;
  auto trace = std::make_shared<Trace>();
  read(*trace, file, context, p);
  if (exists && p.usable()) held[known] = trace;
  return trace;
}

}  // namespace

Source trace(Params& p, const SourceContext* context) {
  Source source;
  source.summary = "recorded choices: an .npz with expert_ids [tokens, layers, top_k] and, if there, expert_weights of the same shape and layers [layers]; or the same in Protobuf";
  source.yields = Source::Yields::choices;
  const std::string file = p.path("file", "the recorded choices (.npz, or .pb of `epsim import` and `epsim train`)");
  const bool repeat = p.flag("repeat", "start over where the trace has too few tokens or layers", false);
  const std::int64_t times = p.integer("times", "tokens that each recorded one stands for, one after another: of a recording of one token in so many", 1, 1, 1 << 20);
  const bool all = !p.has("tokens") && !p.has("tokens_per_rank");
  constexpr std::int64_t kMost = std::int64_t{1} << 36;
  if (all) {  // the same keys as read_token_blocks, which would ask for one of them
    p.integer("tokens_per_rank", "tokens of each rank's batch", 0, 1, kMost, "the trace's tokens x `times`, over the batches and ranks");
    p.integer("tokens", "tokens of all ranks together, in contiguous blocks", 0, 1, kMost, "all of the trace x `times`, over the batches");
  } else {
    source.first_token = read_token_blocks(p, context);
  }
  if (!p.usable() || !context) return source;
  const std::shared_ptr<const Trace> t = shared_trace(file, *context, p);
  if (!p.usable()) return source;
  const std::int64_t batches = context->batches, there = t->tokens * times;
  const std::string has = fmt::format("{} has {}{}", file, t->tokens, times > 1 ? fmt::format(" x {}", times) : "");
  if (all && there < batches) return p.error("file", fmt::format("{} tokens, too few for {} batches", has, batches)), source;
  if (all) source.first_token = token_blocks(there / batches, context->ranks);
  if (source.tokens() > there / batches && !repeat)
    p.error(p.has("tokens") ? "tokens" : "tokens_per_rank", fmt::format("{} tokens{} are asked for, {}; set `repeat: true` to use them again", source.tokens(),
                                                                        batches > 1 ? fmt::format(" in each of {} batches", batches) : "", has));
  const auto rows = t->of_model.empty() || repeat ? rows_by_position(p, *context, t->layers, repeat, file) : rows_by_name(p, *context, t->of_model, file);
  if (!p.usable()) return source;
  source.has_weights = !t->weights.empty();
  source.choices = [t, times, rows = std::map<int, std::int64_t>(rows.begin(), rows.end())](int layer, std::int64_t first, std::int64_t count,
                                                                                            std::span<std::uint16_t> experts, std::span<float> weights) {
    const std::int64_t row = rows.at(layer);
    for (std::int64_t i = 0; i < count; ++i) {
      const std::int64_t from = ((first + i) / times % t->tokens * t->layers + row) * t->top_k;
      std::copy_n(t->experts.begin() + from, t->top_k, experts.begin() + i * t->top_k);
      if (!t->weights.empty()) std::copy_n(t->weights.begin() + from, t->top_k, weights.begin() + i * t->top_k);
    }
  };
  return source;
}

}  // namespace epsim::parts_source
