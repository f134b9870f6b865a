#include "cli/route_input.h"

#include <algorithm>
#include <cmath>
#include <map>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/npz.h"
#include "workloads/import/safetensors.h"

namespace epsim {
namespace {

using Arrays = std::map<std::string, NpyArray>;

/// Arrays by name, checked as they are taken.
class Taken {
 public:
  Taken(std::shared_ptr<const SourceText> file, Arrays arrays) : file_(std::move(file)), arrays_(std::move(arrays)) {}

  bool has(const std::string& name) const { return arrays_.contains(name); }
  void fail(const std::string& message) { problems_.add({file_, 0, 0}, message); }
  /// Ends with all problems so far, if there are any: what comes next rests on what was read.
  void check() const { problems_.check(); }
  const NpyArray& array(const std::string& name) const { return arrays_.at(name); }
  /// A float array of a shape (-1: any length), as float32; empty, and a problem, where it is not such.
  std::vector<float> floats(const std::string& name, const std::vector<std::int64_t>& shape) {
    std::vector<float> out;
    if (!has_shape(name, shape)) return out;
    const NpyArray& a = array(name);
    out.reserve(static_cast<std::size_t>(a.size()));
    for (std::size_t i = 0; i < static_cast<std::size_t>(a.size()); ++i) {
      const double v = a.is_float ? a.floats[i] : static_cast<double>(a.integers[i]);
      if (!std::isfinite(v) || !std::isfinite(static_cast<float>(v))) return fail(fmt::format("array `{}`: the value at [{}] is not a finite number in float32", name, fmt::join(index_of(i, a.shape), ", "))), std::vector<float>();
      out.push_back(static_cast<float>(v));
    }
    return out;
  }
  std::vector<std::int64_t> integers(const std::string& name, const std::vector<std::int64_t>& shape) {
    if (!has_shape(name, shape)) return {};
    const NpyArray& a = array(name);
    if (a.is_float) fail(fmt::format("array `{}` holds floats, expected integers", name));
    return a.integers;
  }
  /// Names of arrays that nothing here reads, with what may have been meant. Files hold results and gradients, whose names are near too: none is a problem.
  std::vector<std::string> unused() const {
    static const std::vector<std::string> known = {"logits", "x", "gate", "gate_weight", "linear_bias", "cosine_projector", "sim_matrix", "temperature", "bias", "noise", "token_ids", "attention_mask", "earlier_counts"};
    static const std::vector<std::string> written = {"expert_ids", "weights", "kept", "weights_after", "position", "capacity", "tokens_per_expert"};
    std::vector<std::string> names;
    for (const auto& [name, array] : arrays_) {
      if (std::ranges::find(known, name) != known.end() || std::ranges::find(written, name) != written.end()) continue;
      const std::string hint = suggest(name, known);
      names.push_back(fmt::format("`{}` is not used{}", name, hint.starts_with(", did you mean") ? hint : ""));
    }
    return names;
  }

 private:
  static std::vector<std::int64_t> index_of(std::size_t at, const std::vector<std::int64_t>& shape) {
    std::vector<std::int64_t> index(shape.size());
    for (std::size_t d = shape.size(); d-- > 0; at /= static_cast<std::size_t>(shape[d])) index[d] = static_cast<std::int64_t>(at % static_cast<std::size_t>(shape[d]));
    return index;
  }
  bool has_shape(const std::string& name, const std::vector<std::int64_t>& shape) {
    const NpyArray& a = array(name);
    bool same = a.shape.size() == shape.size();
    for (std::size_t i = 0; same && i < shape.size(); ++i) same = shape[i] < 0 || a.shape[i] == shape[i];
    if (!same) fail(fmt::format("array `{}` has shape [{}], expected [{}]", name, fmt::join(a.shape, ", "), expected(shape)));
    return same;
  }
  static std::string expected(const std::vector<std::int64_t>& shape) {
    std::string text;
    for (const std::int64_t n : shape) text += (text.empty() ? "" : ", ") + (n < 0 ? std::string("any") : std::to_string(n));
    return text;
  }

  std::shared_ptr<const SourceText> file_;
  Arrays arrays_;
  Diagnostics problems_;
};

/// Rows [T][h] times a matrix [h][n], summed in double.
std::vector<float> product(const std::vector<float>& x, std::int64_t tokens, std::int64_t h, const std::vector<float>& matrix, std::int64_t n) {
  std::vector<float> out(static_cast<std::size_t>(tokens * n));
  std::vector<double> sums(static_cast<std::size_t>(n));
  for (std::int64_t t = 0; t < tokens; ++t) {
    std::ranges::fill(sums, 0.0);
    for (std::int64_t i = 0; i < h; ++i)
      for (std::int64_t e = 0; e < n; ++e) sums[static_cast<std::size_t>(e)] += double{x[static_cast<std::size_t>(t * h + i)]} * double{matrix[static_cast<std::size_t>(i * n + e)]};
    for (std::int64_t e = 0; e < n; ++e) out[static_cast<std::size_t>(t * n + e)] = static_cast<float>(sums[static_cast<std::size_t>(e)]);
  }
  return out;
}

/// Tutel's cosine gate: cos(x W, column of S) exp(min(temperature, log 100)).
std::vector<float> cosine_logits(Taken& a, const std::vector<float>& x, std::int64_t tokens, std::int64_t h, int& experts) {
  if (!a.has("sim_matrix")) a.fail("`cosine_projector` needs `sim_matrix` [projected, experts]");
  a.check();
  const std::vector<float> projector = a.floats("cosine_projector", {h, -1});
  a.check();
  const std::int64_t width = a.array("cosine_projector").shape[1];
  std::vector<float> columns = a.floats("sim_matrix", {width, -1});
  experts = static_cast<int>(std::min<std::int64_t>(a.array("sim_matrix").shape[1], 1 << 20));
  double temperature = std::log(2.0);  // exp gives 1 / 0.5, where training begins
  if (a.has("temperature")) {
    const NpyArray& t = a.array("temperature");
    if (t.size() != 1 || !t.is_float) a.fail("array `temperature` must be one float");
    a.check();
    temperature = t.floats.front();
  }
  a.check();
  std::vector<float> rows = product(x, tokens, h, projector, width);
  const double scale = std::exp(std::min(temperature, std::log(100.0)));
  const auto normalise = [&](std::vector<float>& v, std::int64_t count, std::int64_t step, std::int64_t next) {
    for (std::int64_t c = 0; c < count; ++c) {
      double square = 0;
      for (std::int64_t i = 0; i < width; ++i) square += std::pow(double{v[static_cast<std::size_t>(c * next + i * step)]}, 2);
      const double length = std::max(std::sqrt(square), 1e-12);
      for (std::int64_t i = 0; i < width; ++i) v[static_cast<std::size_t>(c * next + i * step)] = static_cast<float>(double{v[static_cast<std::size_t>(c * next + i * step)]} / length);
    }
  };
  normalise(rows, tokens, 1, width);
  normalise(columns, experts, experts, 1);
  std::vector<float> logits = product(rows, tokens, width, columns, experts);
  for (float& l : logits) l = static_cast<float>(double{l} * scale);
  return logits;
}

}  // namespace

RouteInput read_route_input(const std::shared_ptr<const SourceText>& file) {
  Arrays arrays;
  if (file->name.ends_with(".npy"))
    arrays["logits"] = read_npy(file);
  else if (file->name.ends_with(".safetensors"))
    arrays = read_safetensors(file);
  else
    arrays = read_npz(file);
  Taken a(file, std::move(arrays));

  RouteInput in;
  in.unused = a.unused();
  if (a.has("logits")) {
    const std::vector<std::int64_t>& shape = a.array("logits").shape;
    if (shape.size() != 2 && shape.size() != 3) a.fail(fmt::format("array `logits` has shape [{}], expected [tokens, experts] or [layers, tokens, experts]", fmt::join(shape, ", ")));
    a.check();
    in.tokens = shape.size() == 2 ? shape[0] : shape[0] * shape[1];
    in.experts = static_cast<int>(std::min<std::int64_t>(shape.back(), 1 << 20));
    in.logits = a.floats("logits", shape);
  } else if (a.has("x")) {
    if (a.array("x").shape.size() != 2) a.fail(fmt::format("array `x` has shape [{}], expected [tokens, hidden]", fmt::join(a.array("x").shape, ", ")));
    a.check();
    in.tokens = a.array("x").shape[0];
    const std::int64_t h = a.array("x").shape[1];
    const std::vector<float> x = a.floats("x", {in.tokens, h});
    if (a.has("cosine_projector")) {
      in.logits = cosine_logits(a, x, in.tokens, h, in.experts);
    } else {
      const bool gate = a.has("gate");
      if (!gate && !a.has("gate_weight")) a.fail("`x` needs `gate` [hidden, experts], `gate_weight` [experts, hidden] or `cosine_projector`");
      a.check();
      std::vector<float> matrix = gate ? a.floats("gate", {h, -1}) : a.floats("gate_weight", {-1, h});
      a.check();
      const std::int64_t n = gate ? a.array("gate").shape[1] : a.array("gate_weight").shape[0];
      if (!gate) {
        std::vector<float> turned(matrix.size());
        for (std::int64_t e = 0; e < n; ++e)
          for (std::int64_t i = 0; i < h; ++i) turned[static_cast<std::size_t>(i * n + e)] = matrix[static_cast<std::size_t>(e * h + i)];
        matrix = std::move(turned);
      }
      in.experts = static_cast<int>(std::min<std::int64_t>(n, 1 << 20));
      in.logits = product(x, in.tokens, h, matrix, n);
    }
    if (a.has("linear_bias")) {
      const std::vector<float> bias = a.floats("linear_bias", {in.experts});
      a.check();
      for (std::size_t i = 0; i < in.logits.size(); ++i) in.logits[i] += bias[i % bias.size()];
    }
    in.logits_computed = true;
  } else {
    a.fail(fmt::format("there is neither `logits` [tokens, experts] nor `x` [tokens, hidden] with a gate{}{}", in.unused.empty() ? "" : "; array ", fmt::join(in.unused, ", ")));
  }
  a.check();  // the other arrays' sizes follow from these
  if (in.tokens == 0 || in.experts == 0) a.fail("there are no tokens or no experts");
  if (in.experts > 65534) a.fail("more than 65534 experts");
  a.check();
  if (a.has("noise")) in.noise = a.floats("noise", {in.tokens, in.experts});
  if (a.has("bias")) in.bias = a.floats("bias", {in.experts});
  if (a.has("earlier_counts")) in.earlier = a.floats("earlier_counts", {in.experts});
  if (a.has("token_ids")) in.token_ids = a.integers("token_ids", {in.tokens});
  if (a.has("attention_mask")) {
    const NpyArray& mask = a.array("attention_mask");
    if (mask.is_float || mask.size() == 0 || in.tokens % mask.size() != 0)
      a.fail(fmt::format("array `attention_mask` holds {} {}, expected an integer for each of {} tokens, or of those of one layer", mask.size(), mask.is_float ? "floats" : "integers", in.tokens));
    a.check();
    for (std::int64_t t = 0; t < in.tokens; ++t) in.counted.push_back(mask.integers[static_cast<std::size_t>(t % mask.size())] != 0);
  }
  a.check();
  return in;
}

}  // namespace epsim
