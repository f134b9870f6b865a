#include "sim/moe/layer_file.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/npz.h"

namespace epsim {
namespace {

using Sizes = std::vector<std::int64_t>;

Sizes without_ones(Sizes shape) {
  std::erase(shape, 1);
  return shape;
}

/// Whether an array is one that this program writes, or one like it of another precision: a file of results may be read again.
bool is_result(const std::string& name) {
  static const std::vector<std::string> written = {"y", "expert_ids", "weights", "weights_after", "kept", "dx"};
  if (name.ends_with("_f64")) return is_result(name.substr(0, name.size() - 4));
  if (std::ranges::find(written, name) != written.end()) return true;
  LayerWeights none;
  for (const LayerTensor& t : tensors({}, none))
    if (name == "d" + t.name) return true;
  return false;
}

constexpr std::int64_t kMostExperts = 65'534;

class Reader {
 public:
  Reader(std::shared_ptr<const SourceText> file, Activation activation) : file_(std::move(file)), arrays_(read_npz(file_)), activation_(activation) {}

  LayerFile read() {
    read_sizes();
    problems_.check();  // the other arrays' sizes follow from these
    const LayerShape& s = out_.shape;
    const std::int64_t tokens = arrays_.at("x").shape[0];
    take("x", {tokens, s.hidden}, out_.x);
    if (arrays_.contains("r")) take("r", {tokens, s.hidden}, out_.r);
    if (arrays_.contains("bias")) take("bias", {s.columns()}, out_.bias);
    if (arrays_.contains("noise")) take("noise", {tokens, s.columns()}, out_.noise);
    if (arrays_.contains("earlier_counts")) take("earlier_counts", {s.columns()}, out_.earlier_counts);
    if (arrays_.contains("token_ids")) take_integers("token_ids", {tokens}, out_.token_ids);
    std::vector<std::int64_t> mask;
    if (arrays_.contains("attention_mask")) take_integers("attention_mask", {tokens}, mask);
    for (const std::int64_t of_token : mask) out_.counted.push_back(of_token != 0);
    for (const LayerTensor& t : tensors(s, out_.weights))
      if (arrays_.contains(t.name)) take(t.name, t.shape, *t.values);
    const auto pair = [&](const char* one, const char* other) {
      if (arrays_.contains(one) && !arrays_.contains(other)) fail(fmt::format("there is `{}` but no `{}`", one, other));
    };
    pair("b3", "w3"), pair("shared_b3", "shared_w3"), pair("shared_w1", "shared_w2"), pair("constant", "constant_gate"), pair("constant_gate", "constant");
    for (const char* part : {"shared_w2", "shared_w3", "shared_b1", "shared_b2", "shared_gate"}) pair(part, "shared_w1");
    if (always_gated(activation_))
      for (const char* prefix : {"", "shared_"})
        if (arrays_.contains(fmt::format("{}w1", prefix)) && !arrays_.contains(fmt::format("{}w3", prefix)))
          fail(fmt::format("`{}` needs an array `{}w3`; without one, choose another activation", name_of(activation_), prefix));
    find_unused();
    problems_.check();
    return std::move(out_);
  }

 private:
  void fail(std::string message) { problems_.add({file_, 0, 0}, std::move(message)); }

  /// The array's shape if it has as many lengths as `lengths` names, each at least 1.
  const Sizes* shape_of(const char* name, const std::string& lengths, std::size_t count) {
    const auto found = arrays_.find(name);
    if (found == arrays_.end()) {
      fail(fmt::format("there is no array `{}` {}", name, lengths));
      return nullptr;
    }
    const Sizes& shape = found->second.shape;
    if (shape.size() == count && std::ranges::all_of(shape, [](std::int64_t n) { return n > 0; })) return &shape;
    fail(fmt::format("array `{}` has the shape [{}], expected {}", name, fmt::join(shape, ","), lengths));
    return nullptr;
  }

  void read_sizes() {
    LayerShape& s = out_.shape;
    if (const Sizes* x = shape_of("x", "[tokens,hidden]", 2)) s.hidden = (*x)[1];
    const Sizes *gate = shape_of("gate", "[hidden,experts]", 2), *w1 = shape_of("w1", "[experts,hidden,ffn]", 3);
    if (gate && (*gate)[1] > kMostExperts) return fail(fmt::format("array `gate` has {} experts; there may be {}", (*gate)[1], kMostExperts));
    if (w1) s.experts = static_cast<int>(std::min((*w1)[0], kMostExperts)), s.ffn = (*w1)[2];
    if (gate && w1 && (*w1)[0] > (*gate)[1]) fail(fmt::format("array `w1` has {} experts, but `gate` has scores for {}", (*w1)[0], (*gate)[1]));
    shape_of("w2", "[experts,ffn,hidden]", 3);
    if (gate && w1) s.idle.zero = std::max(0, static_cast<int>((*gate)[1]) - s.experts);
    if (arrays_.contains("constant"))
      if (const Sizes* constant = shape_of("constant", "[constants,hidden]", 2)) {
        if ((*constant)[0] > s.idle.zero) return fail(fmt::format("array `constant` has {} experts, but `gate` has scores for {} behind those of `w1`", (*constant)[0], s.idle.zero));
        s.idle.constant = static_cast<int>((*constant)[0]), s.idle.zero -= s.idle.constant;
      }
    if (arrays_.contains("shared_w1"))
      if (const Sizes* w1 = shape_of("shared_w1", "[hidden,width]", 2)) s.shared_ffn = (*w1)[1];
  }

  void take(const std::string& name, const Sizes& expected, std::vector<float>& out) {
    const NpyArray& array = arrays_.at(name);
    if (without_ones(array.shape) != without_ones(expected)) return fail(fmt::format("array `{}` has the shape [{}], expected [{}]", name, fmt::join(array.shape, ","), fmt::join(expected, ",")));
    if (!array.is_float) return fail(fmt::format("array `{}` holds integers, expected floats", name));
    out.reserve(array.floats.size());
    for (const double v : array.floats) {
      out.push_back(static_cast<float>(v));
      if (!std::isfinite(out.back())) return fail(fmt::format("array `{}` holds a number that is not finite in float32, at place {}", name, out.size() - 1));
    }
    out_.shapes[name] = array.shape;
  }

  void take_integers(const std::string& name, const Sizes& expected, std::vector<std::int64_t>& out) {
    const NpyArray& array = arrays_.at(name);
    if (without_ones(array.shape) != without_ones(expected)) return fail(fmt::format("array `{}` has the shape [{}], expected [{}]", name, fmt::join(array.shape, ","), fmt::join(expected, ",")));
    if (array.is_float) return fail(fmt::format("array `{}` holds floats, expected integers", name));
    out = array.integers;
  }

  /// Names that may be mistyped are problems; others are told, for the file may serve other programs too.
  void find_unused() {
    std::vector<std::string> known = {"x", "r", "bias", "noise", "earlier_counts", "token_ids", "attention_mask"};
    LayerWeights none;
    for (const LayerTensor& t : tensors({}, none)) known.push_back(t.name);
    for (const auto& [name, array] : arrays_) {
      if (std::ranges::find(known, name) != known.end() || is_result(name)) continue;
      if (const std::string hint = suggest(name, known); hint.starts_with(", did you mean"))
        fail(fmt::format("array `{}` is not known{}", name, hint));
      else
        out_.unused.push_back(name);
    }
  }

  std::shared_ptr<const SourceText> file_;
  std::map<std::string, NpyArray> arrays_;
  Activation activation_;
  Diagnostics problems_;
  LayerFile out_;
};

}  // namespace

LayerFile read_layer_file(std::shared_ptr<const SourceText> file, Activation activation) { return Reader(std::move(file), activation).read(); }

std::string layer_results(const LayerFile& file, const LayerForward& f, LayerGradients* gradients) {
  NpzWriter npz;
  npz.add("y", file.shapes.at("x"), std::span<const float>(f.y));
  const Routed& r = f.routed;
  const Sizes choices = {r.tokens, r.top_k};
  npz.add("expert_ids", choices, std::span<const std::int32_t>(r.expert));
  npz.add("weights", choices, std::span<const float>(r.weight));
  const std::vector<std::int32_t> kept(r.kept.begin(), r.kept.end());
  npz.add("kept", choices, std::span<const std::int32_t>(kept));
  npz.add("weights_after", choices, std::span<const float>(r.weight_after));
  if (!gradients) return npz.bytes();
  npz.add("dx", file.shapes.at("x"), std::span<const float>(gradients->x));
  for (const LayerTensor& t : tensors(file.shape, gradients->weights))
    if (!t.values->empty()) npz.add("d" + t.name, file.shapes.at(t.name), std::span<const float>(*t.values));
  return npz.bytes();
}

}  // namespace epsim
