#include "sim/engine.h"

#include <algorithm>
#include <deque>
#include <queue>
#include <string>
#include <tuple>

#include "base/check.h"

namespace epsim {
namespace {

constexpr int kRankBits = 20, kPhaseBits = 24;

/// A phase of one of the schedules on one rank; `sent`: the rank's own messages of it alone.
struct Step {
  Rank rank;
  std::int32_t play, phase;
  bool sent = false;
  friend auto operator<=>(const Step& a, const Step& b) { return std::tuple(a.rank.value, a.play, a.phase, a.sent) <=> std::tuple(b.rank.value, b.play, b.phase, b.sent); }
};

/// How far the ranks are with one phase: all [R].
struct PhaseProgress {
  std::vector<int> waiting;          // phases (and the schedule's own gate) to be done before the rank begins
  std::vector<std::int32_t> due;     // transfer: messages to the rank that have not arrived
  std::vector<std::int32_t> unsent;  // transfer that others wait for to be sent: messages from the rank that have not arrived
  std::vector<Time> begun;
  std::vector<Time> first, last;     // transfer: begin and end of the messages sent or received
  std::vector<std::int64_t> rows;    // transfer: rows received from other ranks
  std::vector<std::vector<std::int32_t>> calls;  // kernel: call indices of each rank
  std::vector<std::int32_t> next;       // phases that wait for this one
  std::vector<std::int32_t> next_sent;  // phases that wait until a rank has sent this one
};

struct Play {
  const Schedule* schedule;
  std::vector<int> before;           // schedules to be done first
  std::vector<std::int32_t> next;    // schedules that wait for this one
  std::vector<int> gates;            // [R] schedules in `before` that the rank is not done with
  std::vector<std::int32_t> left;    // [R] phases the rank is not done with
  std::vector<PhaseProgress> phases;
  Timeline timeline;
};

PhaseProgress first_state(const Phase& phase, int ranks) {
  PhaseProgress g;
  const auto n = static_cast<std::size_t>(ranks);
  g.begun.assign(n, Time::never());
  switch (phase.kind) {
    case Phase::Kind::transfer:
      ensure(phase.rows.ranks() == ranks && phase.row_bytes >= 0, "a transfer is one between the ranks of its schedule");
      g.due.resize(n);
      g.rows.resize(n);
      g.first.assign(n, Time::never());
      g.last.resize(n);
      if (phase.row_bytes == 0) break;  // nothing crosses a link
      for (const RowTable::Entry& e : phase.rows.all()) ++g.due[e.destination], g.rows[e.destination] += e.rows;
      break;
    case Phase::Kind::kernel:
      g.calls.resize(n);
      for (std::size_t c = 0; c < phase.kernels.size(); ++c) {
        ensure(phase.kernels[c].rank >= 0 && phase.kernels[c].rank < ranks, "a kernel runs on a rank of the schedule");
        g.calls[phase.kernels[c].rank].push_back(static_cast<std::int32_t>(c));
      }
      break;
    case Phase::Kind::reduce:
      ensure(phase.reduce_bytes.size() == n, "a reduce has bytes for every rank");
      break;
  }
  return g;
}

}  // namespace

struct Engine::State {
  const Topology& topology;
  Network& network;
  const ComputeModel& compute;
  Precision precision;
  Timeline::Detail detail;

  State(const Topology& t, Network& n, const ComputeModel& c, Precision p, Timeline::Detail d)
      : topology(t), network(n), compute(c), precision(p), detail(d), devices(static_cast<std::size_t>(t.ranks())) {}

  std::vector<Play> plays;
  std::vector<std::pair<std::int32_t, std::int32_t>> phase_of_id;  // (play, phase) of the phase part of a flow id
  std::vector<std::vector<std::int64_t>> id_of_phase;              // [play][phase]

  struct Device {
    bool busy = false;
    std::deque<Step> sums, kernels;
  };
  struct Finish {
    Time at;
    Step step;
  };
  struct Later {
    bool operator()(const Finish& a, const Finish& b) const { return a.at != b.at ? a.at > b.at : b.step < a.step; }
  };
  Time now;
  double clock = 0;  // the network's; the engine's times never go back into it but as the start of a batch
  std::vector<Device> devices;  // [R]
  std::priority_queue<Finish, std::vector<Finish>, Later> finishes;
  std::vector<Rank> free;     // ranks that may have something to compute at this picosecond, and do not yet
  std::vector<Step> done;     // what became done at this picosecond and is not handled yet
  std::vector<Flow> batch;    // messages that start at this picosecond
  std::vector<Network::Arrival> arrived;

  Play& play(const Step& s) { return plays[static_cast<std::size_t>(s.play)]; }
  const Phase& phase(const Step& s) { return play(s).schedule->phases[static_cast<std::size_t>(s.phase)]; }
  PhaseProgress& progress(const Step& s) { return play(s).phases[static_cast<std::size_t>(s.phase)]; }

  Time after(double seconds) const {
    const Time t = time_from_seconds(seconds);
    ensure(seconds >= 0 && t < Time::never() && t.ps < Time::never().ps - now.ps, "an operation ends within 100 days");
    return now + t;
  }

  /// One of the things that `s` waits for has happened.
  void release(const Step& s) {
    if (--progress(s).waiting[s.rank] == 0) begin(s);
  }

  void begin(const Step& s) {
    progress(s).begun[s.rank] = now;
    if (phase(s).kind == Phase::Kind::transfer) {
      send(s);
      if (progress(s).due[s.rank] == 0) done.push_back(s);
    } else if (!has_work(s)) {
      done.push_back(s);
    } else {
      Device& device = devices[s.rank];
      (phase(s).kind == Phase::Kind::reduce ? device.sums : device.kernels).push_back(s);
      free.push_back(s.rank);
    }
  }

  bool has_work(const Step& s) {
    const Phase& p = phase(s);
    if (p.kind == Phase::Kind::reduce) return p.reduce_bytes[s.rank] > 0;
    const std::vector<std::int32_t>& calls = progress(s).calls[s.rank];
    return std::any_of(calls.begin(), calls.end(), [&](std::int32_t c) { return p.kernels[static_cast<std::size_t>(c)].rows > 0; });
  }

  void send(const Step& s) {
    const Phase& p = phase(s);
    PhaseProgress& g = progress(s);
    if (p.row_bytes > 0) {
      const std::int64_t id = id_of_phase[s.play][s.phase] << 2 * kRankBits | std::int64_t{s.rank} << kRankBits;
      for (const RowTable::Entry& e : p.rows.from(s.rank))
        batch.push_back({id | e.destination, s.rank, e.destination, static_cast<double>(e.rows * p.row_bytes), p.rows_per_message > 0 ? (e.rows + p.rows_per_message - 1) / p.rows_per_message : 1, p.one_sided});
    }
    if (g.next_sent.empty()) return;
    g.unsent[s.rank] = p.row_bytes > 0 ? static_cast<std::int32_t>(p.rows.from(s.rank).size()) : 0;
    if (g.unsent[s.rank] == 0) done.push_back({s.rank, s.play, s.phase, true});
  }

  void compute_next(Rank r) {
    Device& device = devices[r];
    std::deque<Step>& queue = device.sums.empty() ? device.kernels : device.sums;
    if (device.busy || queue.empty()) return;
    const Step s = queue.front();
    queue.pop_front();
    const Time end = compute_end(s);
    if (end == now) {
      done.push_back(s), free.push_back(r);
    } else {
      device.busy = true;
      finishes.push({end, s});
    }
  }

  Time compute_end(const Step& s) {
    const Phase& p = phase(s);
    Timeline& t = play(s).timeline;
    if (p.kind == Phase::Kind::reduce) {
      const Time end = after(compute.reduce_seconds(topology.device(), p.reduce_bytes[s.rank]));
      t.slices.push_back({s.phase, s.rank, Slot(), 0, now, end});
      return end;
    }
    Time at = now;
    for (const std::int32_t c : progress(s).calls[s.rank]) {
      const KernelCall& call = p.kernels[c];
      const Time end = at + (after(compute.kernel_seconds(topology.device(), call, precision)) - now);
      ensure(end.ps >= at.ps, "a kernel ends within 100 days");
      if (call.rows > 0) t.slices.push_back({s.phase, s.rank, call.slot, call.rows, at, end});
      at = end;
    }
    return at;
  }

  void finish(const Step& s) {
    if (s.sent) {
      for (const std::int32_t next : progress(s).next_sent) release({s.rank, s.play, next});
      return;
    }
    Play& p = play(s);
    p.timeline.done[s.phase][s.rank] = now;
    p.timeline.end = std::max(p.timeline.end, now);
    for (const std::int32_t next : progress(s).next) release({s.rank, s.play, next});
    if (--p.left[s.rank] == 0) leave(s.play, s.rank);
  }

  /// The rank is done with a whole schedule.
  void leave(std::int32_t number, Rank r) {
    for (const std::int32_t next : plays[number].next)
      if (--plays[next].gates[r] == 0) enter(next, r);
  }

  void enter(std::int32_t number, Rank r) {
    Play& p = plays[number];
    for (std::size_t i = 0; i < p.phases.size(); ++i) release({r, number, static_cast<std::int32_t>(i)});
    if (p.phases.empty()) leave(number, r);
  }

  void handle_done() {
    std::vector<Step> steps;
    std::vector<Rank> ranks;
    while (!done.empty() || !free.empty()) {
      while (!done.empty()) {
        std::sort(done.begin(), done.end());
        steps.swap(done);
        for (const Step& s : steps) finish(s);
        steps.clear();
      }
      // What a rank computes next is chosen, one at a time, when all that becomes ready in this picosecond is.
      ranks.swap(free);
      std::ranges::sort(ranks);
      ranks.erase(std::unique(ranks.begin(), ranks.end()), ranks.end());
      for (const Rank r : ranks) compute_next(r);
      ranks.clear();
    }
    if (batch.empty()) return;
    clock = std::max(clock, now.seconds());
    network.start(batch, clock);
    batch.clear();
  }

  void arrive(const Network::Arrival& a) {
    constexpr std::int64_t mask = (std::int64_t{1} << kRankBits) - 1;
    const auto [number, index] = phase_of_id[static_cast<std::size_t>(a.id >> 2 * kRankBits)];
    const Rank source(a.id >> kRankBits & mask), destination(a.id & mask);
    const Step s{destination, number, index};
    PhaseProgress& g = progress(s);
    for (const Rank r : {source, destination}) {
      g.first[r] = std::min(g.first[r], g.begun[source]);
      g.last[r] = now;
    }
    if (detail == Timeline::Detail::flow)
      play(s).timeline.flows.push_back({index, source, destination, phase(s).rows(source, destination) * phase(s).row_bytes, g.begun[source], now, a.at});
    if (!g.next_sent.empty() && --g.unsent[source] == 0) done.push_back({source, number, index, true});
    if (--g.due[destination] == 0 && g.waiting[destination] == 0) done.push_back(s);
  }

  /// The next picosecond at which anything happens; never when nothing will.
  Time next() const {
    const Time compute_at = finishes.empty() ? Time::never() : finishes.top().at;
    return std::max(now, std::min(compute_at, time_from_seconds(network.next_event())));
  }

  /// All pairs of ranks that any transfer has bytes for.
  std::vector<RankPair> pairs_that_send() const {
    const auto ranks = static_cast<std::size_t>(topology.ranks());
    std::vector<bool> sends(ranks * ranks);
    for (const Play& p : plays)
      for (const Phase& phase : p.schedule->phases) {
        if (phase.kind != Phase::Kind::transfer || phase.row_bytes == 0) continue;
        for (const RowTable::Entry& e : phase.rows.all()) sends[static_cast<std::size_t>(e.source) * ranks + static_cast<std::size_t>(e.destination)] = true;
      }
    std::vector<RankPair> pairs;
    for (std::size_t i = 0; i < sends.size(); ++i)
      if (sends[i]) pairs.push_back({static_cast<std::int32_t>(i / ranks), static_cast<std::int32_t>(i % ranks)});
    return pairs;
  }

  void step() {
    while (time_from_seconds(network.next_event()) <= now) {
      clock = std::max(clock, network.next_event());
      network.advance(clock, arrived);
    }
    for (const Network::Arrival& a : arrived) arrive(a);
    arrived.clear();
    while (!finishes.empty() && finishes.top().at == now) {
      done.push_back(finishes.top().step);
      free.push_back(finishes.top().step.rank);
      devices[finishes.top().step.rank].busy = false;
      finishes.pop();
    }
    handle_done();
  }

  void collect(Play& p) {
    Timeline& t = p.timeline;
    for (std::size_t i = 0; i < p.phases.size(); ++i) {
      const PhaseProgress& g = p.phases[i];
      for (std::size_t r = 0; r < g.first.size(); ++r)
        if (g.first[r] != Time::never()) t.slices.push_back({static_cast<std::int32_t>(i), Rank(static_cast<std::int64_t>(r)), Slot(), g.rows[r], g.first[r], g.last[r]});
    }
    std::stable_sort(t.slices.begin(), t.slices.end(),
                     [](const auto& a, const auto& b) { return std::tuple(a.phase, a.rank.value, a.begin) < std::tuple(b.phase, b.rank.value, b.begin); });
    std::sort(t.flows.begin(), t.flows.end(), [](const auto& a, const auto& b) {
      return std::tuple(a.phase, a.source.value, a.destination.value) < std::tuple(b.phase, b.source.value, b.destination.value);
    });
  }
};

Engine::Engine(const Topology& topology, Network& network, const ComputeModel& compute, Precision precision, Timeline::Detail detail)
    : state_(std::make_unique<State>(topology, network, compute, precision, detail)) {
  ensure(topology.ranks() < 1 << kRankBits, "the engine takes fewer than 2^20 ranks");
}

Engine::~Engine() = default;

int Engine::add(const Schedule& schedule, std::vector<int> after) {
  State& e = *state_;
  const auto number = static_cast<int>(e.plays.size());
  ensure(schedule.ranks == e.topology.ranks(), "a schedule has the ranks of the topology");
  Play p;
  p.schedule = &schedule;
  const auto n = static_cast<std::size_t>(schedule.ranks);
  std::sort(after.begin(), after.end());
  after.erase(std::unique(after.begin(), after.end()), after.end());
  for (const int before : after) {
    ensure(before >= 0 && before < number, "a schedule waits only for schedules added before it");
    e.plays[before].next.push_back(number);
  }
  p.before = std::move(after);
  p.gates.assign(n, static_cast<int>(p.before.size()));
  p.left.assign(n, static_cast<std::int32_t>(schedule.phases.size()));
  p.timeline.done.assign(schedule.phases.size(), std::vector<Time>(n, Time::never()));
  e.id_of_phase.emplace_back();
  for (std::size_t i = 0; i < schedule.phases.size(); ++i) {
    const Phase& phase = schedule.phases[i];
    PhaseProgress g = first_state(phase, schedule.ranks);
    g.waiting.assign(n, static_cast<int>(phase.after.size() + phase.after_sent.size()) + 1);  // + 1: the rank enters the schedule
    for (const int before : phase.after) {
      ensure(before >= 0 && static_cast<std::size_t>(before) < i, "phase `" + phase.name + "` waits only for phases before it");
      p.phases[before].next.push_back(static_cast<std::int32_t>(i));
    }
    for (const int before : phase.after_sent) {
      ensure(before >= 0 && static_cast<std::size_t>(before) < i && schedule.phases[before].kind == Phase::Kind::transfer, "phase `" + phase.name + "` waits only for transfers before it to be sent");
      p.phases[before].next_sent.push_back(static_cast<std::int32_t>(i));
      p.phases[before].unsent.resize(n);
    }
    p.phases.push_back(std::move(g));
    ensure(e.phase_of_id.size() < std::size_t{1} << (kPhaseBits - 1), "the engine takes fewer than 2^23 phases");
    e.id_of_phase.back().push_back(static_cast<std::int64_t>(e.phase_of_id.size()));
    e.phase_of_id.emplace_back(number, static_cast<std::int32_t>(i));
  }
  e.plays.push_back(std::move(p));
  return number;
}

std::vector<Timeline> Engine::run() {
  State& e = *state_;
  e.network.expect(e.pairs_that_send());
  for (const Rank r : ids<Rank>(e.topology.ranks()))
    for (std::size_t i = 0; i < e.plays.size(); ++i)
      if (e.plays[i].before.empty()) e.enter(static_cast<std::int32_t>(i), r);
  e.handle_done();
  for (Time t; (t = e.next()) < Time::never();) {
    e.now = t;
    e.step();
  }
  std::vector<Timeline> timelines;
  for (Play& p : e.plays) {
    for (std::size_t i = 0; i < p.phases.size(); ++i)
      for (const Time t : p.timeline.done[i])
        ensure(t < Time::never(), "phase `" + p.schedule->phases[i].name + "` ends on every rank within 100 days");
    e.collect(p);
    p.timeline.arrival_error = e.network.arrival_error();
    timelines.push_back(std::move(p.timeline));
  }
  e.plays.clear();
  return timelines;
}

Timeline simulate(const Schedule& schedule, const Topology& topology, const NetworkModel& network, const ComputeModel& compute, Precision precision, Timeline::Detail detail) {
  const std::unique_ptr<Network> fresh = network.make(topology);
  Engine engine(topology, *fresh, compute, precision, detail);
  engine.add(schedule);
  return std::move(engine.run().front());
}

}  // namespace epsim
