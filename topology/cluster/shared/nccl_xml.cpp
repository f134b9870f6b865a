#include "topology/cluster/shared/nccl_xml.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <map>

#include "topology/xml_tags.h"

namespace epsim {
namespace {

/// One node's parts, as indices into tags.
class Reader {
 public:
  Reader(const std::shared_ptr<const SourceText>& source, const NcclSettings& settings) : source_(source), settings_(settings), tags_(xml_tags(source)) {}

  Fabric read() {
    if (tags_.front().name != "system") fail(tags_.front(), fmt::format("expected the root <system>, found <{}>", tags_.front().name));
    collect();
    problems_.check();
    if (settings_.nodes * static_cast<std::int64_t>(gpus_.size()) > kMaxRanks)
      throw InputError({source_, 0, 0}, fmt::format("a cluster has at most {} ranks, got {} nodes of {}", kMaxRanks, settings_.nodes, gpus_.size()));
    if (settings_.nodes > 1 && nets_.empty()) throw InputError({source_, 0, 0}, "has no <net> that could join several nodes");
    for (std::int64_t n = 0; n < settings_.nodes; ++n) {
      add_node(n);
      problems_.check();
    }
    return std::move(f_);
  }

 private:
  static constexpr std::size_t kMaxProblems = 50;

  void fail(const XmlTag& tag, std::string message) {
    problems_.add(locate(source_, tag.offset), std::move(message));
    if (problems_.size() >= kMaxProblems) problems_.check();
  }
  const XmlTag& tag(int i) const { return tags_[static_cast<std::size_t>(i)]; }

  std::string attribute(const XmlTag& t, std::string_view name) {
    if (const std::string* value = t.find(name)) return *value;
    fail(t, fmt::format("<{}> needs the attribute `{}`", t.name, name));
    return {};
  }
  /// A number of an attribute; the least one where it is wrong.
  double number(const XmlTag& t, std::string_view name, double least, double most) {
    const std::string text = attribute(t, name);
    const auto value = parse_number(text);
    if (value && *value >= least && *value <= most) return *value;
    if (t.find(name)) fail(t, fmt::format("`{}` of <{}> must be a number from {} to {}, got `{}`", name, t.name, least, most, text));
    return least;
  }

  /// The nearest enclosing element of a name; -1 where there is none.
  int enclosing(int i, std::string_view name) const {
    for (i = tag(i).parent; i >= 0 && tag(i).name != name;) i = tag(i).parent;
    return i;
  }

  void collect() {
    for (int i = 0; i < static_cast<int>(tags_.size()); ++i) {
      const XmlTag& t = tag(i);
      if (t.name == "cpu") {
        cpus_.push_back(i);
      } else if (t.name == "gpu" || t.name == "nic") {
        if (enclosing(i, "cpu") < 0) fail(t, fmt::format("<{}> is not inside of a <cpu>", t.name));
        if (t.name == "gpu") gpus_.push_back(i);
      } else if (t.name == "net") {
        if (enclosing(i, "nic") < 0) fail(t, "<net> is not inside of a <nic>");
        nets_.push_back(i);
      }
    }
    if (gpus_.empty()) fail(tags_.front(), "has no <gpu>");
    std::map<int, int> by_dev;
    for (const int g : gpus_) {
      const int dev = static_cast<int>(number(tag(g), "dev", 0, 1e6));
      if (!by_dev.emplace(dev, g).second) fail(tag(g), fmt::format("a second <gpu> has dev {}", dev));
      const int pci = enclosing(g, "pci");
      if (pci >= 0) gpu_at_[lower(attribute(tag(pci), "busid"))] = g;
    }
    gpus_.clear();
    for (const auto& [dev, g] : by_dev) gpus_.push_back(g);
  }

  static std::string lower(std::string text) {
    for (char& c : text)
      if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    return text;
  }

  /// Bytes/s of a <pci> towards what encloses it. Without a speed (virtual machines have none) NCCL takes PCIe 3 x 16.
  Bandwidth pci_rate(const XmlTag& pci) {
    static const std::map<std::string, double> kSpeeds = {{"2.5 GT/s", 15}, {"5 GT/s", 30}, {"8 GT/s", 60}, {"16 GT/s", 120}, {"32 GT/s", 240}, {"64 GT/s", 480}};
    double speed = 60, width = 16;
    if (const std::string* text = pci.find("link_speed"); text && !text->empty()) {
      std::string key = text->substr(0, text->find(" PCIe"));
      if (const auto zero = key.find(".0 "); zero != std::string::npos) key.erase(zero, 2);
      const auto known = kSpeeds.find(key);
      if (known == kSpeeds.end())
        fail(pci, fmt::format("`link_speed` of <pci> must be such as \"16.0 GT/s PCIe\", got `{}`", *text));
      else
        speed = known->second;
    }
    if (pci.find("link_width")) {
      const double given = number(pci, "link_width", 0, 64);
      if (given > 0) width = given;
    }
    return width * speed / 80 * 1e9;
  }

  Bandwidth nvlink_rate(const XmlTag& gpu) {
    const double sm = number(gpu, "sm", 0, 1e4);
    return (sm >= 100 ? 40.1 : sm >= 90 ? 20.6 : sm >= 70 ? 20 : 18) * 1e9;
  }

  void add_node(std::int64_t n) {
    const std::string of = settings_.nodes == 1 ? "" : fmt::format(" of node {}", n);
    vertex_.assign(tags_.size(), -1);
    for (const int g : gpus_) vertex_[static_cast<std::size_t>(g)] = f_.add_rank(Node(n));
    for (std::size_t i = 0; i < cpus_.size(); ++i) vertex_[static_cast<std::size_t>(cpus_[i])] = f_.add_switch(fmt::format("cpu {}{}", i, of));
    for (std::size_t a = 0; a < cpus_.size(); ++a)
      for (std::size_t b = a + 1; b < cpus_.size(); ++b)
        f_.add_cable(vertex_[static_cast<std::size_t>(cpus_[a])], vertex_[static_cast<std::size_t>(cpus_[b])], "cpu", settings_.cpu);
    // An element's own vertex is joined to that of the nearest element around it that has one, at the rate of the slowest <pci> between.
    for (int i = 0; i < static_cast<int>(tags_.size()); ++i) {
      const XmlTag& t = tag(i);
      const bool bridge = t.name == "pci" && is_bridge(i);
      if (!bridge && t.name != "gpu" && t.name != "nic") continue;
      std::int32_t& mine = vertex_[static_cast<std::size_t>(i)];
      if (bridge) mine = f_.add_switch(fmt::format("pci {}{}", bridges_++, of));
      if (t.name == "nic") mine = f_.add_switch(fmt::format("nic {}{}", nics_++, of));
      Bandwidth rate = bridge ? pci_rate(t) : std::numeric_limits<Bandwidth>::infinity();
      int around = t.parent;
      while (around >= 0 && vertex_[static_cast<std::size_t>(around)] < 0) {
        if (tag(around).name == "pci") rate = std::min(rate, pci_rate(tag(around)));
        around = tag(around).parent;
      }
      if (around < 0) {
        fail(t, fmt::format("<{}> is not inside of a <cpu>", t.name));
      } else {
        if (rate == std::numeric_limits<Bandwidth>::infinity()) rate = settings_.cpu.bandwidth;  // on the CPU itself
        f_.add_cable(mine, vertex_[static_cast<std::size_t>(around)], "pci", {rate, settings_.pci_latency});
      }
    }
    bridges_ = 0, nics_ = 0;
    add_nvlinks(of);
    if (settings_.nodes > 1) add_nets();
  }

  /// Whether PCIe devices hang below.
  bool is_bridge(int i) const {
    for (int j = i + 1; j < static_cast<int>(tags_.size()) && tag(j).parent >= i; ++j)
      if (tag(j).parent == i && tag(j).name == "pci") return true;
    return false;
  }

  void add_nvlinks(const std::string& of) {
    std::int32_t hub = -1;
    std::map<std::pair<std::int32_t, std::int32_t>, int> counts;  // links by their ends; a GPU's <nvlink> is one direction
    for (int i = 0; i < static_cast<int>(tags_.size()); ++i) {
      const XmlTag& t = tag(i);
      if (t.name != "nvlink") continue;
      const int gpu = t.parent;
      if (gpu < 0 || tag(gpu).name != "gpu") {
        fail(t, "<nvlink> is not inside of a <gpu>");
        continue;
      }
      const double count = number(t, "count", 1, 1000);
      const std::string target = lower(attribute(t, "target")), kind = t.find("tclass") ? *t.find("tclass") : "";
      const Port port = {count * nvlink_rate(tag(gpu)), settings_.nvlink_latency};
      const std::int32_t from = vertex_[static_cast<std::size_t>(gpu)];
      if (const auto peer = gpu_at_.find(target); peer != gpu_at_.end()) {
        const std::int32_t to = vertex_[static_cast<std::size_t>(peer->second)];
        if (from == to) {
          fail(t, "an <nvlink> leads from a GPU to itself");
          continue;
        }
        const int copy = ++counts[{from, to}];
        f_.add_link(from, to, "nvlink", port, copy == 1 ? "" : fmt::format("{} -> {} #{}", f_.vertices[static_cast<std::size_t>(from)].name, f_.vertices[static_cast<std::size_t>(to)].name, copy));
      } else if (kind.starts_with("0x0680")) {
        if (hub < 0) hub = f_.add_switch(fmt::format("nvswitch{}", of));
        widen(from, hub, port), widen(hub, from, port);
      } else {
        fail(t, fmt::format("no <gpu> has the bus id `{}`, and `tclass` does not say that it is an NVSwitch (0x0680...)", target));
      }
    }
  }

  /// Several NVSwitches are one: their links to a GPU are one wider link.
  void widen(std::int32_t from, std::int32_t to, Port port) {
    const auto known = std::find_if(f_.links.rbegin(), f_.links.rend(), [&](const Link& l) { return l.from == from && l.to == to; });
    if (known == f_.links.rend())
      f_.add_link(from, to, "nvlink", port);
    else
      known->bandwidth += port.bandwidth;
  }

  void add_nets() {
    if (core_ < 0) core_ = f_.add_switch("core");
    std::map<std::int32_t, int> ports;
    for (const int i : nets_) {
      const std::int32_t nic = vertex_[static_cast<std::size_t>(enclosing(i, "nic"))];
      const Port port = {number(tag(i), "speed", 1, 1e9) * 125e3, settings_.net_latency};
      const int copy = ++ports[nic];
      const auto name = [&](std::int32_t a, std::int32_t b) {
        return copy == 1 ? std::string() : fmt::format("{} -> {} #{}", f_.vertices[static_cast<std::size_t>(a)].name, f_.vertices[static_cast<std::size_t>(b)].name, copy);
      };
      f_.add_link(nic, core_, "net", port, name(nic, core_));
      f_.add_link(core_, nic, "net", port, name(core_, nic));
    }
  }

  std::shared_ptr<const SourceText> source_;
  NcclSettings settings_;
  std::vector<XmlTag> tags_;
  std::vector<int> gpus_, cpus_, nets_;
  std::map<std::string, int> gpu_at_;  // by bus id
  std::vector<std::int32_t> vertex_;   // [tags] of the node being added; -1 for elements without one
  std::int32_t core_ = -1;
  int bridges_ = 0, nics_ = 0;
  Fabric f_;
  Diagnostics problems_;
};

}  // namespace

Fabric read_nccl_xml(const std::shared_ptr<const SourceText>& source, const NcclSettings& settings) { return Reader(source, settings).read(); }

}  // namespace epsim
