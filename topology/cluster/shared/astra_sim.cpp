#include "topology/cluster/shared/astra_sim.h"

#include <fmt/format.h>

#include <functional>

namespace epsim {
namespace {

enum class Shape { ring, all, hub };

struct Dimension {
  Shape shape = Shape::ring;
  std::int64_t size = 1;
  Port port;
};

constexpr std::size_t kMaxDimensions = 8, kMaxLinks = 2'000'000;

std::vector<Dimension> read_dimensions(const Setting& root) {
  Diagnostics problems;
  if (!root.is_map()) throw InputError(root.at, "expected the lists `topology`, `npus_count`, `bandwidth` and `latency`");
  Params p(root, "an ASTRA-sim network", problems);
  std::vector<Dimension> dims;
  bool first = true;
  const auto read_list = [&](std::string_view key, const std::function<bool(Dimension&, const std::string&)>& read, std::string_view expected) {
    if (!p.has(key)) problems.add(root.at, fmt::format("an ASTRA-sim network needs `{}`", key));
    p.custom(key, "a list", "", "of dimensions", [&](const Setting& value, Diagnostics&) {
      if (value.kind != Setting::Kind::list || value.items.empty() || value.items.size() > kMaxDimensions)
        return problems.add(value.at, fmt::format("`{}` must be a list of 1 to {} dimensions", key, kMaxDimensions));
      if (first) dims.resize(value.items.size());
      first = false;
      if (dims.size() != value.items.size()) return problems.add(value.at, fmt::format("`{}` has {} dimensions, the first list has {}", key, value.items.size(), dims.size()));
      for (std::size_t i = 0; i < dims.size(); ++i)
        if (!value.items[i].is_scalar() || !read(dims[i], value.items[i].text)) problems.add(value.items[i].at, fmt::format("expected {}", expected));
    });
  };
  read_list("topology",
            [](Dimension& d, const std::string& text) {
              d.shape = text == "Ring" ? Shape::ring : text == "FullyConnected" ? Shape::all : Shape::hub;
              return d.shape != Shape::hub || text == "Switch";
            },
            "Ring, Switch or FullyConnected");
  read_list("npus_count",
            [](Dimension& d, const std::string& text) {
              const auto n = parse_integer(text);
              d.size = n.value_or(0);
              return d.size >= 1 && d.size <= kMaxRanks;
            },
            "a number of NPUs");
  read_list("bandwidth",
            [](Dimension& d, const std::string& text) {
              d.port.bandwidth = parse_number(text).value_or(0) * 1e9;
              return d.port.bandwidth > 0 && d.port.bandwidth < 1e18;
            },
            "a rate above 0 in GB/s");
  read_list("latency",
            [](Dimension& d, const std::string& text) {
              const double ns = parse_number(text).value_or(-1);
              d.port.latency = ns >= 0 && ns < 1e12 ? time_from_seconds(ns * 1e-9) : Time{};
              return ns >= 0 && ns < 1e12;
            },
            "a time of at least 0 in ns");
  p.finish();
  problems.check();
  std::int64_t ranks = 1;
  double links = 0;
  for (const Dimension& d : dims) ranks = std::min(ranks * d.size, kMaxRanks + 1);
  for (const Dimension& d : dims) links += static_cast<double>(ranks) * (d.shape == Shape::all ? static_cast<double>(d.size - 1) : 2);
  if (ranks > kMaxRanks) problems.add(root.at, fmt::format("a cluster has at most {} ranks", kMaxRanks));
  if (links > kMaxLinks) problems.add(root.at, fmt::format("more than {} links", kMaxLinks));
  problems.check();
  return dims;
}

}  // namespace

Fabric read_astra_sim(const std::shared_ptr<const SourceText>& source) {
  const std::vector<Dimension> dims = read_dimensions(parse_yaml(source));
  std::int64_t ranks = 1;
  Port inject;
  for (const Dimension& d : dims) {
    ranks *= d.size;
    // A rank hands over as much as all of its links take.
    inject.bandwidth += d.port.bandwidth * static_cast<double>(d.shape == Shape::ring ? 2 : d.shape == Shape::all ? std::max<std::int64_t>(1, d.size - 1) : 1);
  }
  Fabric f;
  for (std::int64_t r = 0; r < ranks; ++r) {
    const std::int32_t rank = f.add_rank(Node(r / dims.front().size));
    f.add_cable(rank, f.add_switch(fmt::format("router {}", r)), "injection", inject);
  }
  std::int64_t stride = 1;
  for (std::size_t i = 0; i < dims.size(); stride *= dims[i++].size) {
    const Dimension& d = dims[i];
    const std::string tier = fmt::format("dim {}", i);
    if (d.size == 1) continue;
    for (std::int64_t r = 0; r < ranks; ++r) {
      const std::int64_t place = r / stride % d.size;
      const auto router = [&](std::int64_t at) { return static_cast<std::int32_t>(2 * (r + (at - place) * stride) + 1); };
      if (d.shape == Shape::ring) {
        f.add_link(router(place), router((place + 1) % d.size), tier, d.port);
        if (d.size > 2) f.add_link(router(place), router((place + d.size - 1) % d.size), tier, d.port);
      } else if (d.shape == Shape::all) {
        for (std::int64_t to = 0; to < d.size; ++to)
          if (to != place) f.add_link(router(place), router(to), tier, d.port);
      } else if (place == 0) {
        const std::int32_t hub = f.add_switch(fmt::format("switch of dim {} at {}", i, r));
        for (std::int64_t to = 0; to < d.size; ++to) f.add_cable(router(to), hub, tier, d.port);
      }
    }
  }
  return f;
}

}  // namespace epsim
