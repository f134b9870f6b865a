#include "sim/train/training.h"

#include <algorithm>
#include <filesystem>
#include <set>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "sim/train/record.h"
#include "workloads/import/recording.h"

namespace epsim {
namespace {

const PartKeys kParts = {{"router", "topk"}, {"capacity", "dropless"}};
/// Keys of the experiment as a whole, which a variant cannot have.
const std::vector<std::string> kOfAll = {"variants", "seeds", "text", "held_out", "title", "panels"};

Setting named_part(const std::string& name, Location at) {
  Setting s;
  s.kind = Setting::Kind::scalar;
  s.text = name, s.at = std::move(at);
  return s;
}

/// Reads `text`, a path or a list of them, one after another.
std::string read_texts(Params& p, const std::vector<std::string>& given, Diagnostics& problems) {
  std::vector<std::string> files = given;
  p.custom("text", "a path, or a list of paths", "", "the text to learn, files one after another", [&](const Setting& value, Diagnostics& found) {
    if (!given.empty()) return;
    const std::vector<Setting> one = {value};
    for (const Setting& s : value.kind == Setting::Kind::list ? value.items : one)
      s.is_scalar() && !s.text.empty() ? files.push_back(resolve_path(s.text, s.at)) : found.add(s.at, "`text` must be a path, or a list of paths");
  });
  if (!p.has("text") && given.empty()) p.error("text", "a training needs `text` (a path, or a list of paths): what is to be learnt; or --text FILE");
  std::string all;
  for (const std::string& file : files) try {
      all += read_text(file)->text;
    } catch (const InputError& e) {
      problems.add(e);
    }
  return all;
}

/// Where the text was named: on the command line, or in the file.
Location text_at(const Params& p, const std::vector<std::string>& given) {
  return given.empty() ? p.at("text") : Location{std::make_shared<SourceText>(SourceText{"--text", fmt::format("{}", fmt::join(given, " "))}), 1, 1};
}

std::vector<Loss> read_losses(const Setting* wish, const LossCatalog& catalog, const Shape* shape, Diagnostics& problems) {
  std::vector<Loss> losses;
  if (!wish) return losses;
  const std::vector<Setting> one = {*wish};
  for (const Setting& s : wish->kind == Setting::Kind::list ? wish->items : one) losses.push_back(catalog.make(s, problems, shape));
  return losses;
}

void read_model(Params p, Training& t, bool& dense) {
  TextModelShape& s = t.model.shape;
  s.layers = static_cast<int>(p.integer("layers", "blocks, each a mixer and an MoE layer", 2, 1, 256));
  s.moe.hidden = p.integer("hidden", "length of a token's vector", 48, 1, 1 << 14);
  s.taps = static_cast<int>(p.integer("taps", "bytes that a mixer's convolution sees, the token's own among them", 6, 1, 1024));
  s.moe.experts = static_cast<int>(p.integer("experts", "of each layer", 8, 1, kMostExperts));
  s.moe.ffn = p.integer("expert_ffn", "inner width of an expert", 48, 1, 1 << 16);
  t.top_k = static_cast<int>(p.integer("top_k", "experts that a token chooses", 2, 1, kMostExperts));
  s.moe.shared_ffn = p.integer("shared_ffn", "inner width of the shared expert; 0: there is none", 0, 0, 1 << 16);
  s.moe.activation = activation_from_name(p.choice("activation", "of experts", {"swiglu", "clamped_swiglu"}, "swiglu"));
  dense = p.flag("dense", "in place of the experts one layer that every token goes through, as wide as a token's experts and the shared one together", false);
  t.init.router_scale = p.number("router_init", "the gate's weights begin with this over the square root of `hidden` as their standard deviation", 1);
  t.init.same_experts = p.choice("experts_init", "of the experts of a layer: each drawn for itself, or copies of one (sparse upcycling)", {"own", "same"}, "own") == "same";
  p.finish();
}

void read_optimiser(Params& p, Optimiser& o) {
  o.learning_rate = p.number("learning_rate", "of AdamW", 3e-3);
  o.router_learning_rate = p.number("router_learning_rate", "of the gates", o.learning_rate, 0, 1e300, "`learning_rate`");
  o.warmup = static_cast<int>(p.integer("warmup", "steps over which the rates rise to their full size", 10, 0, 1 << 24));
  o.final_share = p.number("final_rate", "share of the rates that is left at the last step; they fall in a straight line", 0.1, 0, 1);
  o.beta1 = p.number("beta1", "memory of AdamW's mean", 0.9, 0, 0.9999);
  o.beta2 = p.number("beta2", "memory of AdamW's mean square", 0.95, 0, 0.999999);
  o.weight_decay = p.number("weight_decay", "of AdamW, for matrices", 0.01);
  o.clip = p.number("clip", "a longer gradient, of all weights together, is shortened to this; 0: never", 1);
}

/// Reads what one run is; `seed` takes the place of the file's.
Training read_run(const Setting& root, const std::vector<std::string>& texts, std::optional<std::uint64_t> seed, const Catalogs& catalogs, Diagnostics& problems) {
  Training t;
  Setting settings = root;
  for (const auto& [kind, name] : kParts)
    if (!settings.find(kind)) settings.get_or_add(kind, settings.at) = named_part(name, settings.at);
  const std::size_t before = problems.size();
  Params p(settings, "epsim train", problems);
  for (const char* key : {"router", "capacity", "losses", "variants", "seeds", "title", "panels"}) p.know(key);
  if (seed && p.has("seed")) p.error("seed", "`seeds` are given: `seed` has no effect");
  t.seed = static_cast<std::uint64_t>(p.integer("seed", "of weights, of the places in the text, and of routers that draw", 1, 0, INT64_MAX));
  if (seed) t.seed = *seed;
  bool dense = false;
  read_model(p.section("model", "the model"), t, dense);
  t.init.seed = t.seed;
  t.steps = static_cast<int>(p.integer("steps", "of training", 300, 1, 1 << 24));
  t.batch = p.integer("batch", "sequences of a step", 16, 1, 1 << 20);
  t.sequence = p.integer("sequence", "bytes of a sequence", 64, 1, 1 << 20);
  read_optimiser(p, t.optimiser);
  t.evaluate_every = static_cast<int>(p.integer("evaluate_every", "steps between looks at the held-out text", 25, 1, 1 << 24));
  t.held_out_batches = static_cast<int>(p.integer("held_out_batches", "batches of held-out text in such a look, spread evenly over it", 4, 1, 1 << 20));
  t.checkpoint_every = static_cast<int>(p.integer("checkpoint_every", "steps between checkpoints", 100, 1, 1 << 24));
  t.trace_tokens = p.integer("trace_tokens", "tokens of held-out text whose choices are recorded at the end, in whole batches; 0: none", 4096, 0, 1 << 24);
  t.trace_weights = p.flag("trace_weights", "choices are recorded with their weights", true);
  if (t.trace_tokens == 0 && p.has("trace_weights")) p.error("trace_weights", "no choices are recorded (`trace_tokens: 0`): this has no effect");
  const double held_out = p.number("held_out", "share of the text, at its end, that is held out", 0.1, 0.001, 0.9);
  const std::string bytes = read_texts(p, texts, problems);
  p.finish();

  Shape sizes;
  sizes.experts = t.model.shape.moe.experts, sizes.top_k = t.top_k, sizes.ranks = sizes.nodes = 1;
  const Shape* known = problems.size() == before ? &sizes : nullptr;
  t.model.moe.router = catalogs.router.make(*settings.find("router"), problems, known);
  t.model.moe.capacity = catalogs.capacity.make(*settings.find("capacity"), problems, known);
  t.model.losses = read_losses(settings.find("losses"), catalogs.loss, known, problems);
  if (t.biased() && known && !t.model.moe.router.takes_bias) problems.add(settings.find("losses")->at, "a loss moves a bias by which this router does not choose: take another router, such as topk, or another loss");
  if (problems.size() != before) return t;
  if (dense) {
    LayerShape& s = t.model.shape.moe;
    s.ffn = t.top_k * s.ffn + s.shared_ffn, s.shared_ffn = 0, s.experts = t.top_k = 1;
    Shape one;
    one.experts = one.top_k = one.ranks = one.nodes = 1;
    t.model.moe.router = catalogs.router.make(named_part("topk", settings.at), problems, &one);
    t.model.moe.capacity = catalogs.capacity.make(named_part("dropless", settings.at), problems, &one);
    t.model.losses.clear();
  }
  t.model.shape.moe.idle = t.model.moe.router.idle;
  t.model.moe.shape = t.model.shape.moe;
  t.text = split_text(bytes, held_out);
  if (static_cast<std::int64_t>(t.text.train.size()) <= t.sequence || held_out_sequences(t.text, t.sequence) < t.batch)
    problems.add(text_at(p, texts), fmt::format("the text has {} bytes, of which {} are held out: too few for a batch of {} sequences of {} bytes", bytes.size(), t.text.held_out.size(), t.batch, t.sequence));
  t.resolved = settings;
  if (seed) t.resolved.get_or_add("seed", settings.at) = named_part(std::to_string(*seed), settings.at);
  return t;
}

/// The variants as they are written: names, and what each changes.
std::vector<std::pair<std::string, Setting>> read_variants(const Setting& root, Diagnostics& problems) {
  const Setting* wish = root.find("variants");
  if (!wish) return {{"", Setting{}}};
  std::vector<std::pair<std::string, Setting>> variants;
  if (!wish->is_map() || wish->entries.empty()) problems.add(wish->at, "`variants` must be a map of a name to the settings that it changes");
  for (const Setting::Entry& e : wish->entries) {
    if (e.key.find_first_of("/\\,\"\n") != std::string::npos || e.key.starts_with('.') || e.key.empty()) problems.add(e.at, "a variant's name becomes a folder's and stands in tables: no slashes, commas, quotes or line ends, and no dot in front");
    if (!e.value.is_map() && e.value.kind != Setting::Kind::null) problems.add(e.value.at, fmt::format("expected the settings that `{}` changes as {{key: value}}", e.key));
    for (const std::string& key : kOfAll)
      if (e.value.find(key)) problems.add(e.value.find(key)->at, fmt::format("`{}` is for all variants alike", key));
    variants.emplace_back(e.key, e.value);
  }
  return variants;
}

std::vector<std::optional<std::uint64_t>> read_seeds(const Setting& root, Diagnostics& problems) {
  const Setting* wish = root.find("seeds");
  if (!wish) return {std::nullopt};
  std::vector<std::optional<std::uint64_t>> seeds;
  if (wish->kind == Setting::Kind::list)
    for (const Setting& s : wish->items) {
      const auto seed = s.is_scalar() ? parse_integer(s.text) : std::nullopt;
      if (!seed || *seed < 0 || std::ranges::find(seeds, std::optional(static_cast<std::uint64_t>(*seed))) != seeds.end()) problems.add(s.at, "a seed is an integer of at least 0, and given once");
      else seeds.emplace_back(static_cast<std::uint64_t>(*seed));
    }
  if (seeds.empty() && problems.size() == 0) problems.add(wish->at, "`seeds` must be a list of integers");
  return seeds;
}

std::vector<std::string> read_panels(const Setting* wish, Diagnostics& problems) {
  if (!wish) return {"held_out_loss", "imbalance"};
  std::vector<std::string> panels;
  const std::vector<Setting> one = {*wish};
  std::vector<std::string> known;
  for (const RecordColumn& c : record_columns()) known.emplace_back(c.name);
  for (const Setting& s : wish->kind == Setting::Kind::list ? wish->items : one)
    if (s.is_scalar() && std::ranges::find(known, s.text) != known.end()) panels.push_back(s.text);
    else problems.add(s.at, fmt::format("`panels` names columns of steps.csv{}", suggest(s.text, known)));
  return panels;
}

}  // namespace

bool Training::biased() const {
  return std::ranges::any_of(model.losses, [](const Loss& loss) { return static_cast<bool>(loss.next_bias); });
}

TrainingFile read_training(std::shared_ptr<const SourceText> file, const std::vector<std::string>& overrides, const std::vector<std::string>& texts, const Catalogs& catalogs) {
  TrainingFile out;
  out.name = std::filesystem::path(file->name).stem().string();
  Diagnostics problems;
  Setting root = parse_yaml(file);
  if (!root.is_map()) throw InputError(root.at.source ? root.at : Location{file, 1, 1}, "expected an experiment of `epsim train` as key: value");
  for (const std::string& assignment : overrides) try {
      apply_override(root, assignment, kParts);
    } catch (const InputError& e) {
      problems.add(e);
    }
  const Setting* title = root.find("title");
  if (title && !title->is_scalar()) problems.add(title->at, "`title` must be a text");
  out.title = title ? title->text : out.name;
  out.panels = read_panels(root.find("panels"), problems);
  const auto variants = read_variants(root, problems);
  const auto seeds = read_seeds(root, problems);
  problems.check();
  std::set<std::string> said;  // a problem of what variants share is theirs all
  for (const auto& [name, changes] : variants) {
    out.variants.push_back(name);
    Setting settings = root;
    std::erase_if(settings.entries, [](const Setting::Entry& e) { return e.key == "variants" || e.key == "seeds" || e.key == "title" || e.key == "panels"; });
    if (changes.is_map()) overlay(settings, changes, kParts);
    for (const auto& seed : seeds) {
      Diagnostics found;
      Training run = read_run(settings, texts, seed, catalogs, found);
      try {
        found.check();
      } catch (const InputError& error) {
        for (const Diagnostic& d : error.problems())
          if (said.insert(render(d)).second) problems.add(d.at, d.message);
      }
      run.variant = name;
      run.name = name.empty() ? out.name : name;
      if (seed) run.name += fmt::format("-seed{}", *seed);
      out.runs.push_back(std::move(run));
    }
  }
  problems.check();
  return out;
}

}  // namespace epsim
