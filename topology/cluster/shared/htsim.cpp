#include "topology/cluster/shared/htsim.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

namespace epsim {
namespace {

constexpr double kMaxLinks = 2'000'000;

struct Tier {
  std::optional<std::int64_t> speed, down, up, latency;
  std::int64_t bundle = 1, switch_latency = 0;
  Location at;
};

struct Tree {
  std::optional<std::int64_t> nodes, tiers, pod;
  std::vector<Tier> tier;
};

/// Words in lower case, as htsim compares them.
std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return out;
}

class Reader {
 public:
  explicit Reader(const std::shared_ptr<const SourceText>& source) : source_(source) {}

  Tree read() {
    std::size_t at = 0;
    for (int line = 1; at < source_->text.size(); ++line) {
      const std::size_t end = std::min(source_->text.find('\n', at), source_->text.size());
      read_line(std::string_view(source_->text).substr(at, end - at), line);
      at = end + 1;
    }
    finish();
    problems_.check();
    return std::move(tree_);
  }

 private:
  static const std::vector<std::string>& known() {
    static const std::vector<std::string> names = {"Nodes", "Tiers", "Podsize", "Tier", "Downlink_speed_Gbps", "Radix_Down", "Radix_Up", "Downlink_Latency_ns", "Bundle", "Switch_Latency_ns",
                                                   "Queue_Up", "Queue_Down", "Oversubscribed"};
    return names;
  }

  void fail(const Location& at, std::string message) {
    problems_.add(at, std::move(message));
    if (problems_.size() >= 50) problems_.check();
  }

  void read_line(std::string_view line, int number) {
    line = line.substr(0, line.find('#'));
    std::vector<std::pair<std::string_view, int>> words;
    for (std::size_t i = 0; (i = line.find_first_not_of(" \t\r", i)) != std::string_view::npos;) {
      const std::size_t end = std::min(line.find_first_of(" \t\r", i), line.size());
      words.emplace_back(line.substr(i, end - i), static_cast<int>(i) + 1);
      i = end;
    }
    if (words.empty()) return;
    const Location at{source_, number, words[0].second};
    const std::string key(words[0].first);
    if (words.size() != 2) return fail(at, fmt::format("expected `{}` and one number", key));
    const auto value = parse_integer(words[1].first);
    const Location value_at{source_, number, words[1].second};
    if (!value || *value < 0 || *value > 1'000'000'000) return fail(value_at, fmt::format("`{}` must be an integer from 0 to 1000000000, got `{}`", key, words[1].first));
    set(key, *value, at, value_at);
  }

  void set(const std::string& key, std::int64_t value, const Location& at, const Location& value_at) {
    const std::string name = lower(key);
    const auto once = [&](std::optional<std::int64_t>& field, std::int64_t least) {
      if (field) return fail(at, fmt::format("`{}` is given twice", key));
      if (value < least) return fail(value_at, fmt::format("`{}` must be at least {}", key, least));
      field = value;
    };
    if (name == "nodes") return once(tree_.nodes, 1);
    if (name == "tiers") return once(tree_.tiers, 2);
    if (name == "podsize") return once(tree_.pod, 1);
    if (name == "tier") {
      if (value != static_cast<std::int64_t>(tree_.tier.size())) return fail(value_at, fmt::format("expected tier {}: tiers follow each other from 0", tree_.tier.size()));
      if (value > 2) return fail(value_at, "a tree has at most 3 tiers");
      tree_.tier.emplace_back();
      tree_.tier.back().at = at;
      return;
    }
    if (std::none_of(known().begin(), known().end(), [&](const std::string& k) { return lower(k) == name; })) return fail(at, fmt::format("there is no setting `{}`{}", key, suggest(key, known())));
    if (tree_.tier.empty()) return fail(at, fmt::format("`{}` is of a tier: begin one with `Tier 0`", key));
    Tier& tier = tree_.tier.back();
    if (name == "downlink_speed_gbps") once(tier.speed, 1);
    if (name == "radix_down") once(tier.down, 1);
    if (name == "radix_up") once(tier.up, 1);
    if (name == "downlink_latency_ns") once(tier.latency, 0);
    if (name == "switch_latency_ns") tier.switch_latency = value;
    if (name == "bundle") {
      if (value < 1) fail(value_at, "`Bundle` must be at least 1");
      tier.bundle = std::max<std::int64_t>(1, value);
    }
  }

  void finish() {
    const Location whole{source_, 0, 0};
    if (!tree_.nodes) fail(whole, "needs `Nodes`");
    const std::int64_t tiers = tree_.tiers.value_or(3);
    if (tiers > 3) fail(whole, "a tree has at most 3 tiers");
    if (static_cast<std::int64_t>(tree_.tier.size()) != tiers) fail(whole, fmt::format("has {} of {} tiers", tree_.tier.size(), tiers));
    for (std::size_t i = 0; i < tree_.tier.size(); ++i) {
      const Tier& t = tree_.tier[i];
      if (!t.speed) fail(t.at, fmt::format("tier {} needs `Downlink_speed_Gbps`", i));
      if (!t.latency) fail(t.at, fmt::format("tier {} needs `Downlink_Latency_ns`", i));
      if (!t.down && i == 0) fail(t.at, "tier 0 needs `Radix_Down`, the hosts of a switch");
      if (!t.up && i + 1 < tree_.tier.size()) fail(t.at, fmt::format("tier {} needs `Radix_Up`", i));
      if (t.bundle > 1 && i == 0) fail(t.at, "links to hosts are not bundled");
    }
    problems_.check();
    check_sizes();
  }

  void check_sizes() {
    const std::int64_t nodes = *tree_.nodes, pod = tree_.pod.value_or(nodes), hosts = *tree_.tier[0].down;
    const Location whole{source_, 0, 0};
    if (nodes > kMaxRanks) fail(whole, fmt::format("a cluster has at most {} ranks, got {}", kMaxRanks, nodes));
    if (nodes % pod != 0) fail(whole, fmt::format("{} nodes are no whole number of pods of {}", nodes, pod));
    if (pod % hosts != 0) fail(whole, fmt::format("a pod of {} is no whole number of switches of {} hosts", pod, hosts));
    if (tree_.tier.size() == 2 && pod != nodes) fail(whole, "a tree of 2 tiers is one pod: `Podsize` is `Nodes`");
    double links = static_cast<double>(nodes), switches = static_cast<double>(nodes) / static_cast<double>(hosts);
    for (std::size_t i = 0; i + 1 < tree_.tier.size(); ++i) {
      const Tier &t = tree_.tier[i], &above = tree_.tier[i + 1];
      if (*t.up % above.bundle != 0) fail(t.at, fmt::format("{} links up are no whole number of bundles of {}", *t.up, above.bundle));
      links += switches * static_cast<double>(*t.up);
      switches = static_cast<double>(nodes) / static_cast<double>(pod) * static_cast<double>(*t.up);
    }
    if (links > kMaxLinks) fail(whole, fmt::format("more than {} cables", kMaxLinks));
    problems_.check();
    const std::int64_t below[] = {pod / hosts, nodes / pod};  // switches that a switch of tier 1 and 2 serves
    for (std::size_t i = 1; i < tree_.tier.size(); ++i)
      if (const Tier& t = tree_.tier[i]; t.down && *t.down != below[i - 1] * t.bundle)
        fail(t.at, fmt::format("`Radix_Down` of tier {} is {}, but {} switches with bundles of {} are below", i, *t.down, below[i - 1], t.bundle));
  }

  std::shared_ptr<const SourceText> source_;
  Tree tree_;
  Diagnostics problems_;
};

}  // namespace

Fabric read_htsim(const std::shared_ptr<const SourceText>& source) {
  const Tree tree = Reader(source).read();
  const std::int64_t nodes = *tree.nodes, pod = tree.pod.value_or(nodes), hosts = *tree.tier[0].down;
  const auto ns = [](std::int64_t n) { return Time{1000 * n}; };
  Fabric f;
  // The links between a switch of tier i and what is below it.
  const auto join = [&](std::int32_t below, std::int32_t above, std::size_t i, std::string_view name) {
    const Tier& t = tree.tier[i];
    const double rate = static_cast<double>(*t.speed) * 125e6;
    const Time up = ns(*t.latency + (i > 0 ? tree.tier[i - 1].switch_latency : 0)), down = ns(*t.latency + t.switch_latency);
    for (std::int64_t copy = 0; copy < t.bundle; ++copy) {
      const auto label = [&](std::int32_t from, std::int32_t to) {
        return t.bundle == 1 ? std::string() : fmt::format("{} -> {} #{}", f.vertices[static_cast<std::size_t>(from)].name, f.vertices[static_cast<std::size_t>(to)].name, copy);
      };
      f.add_link(below, above, name, {rate, up}, label(below, above));
      f.add_link(above, below, name, {rate, down}, label(above, below));
    }
  };
  std::vector<std::int32_t> leaves;
  for (std::int64_t n = 0; n < nodes; ++n) {
    if (n % hosts == 0) leaves.push_back(f.add_switch(fmt::format("tier 0 switch {}", n / hosts)));
    join(f.add_rank(Node(n)), leaves.back(), 0, "host");
  }
  const std::int64_t spines = *tree.tier[0].up / tree.tier[1].bundle;
  const bool three = tree.tier.size() == 3;
  const std::int64_t each = three ? *tree.tier[1].up / tree.tier[2].bundle : 0;
  std::vector<std::int32_t> cores;
  for (std::int64_t c = 0; c < spines * each; ++c) cores.push_back(f.add_switch(fmt::format("tier 2 switch {}", c)));
  for (std::int64_t p = 0; p < nodes / pod; ++p)
    for (std::int64_t s = 0; s < spines; ++s) {
      const std::int32_t spine = f.add_switch(fmt::format("tier 1 switch {}", p * spines + s));
      for (std::int64_t l = p * (pod / hosts); l < (p + 1) * (pod / hosts); ++l) join(leaves[static_cast<std::size_t>(l)], spine, 1, "tier 1");
      for (std::int64_t c = s * each; c < (s + 1) * each; ++c) join(spine, cores[static_cast<std::size_t>(c)], 2, "tier 2");
    }
  return f;
}

}  // namespace epsim
