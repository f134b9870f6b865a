#include "topology/writers.h"

#include <fmt/format.h>

#include <iterator>

namespace epsim {
namespace {

constexpr int kMaxSimgridRanks = 512;

std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '&') out += "&amp;";
    else if (c == '<') out += "&lt;";
    else if (c == '>') out += "&gt;";
    else if (c == '"') out += "&quot;";
    else out += c;
  }
  return out;
}

[[noreturn]] void refuse(std::string_view as, std::string message) {
  throw InputError({std::make_shared<SourceText>(SourceText{fmt::format("--as {}", as), ""}), 0, 0}, std::move(message));
}

}  // namespace

std::string to_graphml(const Topology& t) {
  std::string out =
      "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<graphml xmlns=\"http://graphml.graphdrawing.org/xmlns\">\n"
      "  <key id=\"kind\" for=\"node\" attr.name=\"kind\" attr.type=\"string\"/>\n"
      "  <key id=\"node\" for=\"node\" attr.name=\"node\" attr.type=\"int\"/>\n"
      "  <key id=\"rank\" for=\"node\" attr.name=\"rank\" attr.type=\"int\"/>\n"
      "  <key id=\"name\" for=\"all\" attr.name=\"name\" attr.type=\"string\"/>\n"
      "  <key id=\"bandwidth\" for=\"edge\" attr.name=\"bandwidth\" attr.type=\"string\"/>\n"
      "  <key id=\"latency\" for=\"edge\" attr.name=\"latency\" attr.type=\"string\"/>\n"
      "  <key id=\"tier\" for=\"edge\" attr.name=\"tier\" attr.type=\"string\"/>\n"
      "  <graph edgedefault=\"directed\">\n";
  const auto add = std::back_inserter(out);
  for (std::size_t v = 0; v < t.vertices().size(); ++v) {
    const Vertex& vertex = t.vertices()[v];
    fmt::format_to(add, "    <node id=\"n{}\"><data key=\"name\">{}</data><data key=\"kind\">{}</data>", v, escaped(vertex.name), vertex.rank.valid() ? "rank" : "switch");
    if (vertex.rank.valid()) fmt::format_to(add, "<data key=\"rank\">{}</data><data key=\"node\">{}</data>", vertex.rank.value, vertex.node.value);
    out += "</node>\n";
  }
  for (const Link& link : t.links()) {
    if (link.cost != 1) refuse("graphml", fmt::format("the link `{}` is taken only where others do not lead on, which GraphML does not say", link.name));
    fmt::format_to(add, "    <edge source=\"n{}\" target=\"n{}\"><data key=\"name\">{}</data><data key=\"tier\">{}</data><data key=\"bandwidth\">{}B/s</data><data key=\"latency\">{}ps</data></edge>\n",
                   link.from, link.to, escaped(link.name), escaped(link.tier), format_number(link.bandwidth), link.latency.ps);
  }
  return out + "  </graph>\n</graphml>\n";
}

std::string to_simgrid(const Topology& t, double speed) {
  if (t.ranks() > kMaxSimgridRanks) refuse("simgrid", fmt::format("routes of {} ranks would be too many; at most {}", t.ranks(), kMaxSimgridRanks));
  if (t.path_rule().kind == PathRule::Kind::spread) refuse("simgrid", "SimGrid has one path a pair: choose another `routing` than spread");
  std::string out = "<?xml version=\"1.0\"?>\n<!DOCTYPE platform SYSTEM \"https://simgrid.org/simgrid.dtd\">\n<platform version=\"4.1\">\n  <zone id=\"cluster\" routing=\"Full\">\n";
  const auto add = std::back_inserter(out);
  for (const Rank r : ids<Rank>(t.ranks())) fmt::format_to(add, "    <host id=\"rank-{}\" speed=\"{}f\"/>\n", r.value, format_number(speed));
  for (const Link& link : t.links())
    fmt::format_to(add, "    <link id=\"{}\" bandwidth=\"{}Bps\" latency=\"{}s\"/>\n", escaped(link.name), format_number(link.bandwidth), format_number(link.latency.seconds()));
  for (const Rank s : ids<Rank>(t.ranks()))
    for (const Rank d : ids<Rank>(t.ranks())) {
      if (s == d) continue;
      fmt::format_to(add, "    <route src=\"rank-{}\" dst=\"rank-{}\" symmetrical=\"NO\">", s.value, d.value);
      t.for_each_link(s, d, [&](std::int32_t l) { fmt::format_to(add, "<link_ctn id=\"{}\"/>", escaped(t.links()[static_cast<std::size_t>(l)].name)); });
      out += "</route>\n";
    }
  return out + "  </zone>\n</platform>\n";
}

std::string to_astra_sim(const Topology& t) {
  const std::size_t per_node = t.ranks_of(Node(0)).size();
  for (const Node n : ids<Node>(t.nodes()))
    if (t.ranks_of(n).size() != per_node) refuse("astra", fmt::format("node {} has {} ranks, node 0 has {}: ASTRA-sim's dimensions are of one size", n.value, t.ranks_of(n).size(), per_node));
  struct Dimension {
    std::size_t size;
    Rank from, to;
  };
  std::vector<Dimension> dimensions;
  if (per_node > 1 || t.nodes() == 1) dimensions.push_back({per_node, t.ranks_of(Node(0)).front(), t.ranks_of(Node(0)).back()});
  if (t.nodes() > 1) dimensions.push_back({static_cast<std::size_t>(t.nodes()), t.ranks_of(Node(0)).front(), t.ranks_of(Node(t.nodes() - 1)).front()});
  std::string topology, count, bandwidth, latency;
  for (const Dimension& d : dimensions) {
    const char* const comma = topology.empty() ? " " : ", ";
    topology += std::string(comma) + "Switch";
    count += fmt::format("{}{}", comma, d.size);
    bandwidth += fmt::format("{}{}", comma, d.from == d.to ? "1" : format_number(t.bandwidth(d.from, d.to) / 1e9));
    latency += fmt::format("{}{}", comma, format_number(static_cast<double>(t.latency(d.from, d.to).ps) / 2000));
  }
  return fmt::format("topology: [{} ]\nnpus_count: [{} ]\nbandwidth: [{} ]  # GB/s\nlatency: [{} ]  # ns\n", topology, count, bandwidth, latency);
}

}  // namespace epsim
