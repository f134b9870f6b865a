#include <algorithm>
#include <cmath>
#include <filesystem>
#include <iostream>
#include <map>
#include <set>

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "analysis/compare.h"
#include "analysis/export/table.h"
#include "base/params.h"
#include "cli/cli.h"
#include "cli/output.h"
#include "cli/output_file.h"
#include "cli/play_all.h"
#include "cli/saved_settings.h"
#include "cli/spec.h"
#include "workloads/import/load_dump.h"

namespace epsim {
namespace {

struct Options {
  std::string model, trace, cluster, out, format = "text";
  std::vector<std::string> set, capacity;
  std::int64_t tokens_per_rank = 0;
  int layers = 3, batches = 8;
};

/// A choice that can be made, and what it came to on tokens that it was not made from.
struct Option {
  std::int64_t ranks = 0, slots = 0;  ///< of one expert-parallel group
  std::string placement, replica = "round_robin", exchange, capacity;  ///< as an experiment file spells them
  double token_s = 0;                 ///< time of all the model's MoE layers for a token of each rank
  double weights_bytes = 0;           ///< of the fullest rank, all MoE layers
  double memory_bytes = 0;            ///< with the activations of one layer
  double drop_rate = 0, layer_gap = 0;
  std::vector<double> token_samples_s = {};  ///< `token_s` of each batch
  std::string bottleneck = {};
  bool on_front = false;
};

/// A setting that advise makes itself: how it reaches the reader of experiments, and what was typed for it.
struct Made {
  std::string_view override_begins, typed_as;
  const std::string Options::*text;  ///< null: a number
};
constexpr Made kMade[] = {{"model=", "MODEL", &Options::model}, {"source=", "TRACE", &Options::trace}, {"source.tokens_per_rank=", "--tokens-per-rank", nullptr}, {"layers=", "TRACE", &Options::trace}, {"batches=", "--batches", nullptr}, {"capacity=", "--capacity", nullptr}};

/// Why a `--set` cannot be, or nothing: what advise makes or searches itself would be labelled with one value and played with another.
std::string refusal(const std::string& assignment) {
  const std::string key = assignment.substr(0, assignment.find('='));
  static const std::map<std::string, std::string, std::less<>> whole = {{"model", "MODEL"}, {"source", "TRACE"}, {"source.file", "TRACE"}, {"source.tokens", "--tokens-per-rank"}, {"source.tokens_per_rank", "--tokens-per-rank"},
                                                                       {"cluster", "CLUSTER"}, {"cluster.nodes", "CLUSTER"}, {"layers", "--layers"}, {"batches", "--batches"}};
  if (const auto given = whole.find(key); given != whole.end()) return fmt::format("advise sets `{}` itself: give {}", key, given->second);
  const std::string part = key.substr(0, key.find('.'));
  if (part == "capacity") return "advise searches `capacity`: give the choices that it may make as --capacity";
  if (part == "placement" || part == "replica" || part == "exchange") return fmt::format("advise searches `{}`: `epsim compare FILE --over {}=...` plays what you choose yourself", part, part);
  if (part == "fit" || part == "eval") return fmt::format("advise sets `{}` itself: placements are made from the first half of the batches and judged on the second", part);
  return "";
}

std::string quoted(const std::string& text) {
  Setting scalar;
  scalar.kind = Setting::Kind::scalar, scalar.text = text;
  return to_yaml(scalar);
}

/// Makes and plays options; the same one is played once.
class Trials {
 public:
  Trials(const Options& o, const Catalogs& catalogs) : o_(o), catalogs_(catalogs), cluster_(setting_of(o.cluster, "CLUSTER")), tokens_per_rank_(o.tokens_per_rank) {
    // One line of YAML, under the name of the cluster's file: the paths in it are taken from that file's folder.
    file_ = std::make_shared<const SourceText>(SourceText{cluster_.at.source->name, "cluster: " + to_yaml(cluster_)});
    remember_places(*parse_yaml(file_).find("cluster"), cluster_);
  }

  /// The experiment of an option. Throws InputError, pointing at what was typed.
  Experiment experiment(const Option& option) const {
    const bool counts = o_.trace.ends_with(".json");
    std::vector<std::string> overrides = {"model=" + quoted(o_.model), fmt::format("source={{{}: {{file: {}}}}}", counts ? "loads" : "trace", quoted(o_.trace)), fmt::format("batches={}", o_.batches * groups(option.ranks)), "fit='0:50%'", "eval='50%:100%'"};
    if (tokens_per_rank_ > 0 || counts) overrides.push_back(fmt::format("source.tokens_per_rank={}", std::max<std::int64_t>(1, tokens_per_rank_)));
    if (option.ranks > 0 && has_nodes()) overrides.push_back(fmt::format("cluster.nodes={}", option.ranks / ranks_per_node_));
    if (!layers_.empty()) overrides.push_back(fmt::format("layers=[{}]", fmt::join(layers_, ", ")));
    if (!option.placement.empty()) overrides.insert(overrides.end(), {"placement=" + option.placement, "replica=" + option.replica, "exchange=" + option.exchange});
    if (!option.capacity.empty()) overrides.push_back("capacity=" + option.capacity);
    for (const std::string& set : o_.set)
      if (refusal(set).empty()) overrides.push_back(set);
    try {
      return read_experiment(file_, overrides, catalogs_);
    } catch (const InputError& error) {
      std::vector<Diagnostic> problems = error.problems();
      for (Diagnostic& problem : problems) problem.at = typed(problem.at);
      throw InputError(std::move(problems));
    }
  }

  /// Reads the whole question once, so that what is wrong with it is said before anything runs.
  void read() {
    Diagnostics problems;
    const auto place = [](const char* name, const std::string& text) { return Location{std::make_shared<const SourceText>(SourceText{name, text}), 1, 1}; };
    for (const std::string& set : o_.set)
      if (const std::string why = refusal(set); !why.empty()) problems.add(place("--set", set), why);
    if (o_.trace.ends_with(".json") && o_.tokens_per_rank == 0) problems.add(place("TRACE", o_.trace), "how many tokens? Counts do not say: give --tokens-per-rank");
    const std::filesystem::path folder = std::filesystem::path(o_.out).parent_path();
    if (!folder.empty() && !std::filesystem::is_directory(folder)) problems.add(place("--out", o_.out), fmt::format("there is no folder {}", folder.string()));
    Experiment all;
    try {
      if (o_.trace.ends_with(".json") && !repeats()) layers_ = read_load_dump(read_text(o_.trace)).layers;  // all that can be played
      all = experiment({});
    } catch (const InputError& error) {
      problems.add(error);
    }
    problems.check();
    for (const std::string& capacity : o_.capacity) {  // one that cannot be is an error, not a choice without an answer
      Option with;
      with.capacity = capacity;
      try {
        experiment(with);
      } catch (const InputError& error) {
        problems.add(error);
      }
    }
    problems.check();
    name_ = all.model.name, machine_ = all.topology.device().name, memory_bytes_ = all.topology.device().memory_bytes.value;
    moe_layers_ = static_cast<int>(all.model.moe_layers.size());
    experts_ = all.model.num_experts, ranks_ = all.topology.ranks();
    ranks_per_node_ = all.topology.nodes() > 0 ? ranks_ / all.topology.nodes() : ranks_;
    if (all.layers.size() < all.model.moe_layers.size()) there_ = all.layers;
    const std::size_t there = all.layers.size(), n = std::min(there, static_cast<std::size_t>(o_.layers));
    layers_.clear();
    for (std::size_t i = 0; i < n; ++i) layers_.push_back(all.layers[(2 * i + 1) * there / (2 * n)]);
    sizes_ = {ranks_};
    if (has_nodes())
      for (int nodes = all.topology.nodes() / 2; nodes >= 1 && all.topology.nodes() % nodes == 0; nodes /= 2)
        sizes_.push_back(nodes * ranks_per_node_);
    if (all.source.tokens() < ranks_)
      throw InputError(place("--batches", std::to_string(o_.batches)), fmt::format("each of {} batches has {} tokens of the trace, fewer than there are ranks ({}): give fewer batches", o_.batches, all.source.tokens(), ranks_));
    if (tokens_per_rank_ == 0) tokens_per_rank_ = all.source.tokens() / ranks_;
  }

  /// An option as an experiment file of all the model's MoE layers, to lie at `--out`.
  std::string file_of(const Option& option) const {
    Setting settings = experiment(option).resolved;
    std::erase_if(settings.entries, [](const Setting::Entry& e) { return e.key == "layers"; });
    if (!there_.empty()) settings.entries.push_back({"layers", {}, parse_yaml(std::make_shared<const SourceText>(SourceText{"layers", fmt::format("[{}]", fmt::join(there_, ", "))}))});
    const std::string folder = std::filesystem::path(o_.out).parent_path().string();
    return fmt::format("# Recommended by epsim advise: {}.\n# Of {} choices tried. All MoE layers {}are here; `--set layers={}` plays those that it was chosen by.\n", about(), played.size(), there_.empty() ? "" : "that the trace has ", fmt::join(layers_, ",")) +
           saved_settings(std::move(settings), folder.empty() ? "." : folder, catalogs_);
  }

  /// Plays those options that are new and can be; gives the quickest of all that were asked for.
  Option best_of(const std::vector<Option>& options) {
    std::vector<Experiment> experiments;
    std::vector<Option> fresh;
    for (const Option& option : options) {
      if (!asked_.insert(key(option)).second) continue;
      try {
        experiments.push_back(experiment(option));
        fresh.push_back(option);
      } catch (const InputError& error) {  // this part cannot be had with these sizes
        refused_.try_emplace(option.ranks, error.problems().front().message);
      }
    }
    std::vector<RunMetrics> runs = play_all(experiments);
    for (std::size_t i = 0; i < fresh.size(); ++i) {
      const ComparedPoint p = compared_point({}, {std::move(runs[i])});
      const double all = moe_layers_ / static_cast<double>(experiments[i].layers.size());
      Option& option = fresh[i];
      const double of_token = all * static_cast<double>(experiments[i].topology.ranks()) / static_cast<double>(std::max<std::int64_t>(1, experiments[i].source.tokens()));
      option.token_s = p.total_s * of_token;
      // As many tokens a sample, and the same, whatever the size of the group.
      const auto batches = static_cast<std::size_t>(groups(option.ranks));
      option.token_samples_s.assign(p.samples_s.size() / batches, 0);  // an option begins as a copy of another
      for (std::size_t s = 0; s < option.token_samples_s.size() * batches; ++s) option.token_samples_s[s / batches] += p.samples_s[s] * of_token / static_cast<double>(batches);
      option.weights_bytes = p.max_rank_weights_bytes * all;
      option.memory_bytes = option.weights_bytes + p.max_rank_activations_bytes;
      option.drop_rate = p.drop_rate();
      option.layer_gap = gap(p.layers_s, p.optimum_s * static_cast<double>(p.samples_s.size()));
      option.bottleneck = p.bottleneck;
      played.push_back(option);
    }
    const Option* best = nullptr;
    for (const Option& p : played)
      if (std::any_of(options.begin(), options.end(), [&](const Option& o) { return key(o) == key(p); }) && (!best || p.token_s < best->token_s)) best = &p;
    return best ? *best : Option{};
  }

  std::vector<Option> played;

  const std::vector<std::int64_t>& sizes() const { return sizes_; }
  /// Why a size has no choice at all; empty where it has one.
  std::string refusal_of(std::int64_t ranks) const {
    const bool has = std::any_of(played.begin(), played.end(), [&](const Option& p) { return p.ranks == ranks; });
    const auto why = refused_.find(ranks);
    return has || why == refused_.end() ? "" : why->second;
  }
  int experts() const { return experts_; }
  double memory_bytes() const { return memory_bytes_; }
  int judged_batches() const { return played.empty() ? 0 : static_cast<int>(played.front().token_samples_s.size()); }
  std::string about() const {
    return fmt::format("{} on {} ranks of {}: {} of {} MoE layers played, placements made from the first half of {} batches and judged on the second; time a token is that of all MoE layers for a token of each rank", name_, ranks_, machine_, layers_.size(), moe_layers_, o_.batches);
  }

 private:
  /// Groups of so many ranks that the cluster has room for: a smaller one takes so many batches to see the same tokens. 1 for 0, before sizes are known.
  int groups(std::int64_t ranks) const { return ranks > 0 && ranks_ > 0 ? static_cast<int>(ranks_ / ranks) : 1; }
  /// True where the layers of recorded counts are used again for others.
  bool repeats() const {
    return std::any_of(o_.set.begin(), o_.set.end(), [](const std::string& set) { return set.starts_with("source.repeat=") && set != "source.repeat=false"; });
  }
  static std::string key(const Option& o) { return fmt::format("{}|{}|{}|{}|{}", o.ranks, o.placement, o.replica, o.exchange, o.capacity); }
  /// True where the cluster says how many nodes it has: then there can be fewer.
  bool has_nodes() const {
    const Setting* settings = cluster_.is_map() && !cluster_.entries.empty() ? &cluster_.entries.front().value : nullptr;
    const Setting* nodes = settings && settings->is_map() ? settings->find("nodes") : nullptr;
    return nodes && nodes->is_scalar();
  }

  /// Keeps where each value and key of the cluster was typed, by where it stands in `file_`.
  void remember_places(const Setting& here, const Setting& there) {
    places_[{here.at.line, here.at.column}] = there.at;
    for (std::size_t i = 0; i < here.items.size(); ++i) remember_places(here.items[i], there.items[i]);
    for (std::size_t i = 0; i < here.entries.size(); ++i) {
      remember_places(here.entries[i].value, there.entries[i].value);
      places_[{here.entries[i].at.line, here.entries[i].at.column}] = there.entries[i].at;
    }
  }

  /// Where the user typed what stands at a place of the experiment that was made of it.
  Location typed(const Location& at) const {
    if (at.source == file_) {
      const auto place = places_.find({at.line, at.column});
      return place == places_.end() ? cluster_.at : place->second;
    }
    if (at.source && at.source->name == "--set")
      for (const Made& made : kMade)
        if (at.source->text.starts_with(made.override_begins)) {
          const std::string text = made.text ? o_.*made.text : at.source->text.substr(made.override_begins.size());
          const int column = at.column - static_cast<int>(made.override_begins.size());
          return {std::make_shared<const SourceText>(SourceText{std::string(made.typed_as), text}), 1, made.text ? 1 : std::max(1, column)};
        }
    return at;
  }

  const Options& o_;
  const Catalogs& catalogs_;
  Setting cluster_;
  std::shared_ptr<const SourceText> file_;  // the experiment's own, which holds the cluster
  std::map<std::pair<int, int>, Location> places_;
  std::int64_t tokens_per_rank_;  // the same for every EP size, or times could not be compared; 0: all of a trace
  std::string name_, machine_;
  std::vector<int> layers_;
  std::vector<int> there_;  // all layers that counts are of, where these are fewer than the model's
  std::vector<std::int64_t> sizes_;
  std::set<std::string> asked_;
  std::map<std::int64_t, std::string> refused_;  // [EP size] the first reason why a choice could not be played
  int experts_ = 0, ranks_ = 0, ranks_per_node_ = 1, moe_layers_ = 1;
  double memory_bytes_ = 0;
};

std::string with_slots(const std::string& policy, std::int64_t slots) { return fmt::format("{{{}: {{slots: {}}}}}", policy, slots); }

/// One axis after another, each from the best so far: exchange, then slots with placement, then replica rule.
void search(Trials& trials, const std::string& capacity, const Catalogs& catalogs) {
  for (const std::int64_t ranks : trials.sizes()) {
    const std::int64_t even = (trials.experts() + ranks - 1) / ranks * ranks;
    std::vector<Option> options;
    for (const std::string& exchange : catalogs.exchange.names()) {
      for (const std::string& variant : exchange == "direct" ? std::vector<std::string>{"direct", "{direct: {dedup: rank}}"} : std::vector<std::string>{exchange})
        options.push_back({ranks, trials.experts(), with_slots("contiguous", trials.experts()), "round_robin", variant, capacity});
    }
    Option best = trials.best_of(options);
    if (best.placement.empty()) continue;
    options.clear();
    for (const std::int64_t slots : {std::int64_t{trials.experts()}, even, even + ranks, even + 2 * ranks})
      for (const char* policy : {"contiguous", "eplb", "tensorrt_llm", "epsim_opt"}) {
        Option option = best;
        option.slots = slots, option.placement = with_slots(policy, slots);
        options.push_back(option);
      }
    best = trials.best_of(options);
    options.clear();
    for (const std::string& rule : catalogs.replica.names()) {
      Option option = best;
      option.replica = rule;
      options.push_back(option);
    }
    trials.best_of(options);
  }
}

constexpr double kLess = 0.995;  ///< of another's memory, to be worth a mention

/// Marks the options that take less memory than all quicker ones that drop no more, by more than some activations; sorts by time.
void find_front(std::vector<Option>& options) {
  std::stable_sort(options.begin(), options.end(), [](const Option& a, const Option& b) { return a.token_s != b.token_s ? a.token_s < b.token_s : a.memory_bytes < b.memory_bytes; });
  for (auto option = options.begin(); option != options.end(); ++option)
    option->on_front = std::none_of(options.begin(), option, [&](const Option& o) { return o.on_front && o.drop_rate <= option->drop_rate && option->memory_bytes >= kLess * o.memory_bytes; });
}

/// The quickest of those that fit and drop as little as can be had; null where none fits. A tighter capacity is always quicker, and what its drops cost a model no time says.
const Option* recommended(const std::vector<Option>& options, double memory_bytes) {
  constexpr double kAsLittle = 0.001;
  double least = std::numeric_limits<double>::infinity();
  for (const Option& o : options)
    if (o.memory_bytes <= memory_bytes) least = std::min(least, o.drop_rate);
  const auto first = std::find_if(options.begin(), options.end(), [&](const Option& o) { return o.memory_bytes <= memory_bytes && o.drop_rate <= least + kAsLittle; });
  return first == options.end() ? nullptr : &*first;
}

/// How much longer an option takes than another.
Difference longer(const Option& option, const Option& than) {
  ComparedPoint a, b;
  a.samples_s = option.token_samples_s, a.total_s = option.token_s;
  b.samples_s = than.token_samples_s, b.total_s = than.token_s;
  return difference(a, b);
}

std::string plain(const std::string& part) {
  std::string text;
  for (const char c : part)
    if (std::string_view("{}:").find(c) == std::string_view::npos) text += c;
  return text;
}

/// The name of the placement policy.
std::string_view policy_of(const Option& option) { return std::string_view(option.placement).substr(0, option.placement.find(": ")); }

/// Says what these batches do not tell from the choice: of it the quickest of the leanest where they take less memory, and the quickest of another policy otherwise.
void print_equals(const Trials& trials, const Option& chosen) {
  std::vector<const Option*> equals;
  for (const Option& p : trials.played)
    if (&p != &chosen && p.memory_bytes <= trials.memory_bytes() && p.drop_rate <= chosen.drop_rate)
      if (const Difference d = longer(p, chosen); std::isfinite(d.half_width) && d.mean - d.half_width <= 0) equals.push_back(&p);
  if (equals.empty()) return;
  const double least = (*std::min_element(equals.begin(), equals.end(), [](const Option* a, const Option* b) { return a->memory_bytes < b->memory_bytes; }))->memory_bytes;
  const Option* one = *std::find_if(equals.begin(), equals.end(), [&](const Option* p) { return kLess * p->memory_bytes <= least; });  // they are by time
  const bool leaner = one->memory_bytes < kLess * chosen.memory_bytes;
  if (!leaner) {
    const auto other = std::find_if(equals.begin(), equals.end(), [&](const Option* p) { return policy_of(*p) != policy_of(chosen); });
    one = other == equals.end() ? nullptr : *other;
  }
  fmt::print("  {} of the other {} choices cannot be told from it by {} batches (95 % intervals)", equals.size(), trials.played.size() - 1, trials.judged_batches());
  if (!one) return fmt::print(", {} by this policy.\n", equals.size() == 1 ? "placed" : "all placed");
  fmt::print("; {} is EP {} with {}, {} and {}", leaner ? fmt::format("the leanest, {} a rank,", format_bytes(one->memory_bytes)) : "the quickest of another policy", one->ranks, plain(one->placement), one->replica, plain(one->exchange));
  const Difference d = longer(*one, chosen);
  fmt::print(": {:+.1f} ±{:.1f} % time.\n", 100 * d.mean, 100 * d.half_width);
}

void print_text(const Trials& trials, const Option* chosen, const Option* plainest) {
  fmt::print("{}\n\n  what no other choice beats in time, memory and drops (of {} that were tried)\n", trials.about(), trials.played.size());
  TextTable table({false, false, true, true, true, true, false, false, false, false, true});
  table.add({"EP", "slots", "placement", "replica", "exchange", "capacity", "time a token", "weights a rank", "dropped", "gap", "bottleneck"});
  for (const Option& p : trials.played)
    if (p.on_front)
      table.add({std::to_string(p.ranks), std::to_string(p.slots), plain(p.placement), p.replica, plain(p.exchange), p.capacity.empty() ? "dropless" : plain(p.capacity), format_seconds(p.token_s),
                 format_bytes(p.weights_bytes), fmt::format("{:.2f}%", 100 * p.drop_rate), fmt::format("{:.1f}%", 100 * p.layer_gap), p.bottleneck});
  table.write(std::cout);
  if (!chosen) {
    fmt::print("\n  no choice fits: the leanest needs {} of a rank's {}\n", format_bytes(std::min_element(trials.played.begin(), trials.played.end(), [](const Option& a, const Option& b) { return a.memory_bytes < b.memory_bytes; })->memory_bytes), format_bytes(trials.memory_bytes()));
    return;
  }
  fmt::print("\n  recommended: EP {} with\n    placement: {}\n    replica: {}\n    exchange: {}\n", chosen->ranks, chosen->placement, chosen->replica, chosen->exchange);
  if (!chosen->capacity.empty()) fmt::print("    capacity: {}\n", chosen->capacity);
  fmt::print("  because it is the quickest whose experts and activations fit a rank ({} of {}; attention and caches are not counted)", format_bytes(chosen->memory_bytes), format_bytes(trials.memory_bytes()));
  if (plainest && plainest->token_s > chosen->token_s) fmt::print(": {:.1f}% less time than contiguous experts over EP {} with {}", 100 * (1 - chosen->token_s / plainest->token_s), plainest->ranks, plain(plainest->exchange));
  if (&trials.played.front() != chosen && trials.played.front().memory_bytes <= trials.memory_bytes()) {
    const Option& quicker = trials.played.front();
    fmt::print(". With capacity {} it would take {:.1f}% less, by dropping {:.2f}% of choices instead of {:.2f}%", plain(quicker.capacity.empty() ? "dropless" : quicker.capacity), 100 * (1 - quicker.token_s / chosen->token_s), 100 * quicker.drop_rate, 100 * chosen->drop_rate);
  }
  fmt::print(".\n  What limits it: {}.\n", chosen->bottleneck);
  print_equals(trials, *chosen);
}

void print_json(const Trials& trials, const Option* chosen) {
  using Json = nlohmann::ordered_json;
  Json all = Json::array();
  const auto against = [&](const Option& p, double Difference::*figure) {  // null where nothing is recommended, and an interval of one batch
    const double value = chosen ? longer(p, *chosen).*figure + (figure == &Difference::mean) : std::numeric_limits<double>::infinity();
    return std::isfinite(value) ? Json(value) : Json();
  };
  for (const Option& p : trials.played)
    all.push_back({{"ranks", p.ranks}, {"slots", p.slots}, {"placement", p.placement}, {"replica", p.replica}, {"exchange", p.exchange}, {"capacity", p.capacity.empty() ? "dropless" : p.capacity},
                   {"token_s", p.token_s}, {"weights_bytes", p.weights_bytes}, {"memory_bytes", p.memory_bytes}, {"dropped_choice_rate", p.drop_rate}, {"layer_gap", p.layer_gap},
                   {"relative_to_recommended", against(p, &Difference::mean)}, {"relative_to_recommended_half_width", against(p, &Difference::half_width)},
                   {"bottleneck", p.bottleneck}, {"on_front", p.on_front}, {"recommended", chosen == &p}});
  std::cout << Json{{"device_memory_bytes", trials.memory_bytes()}, {"options", all}}.dump(2, ' ', false, Json::error_handler_t::replace) << '\n';
}

int advise_on(const Options& o, const Catalogs& catalogs) {
  Trials trials(o, catalogs);
  trials.read();
  for (const std::string& capacity : o.capacity.empty() ? std::vector<std::string>{""} : o.capacity) search(trials, capacity, catalogs);
  if (trials.played.empty()) throw InputError(Location{}, trials.refusal_of(trials.sizes().front()));
  for (const std::int64_t ranks : trials.sizes())
    if (const std::string why = trials.refusal_of(ranks); !why.empty()) fmt::print(stderr, "note: EP {} was not tried: {}\n", ranks, why);
  find_front(trials.played);
  const Option *chosen = recommended(trials.played, trials.memory_bytes()), *plainest = nullptr;
  for (const Option& p : trials.played)
    if (!plainest && chosen && p.ranks == trials.sizes().front() && p.capacity == chosen->capacity && p.placement == with_slots("contiguous", trials.experts())) plainest = &p;
  if (!o.out.empty() && chosen) write_file(o.out, "--out", trials.file_of(*chosen));
  o.format == "json" ? print_json(trials, chosen) : print_text(trials, chosen, plainest);
  if (o.out.empty() || chosen) return kOk;
  fmt::print(stderr, "epsim: no choice fits: {} is not written\n", o.out);
  return kFailed;
}

}  // namespace

/// `epsim advise`: how to serve a model with a routing trace on a cluster.
void verb::advise(CLI::App& app, const Catalogs& catalogs, int& result) {
  CLI::App* sub = app.add_subcommand("advise", "Search EP size, slots, placement, replica rule, exchange and capacity for a model, a trace and a cluster");
  auto options = std::make_shared<Options>();
  sub->add_option("MODEL", options->model, "a preset (see `epsim list model`) or the path of a Hugging Face config.json")->required();
  sub->add_option("TRACE", options->trace, "recorded choices (.npz, expert_ids [tokens, layers, k]) or recorded counts (.json, logical_count)")->required();
  sub->add_option("CLUSTER", options->cluster, "the cluster, as in an experiment file: YAML, or a file that holds it; smaller EP groups are tried where it has `nodes`")->required();
  sub->add_option("--tokens-per-rank", options->tokens_per_rank, "tokens of each rank's batch; needed with counts")->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 30));
  sub->add_option("--capacity", options->capacity, "a capacity to try, such as '{megatron: {factor: 1.25}}'; give it again for more (default: dropless)")->allow_extra_args(false);
  sub->add_option("--layers", options->layers, "MoE layers that are played, spread over the model")->check(CLI::Range(1, 1000))->capture_default_str();
  sub->add_option("--batches", options->batches, "batches that the trace is cut into")->check(CLI::Range(2, 100'000))->capture_default_str();
  sub->add_option("--set", options->set, "override a setting that advise neither searches nor is given otherwise, such as network=ideal")->allow_extra_args(false)->type_name("KEY=VALUE");
  sub->add_option("--out", options->out, "write what is recommended as an experiment file, for `epsim run`; status 1 where nothing fits")->type_name("FILE");
  sub->add_option("--format", options->format, "what to print")->check(CLI::IsMember({"text", "json"}))->capture_default_str();
  sub->footer("Example: epsim advise gpt-oss-20b routing.npz '{rail_fat_tree: {nodes: 2, ranks_per_node: 8, device: h100}}'");
  sub->callback([options, &catalogs, &result] { result = advise_on(*options, catalogs); });
}

}  // namespace epsim
