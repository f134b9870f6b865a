#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "cli/cli.h"
#include "cli/output_file.h"
#include "policies/loss.h"
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
  LayerShape shape;  // how it computes; the sizes are the file's
  GateBatch batch;
  std::int64_t ranks = 1;
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
  p.know("losses");
  w.top_k = static_cast<int>(p.integer("top_k", "experts that a token chooses", {}, 1, 65535));
  w.shape.activation = activation_from_name(p.choice("activation", "what an expert does between its matrices", activation_names(), "swiglu"));
  w.shape.weigh_input = p.choice("weigh", "what is multiplied by the weight of a choice: the expert's output, or its input (Llama 4)", {"output", "input"}, "output") == "input";
  w.shape.precision = precision_from_name(p.choice("precision", "format of the factors of the experts' matrix products; sums are float32", {"fp32", "bf16"}, "fp32"));
  w.batch.seed = static_cast<std::uint64_t>(p.integer("seed", "of routers and capacities that draw", 42, 0, INT64_MAX));
  w.batch.layer = static_cast<int>(p.integer("layer", "number of the layer, for what is drawn", 0, 0, 65535));
  w.ranks = p.integer("ranks", "home ranks, each with an equal block of the tokens, for parts that look at a rank's", 1, 1, 65536);
  w.batch.training = p.flag("training", "noise is drawn, and balanced assignments are made, in training only", false);
  p.finish();
  return w;
}

/// A loss beside sum(y * r), by the name it was asked for.
struct NamedLoss {
  std::string name;
  Loss loss;
};

/// `losses=balance`, `losses=[{balance: {coefficient: 0.01}}, z]`.
std::vector<NamedLoss> make_losses(const Setting* wish, const LossCatalog& catalog, const Shape* shape, Diagnostics& problems) {
  std::vector<NamedLoss> losses;
  if (!wish) return losses;
  const std::vector<Setting> one = {*wish};
  for (const Setting& s : wish->kind == Setting::Kind::list ? wish->items : one) {
    const std::size_t before = problems.size();
    Loss loss = catalog.make(s, problems, shape);
    if (problems.size() == before) losses.push_back({part_choice(s, problems).name, std::move(loss)});
  }
  return losses;
}

/// Reports where the file has others of the experts that compute nothing than the router knows of.
void check_idle_experts(const IdleExperts& idle, const Setting& setting, const LayerFile& file, Diagnostics& problems) {
  const int behind = file.shape.idle.count(), constants = file.shape.idle.constant;
  if (idle.count() != behind)
    problems.add(setting.at, fmt::format("the gate has scores for {} experts behind the {} of `w1`, but the router knows of {} that compute nothing", behind, file.shape.experts, idle.count()));
  else if (idle.constant != constants)
    problems.add(setting.at, fmt::format("the router knows of {} constant experts, but there are `constant` and `constant_gate` of {}", idle.constant, constants));
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
  sizes.experts = file.shape.experts, sizes.top_k = wanted.top_k, sizes.ranks = static_cast<int>(wanted.ranks), sizes.nodes = 1;
  const Shape* known = problems.size() == 0 ? &sizes : nullptr;
  MoeLayer layer;
  layer.router = catalogs.router.make(*wanted.root.find("router"), problems, known);
  layer.capacity = catalogs.capacity.make(*wanted.root.find("capacity"), problems, known);
  const std::vector<NamedLoss> losses = make_losses(wanted.root.find("losses"), catalogs.loss, known, problems);
  problems.check();
  const std::int64_t count = static_cast<std::int64_t>(file.x.size()) / file.shape.hidden;
  const IdleExperts& idle = layer.router.idle;
  check_idle_experts(idle, *wanted.root.find("router"), file, problems);
  if (idle.constant > 0 && wanted.shape.weigh_input) problems.add(wanted.root.find("weigh")->at, "what constant experts give is not weighed before: leave out `weigh`, or take a router without them");
  if (count % wanted.ranks != 0) problems.add(wanted.root.find("ranks")->at, fmt::format("{} ranks do not divide {} tokens", wanted.ranks, count));
  problems.check();

  layer.shape = file.shape;
  layer.shape.idle = idle;
  layer.shape.activation = wanted.shape.activation, layer.shape.weigh_input = wanted.shape.weigh_input, layer.shape.precision = wanted.shape.precision;
  for (const std::string& name : file.unused) fmt::print(stderr, "note: array `{}` of {} is not used\n", name, o.inputs);
  if (!file.bias.empty() && !layer.router.takes_bias) fmt::print(stderr, "note: array `bias` of {} is not used: this router chooses without one\n", o.inputs);
  LayerTokens tokens{file.x, wanted.batch};
  std::vector<std::int64_t> first_of_rank;
  for (std::int64_t r = 0; r <= wanted.ranks; ++r) first_of_rank.push_back(r * (count / wanted.ranks));
  tokens.batch.bias = file.bias, tokens.batch.noise = file.noise, tokens.batch.token_ids = file.token_ids, tokens.batch.counted = file.counted, tokens.batch.first_of_rank = first_of_rank;
  const LayerForward f = forward(layer, file.weights, tokens);
  LayerGradients gradients;
  std::vector<float> dlogits(losses.empty() ? 0 : f.logits.size());
  const GateBatch batch = gate_batch(layer, tokens, f.logits);
  std::string said;
  for (const NamedLoss& l : losses) said += fmt::format("{}: {:.9g}\n", l.name, l.loss.value({batch, f.routed, layer.router, file.earlier_counts, file.earlier_counts.empty() ? 0 : 1}, dlogits));
  if (!file.r.empty()) gradients = backward(layer, file.weights, tokens, f, file.r, dlogits);
  write_file(o.out, "--out", layer_results(file, f, file.r.empty() ? nullptr : &gradients));
  std::int64_t made = 0, kept = 0, of_idle = 0;
  for (std::size_t i = 0; i < f.routed.expert.size(); ++i)
    made += f.routed.expert[i] >= 0, kept += f.routed.expert[i] >= 0 && f.routed.kept[i], of_idle += f.routed.expert[i] >= layer.shape.experts;
  fmt::print("{} tokens, {} experts, {} of {} choices kept", count, layer.shape.experts, kept, made);
  if (idle.count() > 0) fmt::print(", {} of experts that compute nothing", of_idle);
  fmt::print("\n{}wrote {}{}\n", said, o.out, file.r.empty() ? "; no array `r`, so no gradients" : "");
}

}  // namespace

/// `epsim layer`: one Mixture-of-Experts layer, forwards and backwards, on given numbers.
void layer(CLI::App& app, const Catalogs& catalogs, int& result) {
  const auto o = std::make_shared<Options>();
  CLI::App* verb = app.add_subcommand("layer", "Compute one MoE layer and its gradients on given numbers");
  verb->add_option("--inputs", o->inputs, ".npz with x [T,h], gate [h,E], w1 w3 [E,h,f], w2 [E,f,h], r [T,h] (docs/layer.md names the optional ones)")->required();
  verb->add_option("--set", o->settings, "a setting: top_k=2, router=..., capacity=..., losses=..., activation=swiglu, ... (docs/layer.md; repeatable)");
  verb->add_option("--out", o->out, ".npz to write: y, and the gradients of sum(y * r) and the losses")->required();
  verb->footer("Example: epsim layer --inputs block.npz --set top_k=2 --set router=topk --out out.npz");
  verb->callback([o, &catalogs, &result] {
    run(*o, catalogs);
    result = kOk;
  });
}

}  // namespace epsim::verb
