#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "cli/cli.h"
#include "cli/output_file.h"
#include "sim/moe/layer_file.h"

namespace epsim::verb {
namespace {

struct Options {
  std::string inputs, out;
  std::vector<std::string> settings;
};

const PartKeys& part_keys() {
  static const PartKeys keys = {{"router", "topk"}, {"capacity", "dropless"}};
  return keys;
}

/// What the settings say of a layer; parts are made when the file's sizes are known.
struct Wanted {
  Setting root;
  int top_k = 1;
  LayerShape shape;
  GateBatch batch;
};

Setting named_part(const std::string& name, Location at) {
  Setting s;
  s.kind = Setting::Kind::scalar;
  s.text = name, s.at = std::move(at);
  return s;
}

Wanted read_settings(const std::vector<std::string>& assignments, Diagnostics& problems) {
  Wanted w;
  w.root.kind = Setting::Kind::map;
  w.root.at = {std::make_shared<const SourceText>(SourceText{"epsim layer", {}}), 0, 0};
  for (const std::string& assignment : assignments) try {
      apply_override(w.root, assignment, part_keys());
    } catch (const InputError& e) {
      problems.add(e);
    }
  for (const auto& [kind, name] : part_keys())
    if (!w.root.find(kind)) w.root.get_or_add(kind, w.root.at) = named_part(name, w.root.at);
  Params p(w.root, "epsim layer", problems);
  for (const auto& [kind, name] : part_keys()) p.know(kind);
  w.top_k = static_cast<int>(p.integer("top_k", "experts that a token chooses", {}, 1, 65535));
  w.shape.activation = activation_from_name(p.choice("activation", "what an expert does between its matrices", activation_names(), "swiglu"));
  w.shape.weigh_input = p.choice("weigh", "what is multiplied by the weight of a choice: the expert's output, or its input (Llama 4)", {"output", "input"}, "output") == "input";
  w.shape.precision = precision_from_name(p.choice("precision", "format of the factors of the experts' matrix products; sums are float32", {"fp32", "bf16"}, "fp32"));
  w.batch.seed = static_cast<std::uint64_t>(p.integer("seed", "of routers and capacities that draw", 0));
  w.batch.layer = static_cast<int>(p.integer("layer", "number of the layer, for what is drawn", 0, 0, 65535));
  w.batch.training = p.flag("training", "noise is drawn, and balanced assignments are made, in training only", true);
  p.finish();
  return w;
}

void run(const Options& o, const Catalogs& catalogs) {
  Diagnostics problems;
  Wanted wanted = read_settings(o.settings, problems);
  LayerFile file;
  try {
    file = read_layer_file(read_text(o.inputs), wanted.shape.activation);
  } catch (const InputError& e) {
    problems.add(e);
  }
  // A broken file must not hide a misspelt part.
  Shape sizes;
  sizes.experts = file.shape.experts, sizes.top_k = wanted.top_k, sizes.ranks = sizes.nodes = 1;
  const Shape* known = problems.size() == 0 ? &sizes : nullptr;
  MoeLayer layer;
  layer.router = catalogs.router.make(*wanted.root.find("router"), problems, known);
  layer.capacity = catalogs.capacity.make(*wanted.root.find("capacity"), problems, known);
  if (problems.size() == 0 && file.shape.idle_experts != layer.router.idle_experts)
    problems.add(wanted.root.at, fmt::format("{}: the gate has {} columns, but there are {} experts in `w1` and the router has {} that compute nothing", o.inputs, file.shape.columns(),
                                             file.shape.experts, layer.router.idle_experts));
  problems.check();

  layer.shape = file.shape;
  layer.shape.activation = wanted.shape.activation, layer.shape.weigh_input = wanted.shape.weigh_input, layer.shape.precision = wanted.shape.precision;
  for (const std::string& name : file.unused) fmt::print(stderr, "note: array `{}` of {} is not used\n", name, o.inputs);
  LayerTokens tokens{file.x, wanted.batch};
  tokens.batch.bias = file.bias;
  const LayerForward f = forward(layer, file.weights, tokens);
  LayerGradients gradients;
  if (!file.r.empty()) gradients = backward(layer, file.weights, tokens, f, file.r);
  write_file(o.out, "--out", layer_results(file, f, file.r.empty() ? nullptr : &gradients));
  const std::int64_t kept = f.dispatch.rows(), choices = f.routed.tokens * f.routed.top_k;
  fmt::print("{} tokens, {} experts, {} of {} choices kept\nwrote {}{}\n", f.routed.tokens, layer.shape.experts, kept, choices, o.out,
             file.r.empty() ? "; no array `r`, so no gradients" : "");
}

}  // namespace

/// `epsim layer`: one Mixture-of-Experts layer, forwards and backwards, on given numbers.
void layer(CLI::App& app, const Catalogs& catalogs, int& result) {
  const auto o = std::make_shared<Options>();
  CLI::App* verb = app.add_subcommand("layer", "Compute one MoE layer and its gradients on given numbers");
  verb->add_option("--inputs", o->inputs, ".npz with x [T,h], gate [h,E], w1 w3 [E,h,f], w2 [E,f,h], r [T,h] (docs/layer.md names the optional ones)")->required();
  verb->add_option("--set", o->settings, "a setting: top_k=2, router=..., capacity=..., activation=swiglu, ... (docs/layer.md; repeatable)");
  verb->add_option("--out", o->out, ".npz to write: y, and the gradients of sum(y * r)")->required();
  verb->footer("Example: epsim layer --inputs block.npz --set top_k=2 --set router=topk --out out.npz");
  verb->callback([o, &catalogs, &result] {
    run(*o, catalogs);
    result = kOk;
  });
}

}  // namespace epsim::verb
