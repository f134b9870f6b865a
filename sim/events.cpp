#include "sim/events.h"

#include <algorithm>

#include <fmt/format.h>

namespace epsim {
namespace {

/// A speed, in parts of the device's.
double read_speed(const Setting& value, Diagnostics& problems) {
  const std::optional<double> number = value.is_scalar() ? parse_number(value.text) : std::nullopt;
  if (number && *number > 0 && *number <= 1) return *number;
  problems.add(value.at, "a speed is a number above 0 and at most 1, in parts of the device's");
  return 1;
}

Event read_event(const Setting& value, Diagnostics& problems) {
  Event e;
  e.at = value.at;
  if (!value.is_map()) {
    problems.add(value.at, "an event is a map such as {batch: 6, fail: [3]}");
    return e;
  }
  Params p(value, "an event", problems);
  e.batch = static_cast<int>(p.integer("batch", "the batch before which it happens", {}, 0, 1'000'000));
  const auto ranks_of = [](Params& of, const char* key, const char* help) { return of.ranges(key, help).value_or(std::vector<int>{}); };
  e.fail = ranks_of(p, "fail", "ranks that fail"), e.join = ranks_of(p, "join", "ranks that come back");
  if (p.has("slow")) {
    Params slow = p.section("slow", "ranks that compute at another speed from then on");
    const std::vector<int> ranks = ranks_of(slow, "rank", "ranks whose speed changes");
    double speed = 1;
    bool given = false;
    slow.custom("speed", "a number above 0 and at most 1", "", "in parts of the device's", [&](const Setting& s, Diagnostics& d) { speed = read_speed(s, d), given = true; });
    if (!given || ranks.empty()) slow.error("", "`slow` needs `rank` and `speed`, such as {rank: 5, speed: 0.5}");
    slow.finish();
    for (const int r : ranks) e.slow.emplace_back(r, speed);
  } else if (e.fail.empty() && e.join.empty()) {
    p.error("", "an event needs `fail`, `join` or `slow`");
  }
  p.finish();
  return e;
}

}  // namespace

Changes read_changes(Params& top, std::vector<ParamDoc>& docs) {
  Changes c;
  top.custom("speeds", "a list of numbers above 0 and at most 1", "all 1", "how fast each rank computes, in parts of the device's; a shorter list repeats", [&](const Setting& value, Diagnostics& problems) {
    if (value.kind != Setting::Kind::list || value.items.empty()) return problems.add(value.at, "`speeds` is a list of numbers above 0 and at most 1, such as [1, 0.8]");
    for (const Setting& item : value.items) c.speeds.push_back(read_speed(item, problems));
  });
  top.custom("events", "a list of maps", "none", "ranks that fail, join or change speed: {batch: 6, fail: [3]}, {batch: 12, join: [3]}, {batch: 20, slow: {rank: 5, speed: 0.5}}", [&](const Setting& value, Diagnostics& problems) {
    if (value.kind != Setting::Kind::list) return problems.add(value.at, "`events` is a list such as [{batch: 6, fail: [3]}]");
    for (const Setting& item : value.items) c.events.push_back(read_event(item, problems));
  });
  std::ranges::stable_sort(c.events, {}, &Event::batch);
  Params failure = top.section("failure", "what becomes of what a failed rank held");
  const std::string tokens = failure.choice("tokens", "tokens of ranks that are down: spread (equally over the ranks that are up) or lost", {"spread", "lost"}, "spread");
  c.tokens = tokens == "lost" ? Changes::Tokens::lost : Changes::Tokens::spread;
  // What a PCIe 4.0 x16 slot carries, less its overhead; assumed: the weights are in the host's memory.
  c.restore = failure.bandwidth("restore", "bytes/s at which each rank reads weights that no rank holds any more from its host (assumed)", 25e9);
  failure.finish();
  if (std::ranges::none_of(c.events, [](const Event& e) { return !e.fail.empty(); }))
    for (const char* key : {"tokens", "restore"})
      if (failure.has(key)) failure.error(key, fmt::format("`failure.{}` has no effect: no rank fails in `events`", key));
  for (const ParamDoc& d : failure.docs()) docs.push_back({"failure." + d.key, d.type, d.fallback, d.help});
  return c;
}

}  // namespace epsim
