#include "sim/experiment.h"

#include <algorithm>
#include <cmath>
#include <filesystem>

#include <fmt/format.h>

#include "policies/routed.h"
#include "sim/compressed.h"
#include "topology/faults.h"

namespace epsim {
namespace {

/// The part each kind takes where neither the file nor the model names one.
const PartKeys& part_keys() {
  static const PartKeys keys = {{"cluster", "single_switch"}, {"source", "lognormal"},       {"router", "topk"},    {"capacity", "dropless"}, {"compression", "none"}, {"placement", "contiguous"},
                                {"replica", "round_robin"},   {"shared_expert", "own"}, {"exchange", "hierarchical"}, {"network", "fair"}, {"compute", "roofline"}};
  return keys;
}

Setting defaults() {
  Setting s;
  s.kind = Setting::Kind::map;
  const auto source = std::make_shared<SourceText>(SourceText{"built-in defaults", ""});
  for (const char* kind : {"router", "capacity", "placement", "replica", "shared_expert", "exchange", "network", "compute"}) {
    Setting& value = s.get_or_add(kind, {source, 0, 0});
    value.kind = Setting::Kind::scalar;
    value.text = part_keys().find(kind)->second;
  }
  return s;
}

/// The format experts compute in where the file does not say: that of the weights, but 4-bit weights are widened to bf16 first.
Precision computing_precision(Precision weights) { return weights == Precision::fp4 ? Precision::bf16 : weights; }

std::vector<int> chosen_layers(const Model& model, const std::optional<std::vector<int>>& wish, Params& top) {
  if (!wish) return model.moe_layers;
  if (wish->empty())
    top.error("layers", fmt::format("`layers` is empty: give one or more, or leave it out for all {} MoE layers of {}", model.moe_layers.size(), model.name));
  for (const int layer : *wish)
    if (!std::binary_search(model.moe_layers.begin(), model.moe_layers.end(), layer)) {
      const int first = model.moe_layers.empty() ? 0 : model.moe_layers.front(), last = model.moe_layers.empty() ? 0 : model.moe_layers.back();
      top.error("layers", fmt::format("layer {} of {} is no MoE layer (it has {} of them, from {} to {})", layer, model.name, model.moe_layers.size(), first, last));
      break;
    }
  return *wish;
}

/// Files that are no experiments, but something else that is known.
void refuse_other_kinds(const Setting& root) {
  if (root.find("cluster") || root.find("source")) return;
  const auto refuse = [&](const char* key, const char* message) {
    if (const Setting* value = root.find(key)) throw InputError(value->at, message);
  };
  refuse("model_type", "this is a model's config.json, no experiment: name it there as `model: FILE`, or see `epsim model FILE`");
  refuse("text", "this is a training, no experiment: use `epsim train FILE`");
}

/// Reads the settings that belong to no part into `e`; gives the documentation of all of them. `model` is null while listing and when the model itself is broken.
std::vector<ParamDoc> read_top(Params& top, const Model* model, Experiment& e, std::optional<std::vector<int>>& layers) {
  e.seed = static_cast<std::uint64_t>(top.integer("seed", "random seed: same seed, same bytes out", 42, 0, INT64_MAX));
  top.text("model", "a preset (see `epsim list model`) or the path of a Hugging Face config.json");
  layers = top.ranges("layers", "indices of the MoE layers to run");

  const std::string fit = top.text("fit", "batches that placements are made from, first:last, such as 0:50%; without it each batch is placed for itself", "");
  const std::string eval = top.text("eval", "batches that are played, first:last, such as 50%:100%; those that `fit` leaves, or all", "");
  constexpr int kBatchesOfSplit = 8;
  e.batches = static_cast<int>(top.integer("batches", "batches of tokens, one after another", fit.empty() && eval.empty() ? 1 : kBatchesOfSplit, 1, 1'000'000, "1, or 8 with `fit` or `eval`"));
  e.fit = read_batches(top, "fit", fit, e.batches);
  e.eval = read_batches(top, "eval", eval, e.batches);
  if (eval.empty()) e.eval = {e.fit.last, e.batches};
  if (eval.empty() && e.eval.count() <= 0)
    top.error(
        "fit",
        e.fit.first == 0
            ? fmt::format("`fit` takes all {} batches: none is left to be played; give `eval` as well, or more `batches`", e.batches)
            : fmt::format(
                  "without `eval` the batches behind `fit` are played, and it ends with the last of {}: give those before it, `eval: 0:{}`, or more `batches`",
                  e.batches, e.fit.first));
  std::vector<ParamDoc> of_failures;
  e.changes = read_changes(top, of_failures);
  const bool other_ranks = std::ranges::any_of(e.changes.events, [](const Event& event) { return !event.fail.empty() || !event.join.empty(); });
  Params rebalance = top.section("rebalance", "when and from what placements are made anew");
  e.rebalance = read_rebalance(rebalance, !fit.empty(), other_ranks);
  rebalance.finish();

  Params precision = top.section("precision", "number formats on the wire and in the experts");
  const Precision own = model ? model->weights : Precision::bf16;
  e.pricing.weights = precision_from_name(precision.choice("weights", "format of the experts' weights; the model's own unless given", precision_names(), std::string(name_of(own))));
  e.compute_precision = precision_from_name(precision.choice("compute", "format the experts compute in; that of the weights unless given, but bf16 for fp4", precision_names(),
                                                             std::string(name_of(computing_precision(e.pricing.weights)))));
  e.pricing.dispatch = precision_from_name(precision.choice("dispatch", "format of rows to the experts", precision_names(), "bf16"));
  e.pricing.combine = precision_from_name(precision.choice("combine", "format of rows back from the experts", precision_names(), "bf16"));
  e.pricing.dispatch_extra = precision.bytes("dispatch_extra", "added to each dispatched row, such as scales and ids", Bytes{0});
  e.pricing.combine_extra = precision.bytes("combine_extra", "added to each returned row", Bytes{0});
  precision.finish();

  Params execute = top.section("execute", "sizes of the real experts, where they should be smaller than the model's");
  e.execute_hidden = execute.integer("hidden", "length of a token vector in `epsim execute`", model ? model->hidden : 1, 1, 1 << 20, "the model's");
  e.execute_ffn = execute.integer("ffn", "inner width of an expert in `epsim execute`", model ? model->expert_ffn : 1, 1, 1 << 20, "the model's");
  execute.finish();

  std::vector<ParamDoc> docs;
  const auto add = [&docs](const std::string& prefix, const Params& params) {
    for (const ParamDoc& d : params.docs())
      if (d.type != "a map") docs.push_back({prefix + d.key, d.type, d.fallback, d.help});
  };
  add("", top), add("rebalance.", rebalance), add("precision.", precision), add("execute.", execute);
  docs.insert(docs.end(), of_failures.begin(), of_failures.end());
  return docs;
}

/// Puts a compression in force: model, source and `gate` become those of what is left. `gate_of` makes the gate for fewer experts.
void compress(Experiment& e, const Compression& compression, Router& gate, const std::function<Router(int experts)>& gate_of) {
  const bool has_choices = e.source.yields == Source::Yields::choices;
  const int whole = e.model.num_experts;
  e.compressed = std::make_shared<const Compressed>(compression, Uncompressed{e.source, has_choices ? Router{} : gate, whole, e.model.top_k, e.seed, e.fit.count() > 0 ? e.fit : e.eval});
  e.source = without_pruned(e.compressed);
  if (e.compressed->columns() < whole) gate = gate_of(e.compressed->columns());
  const bool merges = compression.experts < whole - compression.pruned, drops = has_choices && compression.pruned > 0;
  if (merges || drops || compression.skips) gate.may_choose_fewer = true;
  if (merges || drops) e.model.expert_groups = 1;  // neighbours in a group of the gate are no neighbours any more
  e.model.num_experts = compression.experts;
  e.notes.push_back(fmt::format("compression: {} experts of a layer become {}{}", whole, compression.experts, compression.skips ? ", and some choices are not made" : ""));
}

/// `slots` of the part, if given: as many on each rank that is up as before, or more where experts need them.
Setting with_slots_of(Setting part, const Shape& all, int up) {
  if (!part.is_map() || part.entries.empty() || !part.entries.front().value.is_map()) return part;
  for (Setting::Entry& entry : part.entries.front().value.entries)
    if (const auto slots = entry.value.is_scalar() && entry.key == "slots" ? parse_integer(entry.value.text) : std::nullopt)
      entry.value.text = std::to_string(std::max<std::int64_t>(*slots / all.ranks, (all.experts + up - 1) / up) * up);
  return part;
}

/// The parts for the ranks that are up. A placement that cannot do with what is left of the nodes is made for one node, as SGLang's `elasticity_aware` ignores nodes. What a part has against fewer ranks is reported with their number.
std::shared_ptr<const Survivors> with_parts(Survivors s, const Era& era, const Setting& settings, const Shape& all, const Catalogs& catalogs, Diagnostics& problems) {
  Shape shape = all;
  shape.ranks = s.topology.ranks(), shape.nodes = s.topology.nodes();
  const auto make = [&](const auto& catalog, const Shape& of, Diagnostics& found) { return catalog.make(with_slots_of(*settings.find(catalog.kind()), all, shape.ranks), found, &of); };
  const auto report = [&](const Diagnostics& found) {
    try {
      found.check();
    } catch (const InputError& error) {
      for (const Diagnostic& d : error.problems()) problems.add(d.at, fmt::format("{} (for the {} ranks that are up from batch {} on)", d.message, shape.ranks, era.batch));
    }
  };
  Diagnostics found;
  s.capacity = make(catalogs.capacity, shape, found);
  s.replica = make(catalogs.replica, shape, found);
  s.exchange = make(catalogs.exchange, shape, found);
  report(found);
  Diagnostics of_nodes, of_one_node;
  s.placement = make(catalogs.placement, shape, of_nodes);
  if (of_nodes.size() > 0) {
    shape.nodes = 1;
    s.placement = make(catalogs.placement, shape, of_one_node);
    s.placing = as_one_node(s.topology);
    report(of_one_node.size() > 0 ? of_nodes : of_one_node);
  }
  return std::make_shared<const Survivors>(std::move(s));
}

}  // namespace

std::vector<ParamDoc> experiment_settings() {
  Params listing;
  Experiment ignored;
  std::optional<std::vector<int>> layers;
  return read_top(listing, nullptr, ignored, layers);
}

Catalogs builtin_catalogs() {
  return {builtin_clusters(),   builtin_sources(),       builtin_routers(),   builtin_capacities(), builtin_placements(),
          builtin_replica_rules(), builtin_shared_expert_rules(), builtin_exchanges(), builtin_networks(), builtin_computes(),   builtin_losses(), builtin_compressions()};
}

Routing Experiment::routing() const { return make_routing(source, model.num_experts, model.top_k, router, capacity.order == Capacity::Order::priority); }

const Era& Experiment::era(int batch) const {
  static const Era unchanged;
  const Era* of = eras.empty() ? &unchanged : &eras.front();
  for (const Era& era : eras)
    if (era.batch <= batch) of = &era;
  return *of;
}

std::string Experiment::part(std::string_view kind) const {
  const Setting* s = resolved.find(kind);
  if (!s) return "";
  if (!s->is_map()) return s->text;
  const Setting::Entry& e = s->entries.front();
  return e.value.is_map() && !e.value.entries.empty() ? fmt::format("{} {}", e.key, to_yaml(e.value)) : e.key;
}

Experiment read_experiment(std::shared_ptr<const SourceText> file, const std::vector<std::string>& overrides, const Catalogs& catalogs) {
  Diagnostics problems;
  Setting root = parse_yaml(file);
  if (!root.is_map()) throw InputError({file, root.at.line, root.at.column}, "expected an experiment: a map of key: value");

  refuse_other_kinds(root);
  Experiment e;
  e.name = std::filesystem::path(file->name).stem().string();

  // The model brings defaults for other keys, so it is read before they are laid on each other; an override may change it.
  Setting with_overrides = root;
  for (const std::string& o : overrides) {
    try {
      apply_override(with_overrides, o, part_keys());
    } catch (const InputError& error) {
      problems.add(error);
    }
  }
  bool model_known = false;
  if (const Setting* m = with_overrides.find("model"); m && m->is_scalar()) {
    try {
      e.model = load_model(m->text, m->at);
      model_known = true;
    } catch (const InputError& error) {
      problems.add(error);
    }
  }

  Setting settings = defaults();
  if (model_known && e.model.router.kind != Setting::Kind::null) settings.get_or_add("router", e.model.router.at) = e.model.router;
  overlay(settings, root, part_keys());
  for (const std::string& o : overrides) {
    try {
      apply_override(settings, o, part_keys());
    } catch (const InputError&) {  // said above
    }
  }
  settings.at = {file, 1, 1};

  Params top(settings, "an experiment", problems);
  std::optional<std::vector<int>> layers;
  read_top(top, model_known ? &e.model : nullptr, e, layers);
  if (!top.has("cluster")) problems.add(settings.at, fmt::format("an experiment needs `cluster`: {}", fmt::join(catalogs.cluster.names(), ", ")));
  if (!top.has("source")) problems.add(settings.at, fmt::format("an experiment needs `source`: {}", fmt::join(catalogs.source.names(), ", ")));
  for (const auto& [kind, fallback] : part_keys()) top.know(kind);  // the catalogs read these
  top.finish();

  if (const Setting* cluster = settings.find("cluster")) e.topology = catalogs.cluster.make(*cluster, problems);
  // A broken cluster counts as one rank, so that what can be checked against the model alone still is.
  const int ranks = std::max(1, e.topology.ranks()), nodes = std::max(1, e.topology.nodes());
  if (model_known) e.layers = chosen_layers(e.model, layers, top);

  // A router may score experts that compute nothing: the source must know of them.
  Diagnostics router_problems;
  const Shape gate_shape{e.model.num_experts, e.model.top_k, ranks, nodes, e.model.expert_groups};
  Router gate;
  if (const Setting* s = settings.find("router")) gate = catalogs.router.make(*s, router_problems, model_known ? &gate_shape : nullptr);
  const SourceContext source_context{e.model.num_experts + gate.idle.count(), e.model.top_k, ranks, e.execute_hidden, e.seed, e.layers, e.batches, e.model.moe_layers};
  const std::size_t before_source = problems.size();
  if (const Setting* source = settings.find("source")) e.source = catalogs.source.make(*source, problems, model_known ? &source_context : nullptr);
  if (e.source.gate && model_known && e.execute_hidden != e.model.hidden)
    problems.add(settings.find("source")->at, "a real gate needs the model's own token vectors: leave out `execute.hidden`, or take a source without a gate");

  const bool has_choices = e.source.yields == Source::Yields::choices;
  if (problems.size() > before_source) e.source.has_weights = true;  // what is broken says nothing of weights
  const Shape whole{e.model.num_experts, e.model.top_k, ranks, nodes, e.model.expert_groups, has_choices, e.source.has_weights};
  Compression compression;
  const Setting* wish = settings.find("compression");
  if (wish) compression = catalogs.compression.make(*wish, problems, model_known ? &whole : nullptr);
  if (compression.decide && compression.sees == Compression::Sees::outputs)
    problems.add(wish->at, fmt::format("`{}` is decided from what experts give, which no source knows: let `epsim compress` decide it for a trained model, and take `compression: {{given: {{file: ...}}}}`",
                                       part_choice(*wish, problems).name));
  if (compression.decide)
    compress(e, compression, gate, [&](int experts) {
      Shape fewer = gate_shape;
      fewer.experts = experts;
      const Setting* s = settings.find("router");
      return s ? catalogs.router.make(*s, router_problems, &fewer) : Router{};
    });
  const Shape shape{e.model.num_experts, e.model.top_k, ranks, nodes, e.model.expert_groups, has_choices, e.source.has_weights};
  const Shape* known = model_known ? &shape : nullptr;
  const auto make = [&](const auto& catalog, auto... context) {
    const Setting* s = settings.find(catalog.kind());
    using Part = decltype(catalog.make(*s, problems, context...));
    return s ? catalog.make(*s, problems, context...) : Part{};
  };
  if (has_choices) {
    if (const Setting* router = with_overrides.find("router"))
      problems.add(router->at, fmt::format("the source `{}` brings its own choices: a router has no effect", part_choice(*settings.find("source"), problems).name));
    std::erase_if(settings.entries, [](const Setting::Entry& entry) { return entry.key == "router"; });
    e.router.may_choose_fewer = e.compressed && gate.may_choose_fewer;
  } else {
    try {
      router_problems.check();
    } catch (const InputError& error) {
      problems.add(error);
    }
    e.router = std::move(gate);
  }
  e.capacity = make(catalogs.capacity, known);
  e.placement = make(catalogs.placement, known);
  e.replica = make(catalogs.replica, known);
  e.shared_expert = make(catalogs.shared_expert, known);
  if (e.shared_expert.choose && model_known && e.model.shared_ffn == 0) problems.add(settings.find("shared_expert")->at, fmt::format("{} has no shared expert: leave this out", e.model.name));
  e.exchange = make(catalogs.exchange, known);
  e.network = make(catalogs.network);
  e.compute = make(catalogs.compute);
  if (e.topology.ranks() > 0) {
    if (static_cast<int>(e.changes.speeds.size()) > ranks) top.error("speeds", fmt::format("{} speeds are given for {} ranks", e.changes.speeds.size(), ranks));
    if (e.eval.count() > 0) e.eras = eras_of(e.changes, e.topology, e.eval, problems);
  }
  problems.check();
  for (Era& era : e.eras)
    if (era.other_ranks && era.survivors) era.survivors = with_parts(*era.survivors, era, settings, shape, catalogs, problems);
  for (std::size_t i = 1; i < e.eras.size(); ++i)
    if (!e.eras[i].other_ranks) e.eras[i].survivors = e.eras[i - 1].survivors;
  problems.check();

  if (e.capacity.chooses_again()) {
    const std::string_view overflow = e.capacity.by_replica() ? "other_replica_or_next_best" : "next_best";
    if (!e.router.weigh || e.router.prune) problems.add(settings.find("capacity")->at, fmt::format("`overflow: {}` needs a router whose weights follow from a token's scores and choices alone", overflow));
    if (e.compressed && e.compressed->columns() != e.model.num_experts)
      problems.add(settings.find("capacity")->at, fmt::format("`overflow: {}` chooses by the gate, which knows nothing of experts that were merged", overflow));
    problems.check();
    e.chooses_all = !e.router.may_choose_fewer && !e.compressed;
    if (!e.capacity.by_replica()) e.router = next_best(std::move(e.router), e.capacity);
  }
  if (e.capacity.dense && (e.exchange.dispatch_row_for != RowFor::copy || e.exchange.combine_row_for != RowFor::copy)) {
    problems.add(settings.find("capacity")->at, "`overflow: dense` fills buffers of one row for each place of an expert: take an exchange that sends every copy by itself: direct, pairwise, ring, spread_out or bruck with `dedup: none`, hierarchical_2d or low_latency");
    problems.check();
  }
  const bool exact = e.rebalance.statistics == Rebalance::Statistics::exact, predicted = e.rebalance.statistics == Rebalance::Statistics::predicted;
  if (e.placement.all_layers && (exact || predicted || e.rebalance.threshold > 0 || e.rebalance.layers_per_batch > 0)) {
    problems.add(settings.find("placement")->at,
                 fmt::format("this placement is made for all layers at once, and {}",
                             exact       ? "exact statistics show it one at a time: give `fit`, such as 0:50%, or `fit` and `rebalance.statistics`: window or lagged"
                             : predicted ? "predicted statistics show it one at a time: give `rebalance.statistics`: window or lagged, or leave it to `fit`"
                                         : "`rebalance` lets a decision change some of them: leave out `threshold` and `layers_per_batch`"));
    problems.check();
  }
  if (const Setting* rebalance = settings.find("rebalance"); rebalance && e.eval.count() == 1) {
    const Setting *statistics = rebalance->find("statistics"), *moving = rebalance->find("moving");
    if (statistics && !exact && e.fit.count() == 0) problems.add(statistics->at, fmt::format("`statistics: {}` has nothing to go by: one batch is played, and none comes before it; give `fit` or more `batches`", statistics->text));
    if (moving && e.changes.events.empty()) problems.add(moving->at, "`moving` has no effect: one batch is played, and what it begins with need not move");
    problems.check();
  }
  if (const int seen = e.fit.count() + e.eval.count(); e.rebalance.statistics == Rebalance::Statistics::lagged && e.rebalance.lag >= seen) {
    const Setting& rebalance = *settings.find("rebalance");
    problems.add(rebalance.find("lag") ? rebalance.find("lag")->at : rebalance.at, fmt::format("`lag: {}` would have no effect: {} batches are shown and played, and the last of them may look back {}", e.rebalance.lag, seen, seen - 1));
    problems.check();
  }
  if (const int first = std::max(e.fit.first, e.eval.first), last = std::min(e.fit.last, e.eval.last); e.rebalance.statistics == Rebalance::Statistics::fit && first < last)
    e.notes.push_back(fmt::format("{} both in `fit` and in `eval`: placements are judged by tokens that they were made from", last - first == 1 ? fmt::format("batch {} is", first) : fmt::format("batches {} to {} are", first, last - 1)));
  if (predicted && e.layers.size() == 1) {
    problems.add(settings.find("rebalance")->find("statistics")->at, "`predicted` foretells a layer from the one that is played before it: give two `layers` or more");
    problems.check();
  }
  if (exact && e.fit.count() > 0 && !e.compressed) e.notes.push_back("`fit` is not used: exact statistics place each batch from itself");
  if (e.router.may_choose_fewer && e.placement.sees == PlacementPolicy::Sees::tokens) {
    if (!e.placement.or_less) problems.add(settings.find("placement")->at, "this placement is made from the choices of single tokens, and takes as many of each: with this router a token may choose fewer experts");
    problems.check();
    e.placement.sees = PlacementPolicy::Sees::machine;
  }
  if (e.placement.sees == PlacementPolicy::Sees::tokens && !e.placement.or_less) {
    const Location at = settings.find("placement")->at;
    if (e.rebalance.statistics == Rebalance::Statistics::ema) problems.add(at, "this placement is made from the choices of single tokens, and `rebalance.statistics: ema` keeps counts only; take window or lagged");
    if (predicted) problems.add(at, "this placement is made from the choices of single tokens, and `rebalance.statistics: predicted` foretells counts only; take exact, window or lagged");
    else if (!exact && e.fit.count() == 0) problems.add(at, "this placement is made from the choices of single tokens, and before the first batch there are none: give `fit`");
    problems.check();
  }
  if (e.placement.or_less && (predicted || e.rebalance.statistics == Rebalance::Statistics::ema))
    e.placement.sees = PlacementPolicy::Sees::machine;  // counts of all batches, not tokens of the last alone

  e.notes.insert(e.notes.begin(), e.model.warnings.begin(), e.model.warnings.end());
  if (e.compute_precision == Precision::fp8 && e.topology.device().flops_fp8.value == 0)
    e.notes.push_back(fmt::format("{} has no fp8 units: experts compute at the bf16 rate", e.topology.device().name));
  e.pricing.hidden = e.model.hidden, e.pricing.expert_ffn = e.model.expert_ffn, e.pricing.shared_ffn = e.model.shared_ffn;
  e.pricing.expert_matrices = e.model.expert_matrices;
  e.pricing.expert_bytes = static_cast<Bytes>(std::ceil(e.model.expert_params() * bytes_per_value(e.pricing.weights)));
  e.resolved = std::move(settings);
  return e;
}

}  // namespace epsim
