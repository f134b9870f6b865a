#include "sim/network/shared/message_costs.h"

#include <algorithm>
#include <queue>
#include <tuple>

#include "sim/network/shared/deliveries.h"
#include "sim/network/shared/server.h"

namespace epsim {
namespace {

/// A network behind the processors and NICs of its ranks. A flow of several messages enters the network when its first message may, and has not come before its last message could.
class CostlyNetwork : public Network {
 public:
  CostlyNetwork(const MessageCosts& costs, const Topology& topology, std::unique_ptr<Network> network)
      : costs_(costs), topology_(topology), network_(std::move(network)), ranks_(static_cast<std::size_t>(topology.ranks())) {}

  void expect(const std::vector<RankPair>& pairs) override { network_->expect(pairs); }
  void start(const std::vector<Flow>& flows, double now) override {
    play(now);
    // Of messages that begin together a rank sends that to rank + 1 first, then to rank + 2, as MPI libraries do: else all would begin with rank 0.
    ordered_ = flows;
    const int n = topology_.ranks();
    std::stable_sort(ordered_.begin(), ordered_.end(), [n](const Flow& a, const Flow& b) { return (a.destination - a.source + n) % n < (b.destination - b.source + n) % n; });
    for (const Flow& f : ordered_) send(f, now);
    play(now);
  }
  double next_event() override { return std::min(next(), deliveries_.next()); }
  void advance(double now, std::vector<Arrival>& arrived) override {
    play(now);
    deliveries_.take(now, arrived);
  }
  double arrival_error() const override { return network_->arrival_error(); }

 private:
  struct Carried {
    Flow flow;      // with the caller's id
    double begin;   // enters the network
    double apart;   // seconds from one of its messages to the next, as they leave the sender
    double least;   // its last message cannot have come before
  };
  struct Ends {
    Server processor, out, in;
  };
  struct Timed {
    double at;
    std::int64_t order;  // among equal times
    std::size_t flow;    // of carried_
    bool operator<(const Timed& other) const { return std::tie(at, order) > std::tie(other.at, other.order); }  // the earliest is on top
  };
  using Queue = std::priority_queue<Timed>;

  static double next(const Queue& queue) { return queue.empty() ? std::numeric_limits<double>::infinity() : queue.top().at; }
  double next() { return std::min({network_->next_event(), next(waiting_), next(landing_)}); }

  /// Messages inside a node pass no NIC; where there is one node only, the ports of its ranks are the NICs.
  bool passes_nic(const Flow& f) const { return costs_.gap > 0 && (topology_.nodes() == 1 || topology_.node_of(f.source) != topology_.node_of(f.destination)); }

  void send(const Flow& f, double now) {
    const auto messages = static_cast<double>(f.messages);
    Ends& rank = ranks_[f.source];
    double last = now, first = now;
    if (costs_.overhead > 0) {
      last = rank.processor.serve(now, now, messages, costs_.overhead);
      first = last - (messages - 1) * costs_.overhead;
    }
    if (passes_nic(f)) {
      const double free = rank.out.free();
      last = std::max(last, rank.out.serve(first, last, messages, costs_.gap) - costs_.gap);
      first = std::max(first, free);
    }
    const double latency = topology_.latency(f.source, f.destination).seconds();
    const double asking = costs_.rendezvous > 0 && !f.one_sided && f.bytes / messages >= costs_.rendezvous ? latency + topology_.latency(f.destination, f.source).seconds() : 0;
    Carried c{f, first + asking, 0, 0};
    c.flow.bytes = messages * costs_.on_wire(f.bytes / messages);
    if (f.messages > 1) {
      c.apart = (last - first) / (messages - 1);
      c.least = last + asking + c.flow.bytes / messages / topology_.bandwidth(f.source, f.destination) + latency;
    }
    std::size_t number = carried_.size();
    if (unused_.empty()) {
      carried_.push_back(c);
    } else {
      number = unused_.back();
      unused_.pop_back();
      carried_[number] = c;
    }
    waiting_.push({c.begin, sent_++, number});
  }

  /// Plays everything up to `now` but the handing over of what has come.
  void play(double now) {
    for (double t; (t = next()) <= now;) {
      while (network_->next_event() <= t) {
        arrived_.clear();
        network_->advance(t, arrived_);
        for (const Arrival& a : arrived_) {
          const Carried& c = carried_[static_cast<std::size_t>(a.id)];
          landing_.push({std::max(a.at, c.least), c.flow.id, static_cast<std::size_t>(a.id)});
        }
      }
      for (; next(landing_) <= t; landing_.pop()) land(landing_.top());
      batch_.clear();
      for (; next(waiting_) <= t; waiting_.pop()) {
        batch_.push_back(carried_[waiting_.top().flow].flow);
        batch_.back().id = static_cast<std::int64_t>(waiting_.top().flow);
      }
      if (!batch_.empty()) network_->start(batch_, t);
    }
  }

  /// The last message of a flow has come to its rank's NIC.
  void land(const Timed& flow) {
    const Carried& c = carried_[flow.flow];
    const auto messages = static_cast<double>(c.flow.messages);
    Ends& rank = ranks_[c.flow.destination];
    double first = flow.at, last = flow.at;
    if (c.flow.messages > 1) {
      // They come evenly: as far apart as they left, or as the network carried them.
      const double begin = c.begin + topology_.latency(c.flow.source, c.flow.destination).seconds();
      first = last - (messages - 1) * std::max(c.apart, (last - begin) / messages);
    }
    if (passes_nic(c.flow)) last = std::max(last, rank.in.serve(first, last, messages, costs_.gap) - costs_.gap);
    if (costs_.overhead > 0 && !c.flow.one_sided) last = rank.processor.serve(c.flow.messages > 1 ? first : last, last, messages, costs_.overhead);
    deliveries_.add({c.flow.id, last});
    unused_.push_back(flow.flow);
  }

  const MessageCosts costs_;
  const Topology& topology_;
  const std::unique_ptr<Network> network_;
  std::vector<Ends> ranks_;         // [R]
  std::vector<Carried> carried_;     // the network knows a flow by its place here
  std::vector<std::size_t> unused_;  // places of carried_
  Queue waiting_, landing_;          // to enter the network; out of it, but with its last message still to come
  Deliveries deliveries_;
  std::int64_t sent_ = 0;
  std::vector<Flow> ordered_, batch_;
  std::vector<Arrival> arrived_;
};

}  // namespace

MessageCosts read_message_costs(Params& p) {
  MessageCosts c;
  c.overhead = p.time("overhead", "LogGP's o: what each message takes of its sender's processor, and of its receiver's unless it is one-sided; one after another", Time{}).seconds();
  c.gap = p.time("gap", "LogGP's g: least time between two messages that a rank sends to other nodes, and between two that it receives", Time{}).seconds();
  const double rate = p.number("message_rate", "messages that a NIC can send in a second, and receive: another way to say `gap`", 0.0, 0.0, 1e300, "no limit");
  c.rendezvous = static_cast<double>(p.bytes("rendezvous", "messages of this size and longer first go to the receiver and back, unless they are one-sided; 0B: none does", 0));
  c.half_size = static_cast<double>(p.bytes("half_size", "Hockney's n_half: a message of n bytes reaches the share n / (n + half_size) of a link's bandwidth", 0));
  c.efficiency = read_curve(p, "efficiency", "sizes of a message", "the share of a link's bandwidth that a message reaches, by its size, such as {4KiB: 0.2, 1MiB: 0.95}; linear in the logarithm of the size",
                            [](std::string_view s) -> std::optional<double> { return parse_bytes(s); });
  if (p.has("half_size") && p.has("efficiency")) p.error("efficiency", "`half_size` and `efficiency` say the same thing: give one of them");
  if (p.has("gap") && p.has("message_rate")) p.error("message_rate", "`gap` and `message_rate` say the same thing: give one of them");
  if (p.has("message_rate") && !(rate > 0)) p.error("message_rate", "`message_rate` must be above 0");
  if (rate > 0) c.gap = 1 / rate;
  return c;
}

NetworkModel with_message_costs(const MessageCosts& costs, NetworkModel model) {
  if (!costs.any()) return model;
  return {model.summary, [costs, make = std::move(model.make)](const Topology& topology) { return std::make_unique<CostlyNetwork>(costs, topology, make(topology)); }};
}

}  // namespace epsim
