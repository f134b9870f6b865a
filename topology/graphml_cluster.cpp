#include "topology/graphml_cluster.h"

#include <fmt/format.h>

#include <limits>
#include <optional>
#include <set>

#include "topology/graph.h"

namespace epsim {
namespace {

constexpr std::size_t kMaxProblems = 50;  // each is located by counting lines from the start
const std::vector<std::string> kAttributes = {"kind", "name", "node", "rank", "bandwidth", "gbps", "latency", "latency_ns", "tier"};

class Reader {
 public:
  explicit Reader(const std::shared_ptr<const SourceText>& source) : source_(source), graph_(read_graphml(source)) {}

  GraphmlCluster read() {
    for (const AttributedGraph::Key& key : graph_.keys) check_spelling(key);
    for (const AttributedGraph::Node& node : graph_.nodes) add_vertex(node);
    if (explicit_ranks_ > 0 && explicit_ranks_ != ranks_)
      problems_.add({source_, 0, 0}, fmt::format("{} of {} ranks have a `rank`: give it to all or to none", explicit_ranks_, ranks_));
    for (const AttributedGraph::Edge& edge : graph_.edges) add_links(edge);
    problems_.check();
    return std::move(out_);
  }

 private:
  using Element = AttributedGraph::Element;

  void fail(std::size_t offset, std::string message) {
    problems_.add(locate(source_, offset), std::move(message));
    if (problems_.size() >= kMaxProblems) problems_.check();
  }

  /// Other tools' attributes are let pass, but not a slip in one of ours.
  void check_spelling(const AttributedGraph::Key& key) {
    for (const std::string& known : kAttributes)
      if (key.name == known) return;
    if (const std::string text = suggest(key.name, kAttributes); text.starts_with(", did you mean"))
      fail(key.offset, fmt::format("there is no attribute `{}`{}", key.name, text));
  }

  static const std::string* find(const Element& element, const std::string& name) {
    const auto found = element.attributes.find(name);
    return found == element.attributes.end() ? nullptr : &found->second;
  }

  std::optional<std::int32_t> index(const Element& element, const std::string& name, const std::string& label) {
    const std::string* text = find(element, name);
    if (!text) return {};
    const auto value = parse_integer(*text);
    if (value && *value >= 0 && *value < std::numeric_limits<std::int32_t>::max()) return static_cast<std::int32_t>(*value);
    fail(element.offset, fmt::format("`{}` of {} must be an integer of at least 0, got `{}`", name, label, *text));
    return 0;
  }

  void add_vertex(const AttributedGraph::Node& node) {
    const std::string* name = find(node, "name");
    Vertex vertex{name ? *name : node.id, {}, {}};
    const std::string label = fmt::format("`{}`", vertex.name);
    const std::string* kind = find(node, "kind");
    if (!names_.insert(vertex.name).second) fail(node.offset, fmt::format("a second node is named {}", label));
    if (!kind) {
      fail(node.offset, fmt::format("{} needs a `kind`: rank or switch", label));
    } else if (*kind == "rank") {
      const auto rank = index(node, "rank", label), group = index(node, "node", label);
      if (!group) fail(node.offset, fmt::format("{} needs the number of its `node`", label));
      vertex.rank = Rank(rank.value_or(ranks_));
      vertex.node = Node(group.value_or(0));
      ++ranks_;
      if (rank) ++explicit_ranks_;
    } else if (*kind == "switch") {
      for (const std::string attribute : {"rank", "node"})
        if (find(node, attribute)) fail(node.offset, fmt::format("{} is a switch and cannot have a `{}`", label, attribute));
    } else {
      fail(node.offset, fmt::format("`kind` of {} must be rank or switch, got `{}`", label, *kind));
    }
    out_.vertices.push_back(std::move(vertex));
  }

  /// The one of two spellings that an edge has: text with a unit, or a bare number.
  const std::string* one_of(const Element& edge, const std::string& label, const std::string& text, const std::string& bare, std::string_view example) {
    const std::string *a = find(edge, text), *b = find(edge, bare);
    if (!a == !b)
      fail(edge.offset,
           a ? fmt::format("{} has both `{}` and `{}`", label, text, bare) : fmt::format("{} needs a `{}` such as {} or a `{}`", label, text, example, bare));
    return a ? a : b;
  }

  Bandwidth bandwidth(const Element& edge, const std::string& label) {
    const std::string* text = one_of(edge, label, "bandwidth", "gbps", "50GB/s");
    if (!text) return 1;
    auto value = find(edge, "bandwidth") ? parse_bandwidth(*text) : parse_number(*text);
    if (value && !find(edge, "bandwidth")) *value *= 125e6;
    if (value && *value > 0 && *value <= 1e18) return *value;
    fail(edge.offset,
         fmt::format("the bandwidth of {} must be above 0{}, got `{}`", label, find(edge, "bandwidth") ? " with its unit, such as 50GB/s" : "", *text));
    return 1;
  }

  Time latency(const Element& edge, const std::string& label) {
    const std::string* text = one_of(edge, label, "latency", "latency_ns", "500ns");
    if (!text) return {};
    if (find(edge, "latency")) {
      if (const auto value = parse_time(*text)) return *value;
      fail(edge.offset, fmt::format("the latency of {} must be a time with its unit, such as 500ns, got `{}`", label, *text));
    } else if (const auto ns = parse_number(*text); ns && *ns >= 0 && *ns < 1e12) {
      return time_from_seconds(*ns * 1e-9);
    } else {
      fail(edge.offset, fmt::format("`latency_ns` of {} must be a number of at least 0, got `{}`", label, *text));
    }
    return {};
  }

  void add_links(const AttributedGraph::Edge& edge) {
    const std::string &a = out_.vertices[static_cast<std::size_t>(edge.source)].name, &b = out_.vertices[static_cast<std::size_t>(edge.target)].name;
    const std::string label = fmt::format("the edge `{}` - `{}`", a, b);
    if (edge.source == edge.target) fail(edge.offset, fmt::format("{} leads nowhere", label));
    const std::string* tier = find(edge, "tier");
    Link link{{}, tier ? *tier : "link", edge.source, edge.target, bandwidth(edge, label), latency(edge, label)};
    name_and_add(link, edge);
    if (graph_.directed) return;
    std::swap(link.from, link.to);
    name_and_add(link, edge);
  }

  void name_and_add(Link link, const Element& edge) {
    const std::string direction =
        fmt::format("{} -> {}", out_.vertices[static_cast<std::size_t>(link.from)].name, out_.vertices[static_cast<std::size_t>(link.to)].name);
    if (const std::string* name = find(edge, "name"); name && !name->empty()) {
      link.name = graph_.directed ? *name : fmt::format("{}, {}", *name, direction);
      if (!link_names_.insert(link.name).second) fail(edge.offset, fmt::format("a second edge is named `{}`", *name));
    } else {
      link.name = direction;
      for (int copy = 2; !link_names_.insert(link.name).second; ++copy) link.name = fmt::format("{} #{}", direction, copy);
    }
    out_.links.push_back(std::move(link));
  }

  std::shared_ptr<const SourceText> source_;
  AttributedGraph graph_;
  GraphmlCluster out_;
  Diagnostics problems_;
  std::set<std::string> names_, link_names_;
  int ranks_ = 0, explicit_ranks_ = 0;
};

}  // namespace

GraphmlCluster read_graphml_cluster(std::shared_ptr<const SourceText> source) { return Reader(source).read(); }

}  // namespace epsim
