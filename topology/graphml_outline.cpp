#include "topology/graphml_outline.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <string_view>

#include "topology/xml_tags.h"

namespace epsim {
namespace {

constexpr std::size_t kMaxProblems = 50;  // each is located by counting lines from the start
constexpr std::array<std::string_view, 8> kKeyTargets = {"graph", "node", "edge", "hyperedge", "port", "endpoint", "all", "graphml"};

class Outliner {
 public:
  explicit Outliner(const std::shared_ptr<const SourceText>& source) : source_(source), tags_(xml_tags(source)) {}

  GraphmlOutline outline() {
    if (tags_.front().name != "graphml") fail(tags_.front(), fmt::format("expected the root <graphml>, found <{}>", tags_.front().name));
    problems_.check();
    // Declarations and nodes first: edges and data may stand before what they name.
    for (std::size_t i = 0; i < tags_.size(); ++i) declare(static_cast<int>(i));
    if (graph_ < 0) problems_.add({source_, 0, 0}, "has no <graph>");
    for (const XmlTag& tag : tags_) check(tag);
    problems_.check();
    return std::move(out_);
  }

 private:
  void fail(const XmlTag& tag, std::string message) {
    problems_.add(locate(source_, tag.offset), std::move(message));
    if (problems_.size() >= kMaxProblems) problems_.check();
  }

  const std::string* need(const XmlTag& tag, std::string_view attribute) {
    const std::string* value = tag.find(attribute);
    if (!value) fail(tag, fmt::format("<{}> needs the attribute `{}`", tag.name, attribute));
    return value;
  }

  void declare(int i) {
    const XmlTag& tag = tags_[static_cast<std::size_t>(i)];
    if (tag.name == "graph") {
      if (tag.parent != 0) return fail(tag, "a graph within a graph is not supported");
      if (graph_ >= 0) return fail(tag, "expected one graph, found more");
      graph_ = i;
      const std::string* edges = need(tag, "edgedefault");
      if (edges && *edges != "directed" && *edges != "undirected") fail(tag, fmt::format("`edgedefault` must be directed or undirected, got `{}`", *edges));
      out_.directed = edges && *edges == "directed";
    } else if (tag.name == "key" && tag.parent == 0) {
      const std::string *id = need(tag, "id"), *target = need(tag, "for"), *name = need(tag, "attr.name");
      if (target && std::find(kKeyTargets.begin(), kKeyTargets.end(), *target) == kKeyTargets.end())
        fail(tag, fmt::format("a key cannot be `for` {}", *target));
      if (id && !keys_.emplace(*id, keys_.size()).second) fail(tag, fmt::format("the key `{}` is declared twice", *id));
      if (name) out_.keys.push_back({*name, tag.offset});
    } else if (tag.name == "node" && tag.parent == graph_) {
      const std::string* id = need(tag, "id");
      if (id && !nodes_.emplace(*id, nodes_.size()).second) fail(tag, fmt::format("the node `{}` is given twice", *id));
      out_.nodes.push_back({id ? *id : "", tag.offset});
    }
  }

  void check(const XmlTag& tag) {
    if ((tag.name == "node" || tag.name == "edge") && tag.parent != graph_) return fail(tag, fmt::format("<{}> must stand directly in <graph>", tag.name));
    if (tag.name == "hyperedge" || tag.name == "port") return fail(tag, fmt::format("<{}> is not supported", tag.name));
    if (tag.name == "edge") {
      for (const std::string_view end : {"source", "target"})
        if (const std::string* id = need(tag, end); id && !nodes_.contains(*id)) fail(tag, fmt::format("there is no node `{}`{}", *id, near(*id)));
      if (const std::string* directed = tag.find("directed"); directed && *directed != (out_.directed ? "true" : "false"))
        fail(tag, "an edge must be directed or not as the graph's `edgedefault` says");
      out_.edges.push_back(tag.offset);
    } else if (tag.name == "data") {
      const std::string* key = need(tag, "key");
      if (key && !keys_.contains(*key)) fail(tag, fmt::format("there is no key `{}`{}", *key, suggest(*key, names_of(keys_))));
    }
  }

  /// A suggestion for a misspelt node, without listing thousands.
  std::string near(const std::string& id) const {
    const std::string text = nodes_.size() <= 10'000 ? suggest(id, names_of(nodes_)) : "";
    return text.starts_with(", did you mean") || nodes_.size() <= 10 ? text : "";
  }

  static std::vector<std::string> names_of(const std::map<std::string, std::size_t>& known) {
    std::vector<std::string> names;
    for (const auto& [name, index] : known) names.push_back(name);
    return names;
  }

  std::shared_ptr<const SourceText> source_;
  std::vector<XmlTag> tags_;
  Diagnostics problems_;
  GraphmlOutline out_;
  std::map<std::string, std::size_t> keys_, nodes_;
  int graph_ = -1;
};

}  // namespace

GraphmlOutline outline_graphml(std::shared_ptr<const SourceText> source) { return Outliner(source).outline(); }

}  // namespace epsim
