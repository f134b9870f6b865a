#include <algorithm>
#include <cmath>
#include <queue>

#include <fmt/format.h>

#include "sim/network/network.h"
#include "sim/network/shared/deliveries.h"
#include "sim/network/shared/fair_shares.h"
#include "sim/network/shared/message_costs.h"
#include "sim/network/shared/separate_shares.h"

namespace epsim::parts_network {
namespace {

bool any_latency(const Topology& topology) {
  return std::any_of(topology.links().begin(), topology.links().end(), [](const Link& l) { return l.latency > Time{}; });
}

class FairNetwork : public Network {
 public:
  FairNetwork(const Topology& topology, bool weigh_by_latency, double tolerance, const Curve& incast)
      : topology_(topology), weigh_by_latency_(weigh_by_latency), has_latency_(any_latency(topology)), separate_(topology, incast), shares_(topology, tolerance, incast) {}

  void expect(const std::vector<RankPair>& pairs) override { shares_.expect(pairs); }
  void start(const std::vector<Flow>& flows, double now) override {
    if (batch_.empty() || batch_at_ != now) settle(now);
    batch_at_ = now;
    // A large batch is most often an exchange of all with all. Room is address space, not memory, until it is used.
    const auto ranks = static_cast<std::size_t>(topology_.ranks());
    if (batch_.size() + flows.size() > ranks) batch_.reserve(std::max(batch_.size() + flows.size(), std::min(ranks * ranks, kMostRoom)));
    for (const Flow& f : flows) {
      if (!weigh_by_latency_)
        batch_.add(f.id, {f.source.value, f.destination.value}, f.bytes);
      else
        on_the_way_.push({now + topology_.latency(f.source, f.destination).seconds(), f});
    }
  }
  double next_event() override { return std::min(deliveries_.next(), next_change()); }
  void advance(double now, std::vector<Arrival>& arrived) override {
    const std::size_t before = arrived.size();
    while (arrived.size() == before && next_change() <= now) change([&](const Arrival& a) { a.at <= now && deliveries_.next() > now ? arrived.push_back(a) : deliveries_.add(a); });
    deliveries_.take(now, arrived);
  }
  double arrival_error() const override { return shares_.end_error(); }

 private:
  struct Begin {
    double at;
    Flow flow;
    friend bool operator<(const Begin& a, const Begin& b) { return a.at != b.at ? a.at > b.at : a.flow.id > b.flow.id; }  // the earliest on top
  };
  static constexpr std::size_t kMostRoom = std::size_t{1} << 24;

  double next_begin() const { return on_the_way_.empty() ? std::numeric_limits<double>::infinity() : on_the_way_.top().at; }
  double next_change() {
    begin();
    return std::min({shares_.next_end(), separate_.next_end(), next_begin()});
  }

  /// Shares among what has been started.
  void begin() {
    if (batch_.empty()) return;
    if (separate_.idle() && shares_.idle() && separate_.begin(batch_, batch_at_)) return;
    if (!separate_.idle()) separate_.leave(batch_at_, batch_);
    shares_.share(batch_, batch_at_);
  }

  /// What happens at next_change(), or some of it: calls visit(Arrival) for each flow that ends.
  template <class Visit>
  void change(Visit visit) {
    const double t = next_change();
    const auto end = [&](const FlowEnd& e) {
      visit({e.id, !has_latency_ || weigh_by_latency_ ? e.at : e.at + topology_.latency(Rank(e.pair.source), Rank(e.pair.destination)).seconds()});
    };
    if (separate_.next_end() <= t) {
      separate_.end_next(end);
    } else if (shares_.next_end() <= t) {
      ended_.clear();
      shares_.end_next(ended_);
      for (const FlowEnd& e : ended_) end(e);
    }
    if (next_begin() > t) return;
    for (; next_begin() <= t; on_the_way_.pop()) {
      const Flow& f = on_the_way_.top().flow;
      batch_.add(f.id, {f.source.value, f.destination.value}, f.bytes, 1 / topology_.latency(f.source, f.destination).seconds());
    }
    batch_at_ = t;
  }
  void settle(double now) {
    while (next_change() <= now) change([&](const Arrival& a) { deliveries_.add(a); });
  }

  const Topology& topology_;
  bool weigh_by_latency_, has_latency_;
  FlowBatch batch_;        // started at batch_at_, and not begun
  double batch_at_ = 0;
  SeparateShares separate_;  // while it is not idle, shares_ is
  FairShares shares_;
  Deliveries deliveries_;
  std::priority_queue<Begin> on_the_way_;  // where shares are weighted: flows whose first byte has not come through
  std::vector<FlowEnd> ended_;
};

/// Whether shares can be weighted by latency: not where there is none at all, for then they are equal. Throws InputError where some paths have one and others have not.
bool has_latencies(const Topology& topology) {
  if (!any_latency(topology)) return false;
  if (std::none_of(topology.links().begin(), topology.links().end(), [](const Link& l) { return l.latency == Time{}; })) return true;
  for (const Rank s : ids<Rank>(topology.ranks()))
    for (const Rank d : ids<Rank>(topology.ranks()))
      if (s != d && topology.latency(s, d) == Time{})
        throw InputError({}, fmt::format("`weights: cm02` shares links in inverse proportion to latency, but the path from rank {} to rank {} has none", s.value, d.value));
  return true;
}

}  // namespace

/// Max-min fair sharing of every link among the flows that cross it. With `weights: equal` a message arrives its path latency after its last byte has left; with `cm02` its first byte takes the latency to
/// come through, and from then on it has a share in inverse proportion to the latency, as SimGrid's CM02 has it (Casanova and Marchal, "A Network Model for Simulation of Grid Application", 2002).
/// Exact: rates change at once when a flow begins or ends. Congestion control, packets, losses and buffers are not modelled.
NetworkModel fair(Params& p) {
  const bool cm02 = p.choice("weights", "shares of a link: equal, or in inverse proportion to the latency of a flow's path, as TCP has it (cm02)", {"equal", "cm02"}, "equal") == "cm02";
  const double tolerance = p.number("tolerance", "0: exact; else about the relative error that 99 of 100 arrival times of a large exchange may have, for speed", 0, 0, 0.02);
  const Curve incast = read_curve(p, "incast", "numbers of messages", "the share of its rate that a link into a rank gives while so many messages come in over it, such as {8: 1, 128: 0.7}; linear in the logarithm of the number",
                                  [](std::string_view s) -> std::optional<double> { return parse_integer(s); });
  for (std::size_t i = 1; i < incast.points().size(); ++i)
    if (incast.points()[i].share > incast.points()[i - 1].share) p.error("incast", "`incast`: more messages do not make a link faster");
  const MessageCosts costs = read_message_costs(p);
  return with_message_costs(costs, {"max-min fair sharing of each link among the flows that cross it, plus path latency; packets, buffers and congestion control are not modelled",
                                    [=](const Topology& topology) { return std::make_unique<FairNetwork>(topology, cm02 && has_latencies(topology), tolerance, incast); }});
}

}  // namespace epsim::parts_network
