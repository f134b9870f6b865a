#include <algorithm>
#include <optional>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "base/npz.h"
#include "cli/cli.h"
#include "cli/output_file.h"
#include "cli/route_input.h"
#include "policies/loss.h"

namespace epsim {
namespace {

struct Options {
  std::string input, out;
  std::vector<std::string> settings;
};

/// What `--set` may say besides the parts.
struct Wishes {
  int top_k = 0;
  std::uint64_t seed = 0;
  int layer = 0;
  bool training = false;
  std::int64_t ranks = 1;
};

const PartKeys kParts = {{"router", "topk"}, {"capacity", "dropless"}};

Setting settings_of(const Options& o, Diagnostics& problems) {
  Setting s;
  s.kind = Setting::Kind::map;
  const auto defaults = std::make_shared<SourceText>(SourceText{"epsim route", ""});
  for (const auto& [kind, name] : kParts) {
    Setting& part = s.get_or_add(kind, {defaults, 0, 0});
    part.kind = Setting::Kind::scalar;
    part.text = name;
  }
  for (const std::string& text : o.settings) {
    try {
      apply_override(s, text, kParts);
    } catch (const InputError& error) {
      problems.add(error);
    }
  }
  return s;
}

Wishes read_wishes(Params& p) {
  Wishes w;
  for (const auto& [kind, name] : kParts) p.know(kind);
  p.know("losses");
  w.top_k = static_cast<int>(p.integer("top_k", "experts of a token", {}, 1, 65535));
  w.seed = static_cast<std::uint64_t>(p.integer("seed", "of noise and draws", 42, 0, INT64_MAX));
  w.layer = static_cast<int>(p.integer("layer", "random numbers are keyed by it", 0, 0, 1 << 20));
  w.training = p.flag("training", "draw noise and make balanced assignments", false);
  w.ranks = p.integer("ranks", "home ranks, each with an equal block of the tokens", 1, 1, 65536);
  p.finish();
  return w;
}

/// The losses that are wished for, by name: `losses=[balance, z: {coefficient: 0.001}]`, or one alone.
std::vector<std::pair<std::string, Loss>> make_losses(const Setting* wish, const LossCatalog& catalog, const Shape* shape, Diagnostics& problems) {
  std::vector<std::pair<std::string, Loss>> losses;
  if (!wish) return losses;
  const std::vector<Setting> one = {*wish};
  for (const Setting& s : wish->kind == Setting::Kind::list ? wish->items : one) {
    const std::size_t before = problems.size();
    const PartChoice choice = part_choice(s, problems);
    if (problems.size() != before) continue;
    std::string name = choice.name;
    for (int n = 2; std::ranges::any_of(losses, [&](const auto& l) { return l.first == name; }); ++n) name = fmt::format("{}_{}", choice.name, n);
    losses.emplace_back(name, catalog.make(s, problems, shape));
  }
  return losses;
}

int run_route(const Options& o, const Catalogs& catalogs) {
  Diagnostics problems;
  std::optional<RouteInput> read;
  try {
    read = read_route_input(read_text(o.input));
  } catch (const InputError& error) {
    problems.add(error);
  }
  const Setting settings = settings_of(o, problems);
  Params p(settings, "epsim route", problems);
  const Wishes wish = read_wishes(p);
  if (read && wish.top_k > read->experts) p.error("top_k", fmt::format("top_k is {}, but there are {} experts", wish.top_k, read->experts));
  if (read && read->tokens % wish.ranks != 0) p.error("ranks", fmt::format("{} ranks do not divide {} tokens", wish.ranks, read->tokens));
  if (problems.size() > 0) {  // the parts' own settings are still worth checking
    catalogs.router.make(*settings.find("router"), problems, nullptr);
    catalogs.capacity.make(*settings.find("capacity"), problems, nullptr);
    make_losses(settings.find("losses"), catalogs.loss, nullptr, problems);
  }
  problems.check();
  const RouteInput& input = *read;

  // A router may score experts behind the model's that compute nothing; how many is known when it is made.
  Shape shape;
  shape.experts = input.experts, shape.top_k = wish.top_k, shape.ranks = static_cast<int>(wish.ranks), shape.nodes = 1;
  const Setting& router_setting = *settings.find("router");
  Router router;
  {
    Diagnostics first;
    router = catalogs.router.make(router_setting, first, &shape);
    if (const int idle = router.idle.count(); idle > 0 && idle < input.experts) {
      shape.experts = input.experts - idle;
      first = Diagnostics();
      router = catalogs.router.make(router_setting, first, &shape);
    } else if (router.idle.count() > 0) {
      first = Diagnostics();
      first.add(router_setting.at, fmt::format("{} experts compute nothing, but there are {} scores a token: none is left for experts that compute", router.idle.count(), input.experts));
    }
    try {
      first.check();
    } catch (const InputError& error) {
      problems.add(error);
    }
  }
  const Capacity capacity = catalogs.capacity.make(*settings.find("capacity"), problems, &shape);
  const auto losses = make_losses(settings.find("losses"), catalogs.loss, &shape, problems);
  problems.check();

  for (const std::string& array : input.unused) fmt::print(stderr, "note: {}: array {}\n", o.input, array);

  const bool bias_moves = std::ranges::any_of(losses, [](const auto& named) { return static_cast<bool>(named.second.next_bias); });
  if (!input.bias.empty() && !router.takes_bias && !bias_moves) fmt::print(stderr, "note: {}: array `bias` is not used: this router chooses without one\n", o.input);

  std::vector<std::int64_t> first_of_rank;
  for (std::int64_t r = 0; r <= wish.ranks; ++r) first_of_rank.push_back(r * (input.tokens / wish.ranks));
  GateBatch batch;
  batch.tokens = input.tokens, batch.experts = input.experts, batch.logits = input.logits, batch.token_ids = input.token_ids, batch.noise = input.noise;
  batch.bias = input.bias, batch.first_of_rank = first_of_rank, batch.seed = wish.seed, batch.layer = wish.layer, batch.training = wish.training, batch.counted = input.counted;
  const Routed routed = route_batch(router, capacity, batch);

  NpzWriter npz;
  const std::int64_t k = routed.top_k;
  const std::vector<std::int32_t> kept(routed.kept.begin(), routed.kept.end());
  npz.add("expert_ids", {batch.tokens, k}, std::span<const std::int32_t>(routed.expert));
  npz.add("weights", {batch.tokens, k}, std::span<const float>(routed.weight));
  npz.add("kept", {batch.tokens, k}, std::span<const std::int32_t>(kept));
  npz.add("weights_after", {batch.tokens, k}, std::span<const float>(routed.weight_after));
  npz.add("position", {batch.tokens, k}, std::span<const std::int32_t>(routed.position));
  npz.add("capacity", {static_cast<std::int64_t>(routed.capacity.size())}, std::span<const std::int64_t>(routed.capacity));
  npz.add("tokens_per_expert", {static_cast<std::int64_t>(routed.choices.size())}, std::span<const std::int64_t>(routed.choices));
  if (input.logits_computed) npz.add("logits", {batch.tokens, batch.experts}, std::span<const float>(input.logits));
  std::string said;
  for (const auto& [name, loss] : losses) {
    std::vector<float> gradient(batch.logits.size());
    const LossBatch of{batch, routed, router, input.earlier, static_cast<int>(input.earlier.empty() ? 0 : 1)};
    const double value = loss.value(of, gradient);
    npz.add(name, {}, std::span<const double>(&value, 1));
    npz.add("grad_" + name, {batch.tokens, batch.experts}, std::span<const float>(gradient));
    if (loss.next_bias) npz.add("bias_" + name, {batch.experts}, std::span<const float>(loss.next_bias(of, batch.bias)));
    said += fmt::format("{}: {:.9g}\n", name, value);
  }
  if (!o.out.empty()) write_file(o.out, "--out", npz.bytes());

  std::int64_t made = 0, held = 0, idle = 0;
  for (std::size_t i = 0; i < routed.expert.size(); ++i)
    made += routed.expert[i] >= 0, held += routed.expert[i] >= 0 && routed.kept[i], idle += routed.expert[i] >= routed.experts;
  fmt::print("{} tokens, {} experts, {} choices, {} kept, {} dropped", batch.tokens, routed.experts, made, held, made - held);
  if (router.idle.count() > 0) fmt::print(", {} of experts that compute nothing", idle);
  if (!routed.capacity.empty()) fmt::print("\ncapacity of an expert: {}{}", routed.capacity.front(), routed.capacity.size() > 1 ? fmt::format(" in the first of {} blocks", routed.capacity.size()) : "");
  fmt::print("\n{}", said);
  if (!o.out.empty()) fmt::print("wrote {}\n", o.out);
  return kOk;
}

}  // namespace

void verb::route(CLI::App& app, const Catalogs& catalogs, int& result) {
  CLI::App* sub = app.add_subcommand("route", "Route a file of gate logits: choices, weights, what capacity keeps, and losses");
  sub->footer("Example: epsim route --logits logits.npz --set top_k=2 --set router=topk --set 'capacity={megatron: {factor: 1.25}}' --set 'losses=[balance, z]' --out routed.npz");
  auto o = std::make_shared<Options>();
  sub->add_option("--logits", o->input, ".npz, .npy or .safetensors with `logits` [T, E], or `x` [T, h] and `gate` [h, E] or `gate_weight` [E, h]; optional arrays: docs/routing.md")->required();
  sub->add_option("--set", o->settings, "top_k=N (needed), router=, capacity=, losses=, seed=, training=, ranks= and their settings, such as capacity.factor=1.25 (repeatable)");
  sub->add_option("--out", o->out, "the .npz file to write");
  sub->callback([o, &catalogs, &result] { result = run_route(*o, catalogs); });
}

}  // namespace epsim
