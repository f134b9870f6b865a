#include "sim/mpi/execute.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <set>

#include <fmt/format.h>
#include <unistd.h>

#include "sim/engine.h"
#include "sim/moe/buffers.h"
#include "sim/moe/reference.h"
#include "sim/mpi/dump.h"
#include "sim/run.h"

namespace epsim {
namespace {

using Clock = std::chrono::steady_clock;

/// Which plan ranks each process hosts: contiguous blocks.
struct Hosts {
  std::vector<int> first;  // [processes + 1]
  Hosts(int ranks, int processes) {
    for (int p = 0; p <= processes; ++p) first.push_back(static_cast<int>(static_cast<std::int64_t>(p) * ranks / processes));
  }
  int process_of(int rank) const { return static_cast<int>(std::upper_bound(first.begin(), first.end(), rank) - first.begin()) - 1; }
};

/// The vectors of tokens [first, last).
std::vector<float> token_vectors(const Experiment& e, std::int64_t first, std::int64_t last) {
  const std::int64_t h = e.execute_hidden;
  std::vector<float> x(static_cast<std::size_t>((last - first) * h));
  for (std::int64_t t = first; t < last; ++t) token_vector(e.seed, e.eval.first * e.source.tokens() + t, std::span(x).subspan(static_cast<std::size_t>((t - first) * h), static_cast<std::size_t>(h)));
  return x;
}

void load_expert(const Experiment& e, int layer, int expert, ExpertBank& bank) {
  const std::int64_t ffn = expert == kSharedExpert ? execute_pricing(e).shared_ffn : e.execute_ffn;
  bank.add(expert, ffn, make_expert_weights(e.seed, layer, expert, e.execute_hidden, ffn));
}

/// One process's share of a layer.
class Player {
 public:
  Player(World& world, const Hosts& hosts, const Experiment& e, const Plan& plan, const Schedule& schedule)
      : world_(world), hosts_(hosts), plan_(plan), schedule_(schedule), begin_(hosts.first[world.rank()]), end_(hosts.first[world.rank() + 1]), bank_(e.execute_hidden) {
    const bool shared = e.model.shared_ffn > 0;
    std::vector<bool> wanted(static_cast<std::size_t>(schedule.ranks));
    for (int r = begin_; r < end_; ++r) wanted[r] = true;
    rows_ = e.exchange.rows(plan, e.topology, shared, wanted);
    std::set<int> mine;
    for (int r = begin_; r < end_; ++r)
      for (int s = plan.placement.first_slot[r]; s < plan.placement.first_slot[r + 1]; ++s) mine.insert(plan.placement.expert_of_slot[s]);
    if (shared) mine.insert(kSharedExpert);
    for (const int expert : mine) load_expert(e, plan.layer, expert, bank_);
    for (int r = begin_; r < end_; ++r) home_.push_back(token_vectors(e, plan.routing.first_token[r], plan.routing.first_token[r + 1]));
    received_.resize(schedule.phases.size());
    for (std::size_t p = 0; p < received_.size(); ++p)
      for (int r = begin_; r < end_; ++r) received_[p].emplace_back(rows(r, static_cast<int>(p)).receives.size());
  }

  /// Plays the schedule once and gives this process's seconds by stage.
  StageSeconds play() {
    buffers_.clear();
    for (int r = begin_; r < end_; ++r) buffers_.emplace_back(rows_[r], bank_.hidden(), home_[static_cast<std::size_t>(r - begin_)]);
    messages_.assign(static_cast<std::size_t>(world_.size()), {});
    world_.barrier();
    StageSeconds seconds;
    for (std::size_t p = 0; p < schedule_.phases.size(); ++p) {
      const auto start = Clock::now();
      const Phase& phase = schedule_.phases[p];
      if (phase.kind == Phase::Kind::transfer)
        exchange(static_cast<int>(p));
      else
        compute(static_cast<int>(p), phase.kind);
      double& stage = phase.stage == Stage::dispatch ? seconds.dispatch : phase.stage == Stage::compute ? seconds.compute : seconds.combine;
      stage += std::chrono::duration<double>(Clock::now() - start).count();
    }
    return seconds;
  }

  /// The results of the hosted ranks' tokens, in token order.
  std::vector<float> result() const {
    std::vector<float> y;
    for (const RankBuffers& b : buffers_) {
      const auto rows = b.buffer(static_cast<int>(schedule_.phases.size()) - 1);
      y.insert(y.end(), rows.begin(), rows.end());
    }
    return y;
  }

  /// Rows that came to the hosted ranks, and whether they are those of the schedule in every phase and from every rank.
  struct Received {
    std::int64_t rows = 0;
    bool as_planned = true;
  };
  Received received() const {
    Received all;
    for (std::size_t p = 0; p < received_.size(); ++p) {
      std::int64_t came = 0, planned = 0;
      for (const RowTable::Entry& e : schedule_.phases[p].rows.all())
        if (e.destination >= begin_ && e.destination < end_) planned += e.rows;
      for (Rank r(begin_); r < end_; r = Rank(r + 1)) {
        const auto& messages = rows(r, static_cast<int>(p)).receives;
        for (std::size_t m = 0; m < messages.size(); ++m) {
          const std::int64_t n = received_[p][static_cast<std::size_t>(r - begin_)][m];
          all.as_planned = all.as_planned && n == schedule_.phases[p].rows(messages[m].other, r);
          came += n;
        }
      }
      all.as_planned = all.as_planned && came == planned;
      all.rows += came;
    }
    return all;
  }

 private:
  RankBuffers& buffers(int rank) { return buffers_[static_cast<std::size_t>(rank - begin_)]; }
  const RankRows::PhaseRows& rows(int rank, int phase) const { return rows_[rank].phases[static_cast<std::size_t>(phase)]; }

  void compute(int phase, Phase::Kind kind) {
    for (int r = begin_; r < end_; ++r) {
      if (kind == Phase::Kind::reduce) buffers(r).play_reduce(rows_[r], phase);
      for (std::size_t call = 0; call < rows(r, phase).slots.size(); ++call) buffers(r).play_kernel(rows_[r], phase, call, plan_.placement, bank_);
    }
  }

  /// Messages between two processes are told apart by how many came before them; both ends count alike because both walk pairs of ranks in one order.
  int next_tag(int peer, bool sending) {
    std::array<int, 2>& count = messages_[static_cast<std::size_t>(peer)];
    return count[sending]++ % World::kMaxTag;
  }

  void exchange(int phase) {
    const std::int64_t h = bank_.hidden();
    World::Requests requests;
    std::vector<std::int64_t*> counts;  // of each receive, in order
    std::vector<std::vector<std::int64_t>>& arrived = received_[static_cast<std::size_t>(phase)];
    // By source, then destination, as the senders go.
    struct Incoming {
      int source, rank;
      std::size_t message;
    };
    std::vector<Incoming> incoming;
    for (int r = begin_; r < end_; ++r)
      for (std::size_t m = 0; m < rows(r, phase).receives.size(); ++m)
        if (const int s = rows(r, phase).receives[m].other; s < begin_ || s >= end_) incoming.push_back({s, r, m});
    std::sort(incoming.begin(), incoming.end(), [](const Incoming& a, const Incoming& b) { return std::pair(a.source, a.rank) < std::pair(b.source, b.rank); });
    for (const Incoming& i : incoming) {
      const RankRows::PhaseRows::Message& message = rows(i.rank, phase).receives[i.message];
      const int peer = hosts_.process_of(i.source);
      requests.receive(buffers(i.rank).buffer(phase).subspan(static_cast<std::size_t>(message.first * h), static_cast<std::size_t>(message.rows * h)), peer, next_tag(peer, false));
      counts.push_back(&arrived[static_cast<std::size_t>(i.rank - begin_)][i.message]);
    }
    std::vector<std::vector<float>> outgoing;
    for (int r = begin_; r < end_; ++r)
      for (const RankRows::PhaseRows::Message& message : rows(r, phase).sends) {
        const auto refs = std::span(rows(r, phase).send).subspan(static_cast<std::size_t>(message.first), static_cast<std::size_t>(message.rows));
        const Rank d = message.other;
        if (d >= begin_ && d < end_) {
          const RankRows::PhaseRows& in = rows(d, phase);
          const RankRows::PhaseRows::Message& landing = in.receive_from(Rank(r));
          buffers(r).gather(refs, buffers(d).buffer(phase).subspan(static_cast<std::size_t>(landing.first * h), refs.size() * static_cast<std::size_t>(h)));
          arrived[static_cast<std::size_t>(d - begin_)][static_cast<std::size_t>(&landing - in.receives.data())] = message.rows;
        } else {
          std::vector<float>& data = outgoing.emplace_back(refs.size() * static_cast<std::size_t>(h));
          buffers(r).gather(refs, data);
          const int peer = hosts_.process_of(d);
          requests.send(data, peer, next_tag(peer, true));
        }
      }
    // What MPI says came, not what there was room for: this is compared with the plan.
    const std::vector<std::int64_t> brought = requests.wait();
    for (std::size_t i = 0; i < counts.size(); ++i) *counts[i] = brought[i] % h == 0 ? brought[i] / h : -1;
  }

  World& world_;
  const Hosts& hosts_;
  const Plan& plan_;
  const Schedule& schedule_;
  int begin_, end_;
  ExpertBank bank_;
  std::vector<RankRows> rows_;
  std::vector<std::vector<float>> home_;
  std::vector<RankBuffers> buffers_;
  std::vector<std::array<int, 2>> messages_;  // by peer: received, sent
  std::vector<std::vector<std::vector<std::int64_t>>> received_;  // [phases][hosted ranks][messages] rows that came
};

/// Bytes that the first process needs at the least: its share of the experts, and the tokens, their result and the two references.
double least_memory(const World& world, const Experiment& e) {
  const double expert = 3.0 * static_cast<double>(e.execute_hidden) * static_cast<double>(e.execute_ffn), tokens = static_cast<double>(e.source.tokens());
  return static_cast<double>(sizeof(float)) * (expert * e.model.num_experts / world.size() + 4 * tokens * static_cast<double>(e.execute_hidden));
}

double median(std::vector<double> v) {
  std::sort(v.begin(), v.end());
  return v.empty() ? 0 : v[v.size() / 2];
}

LayerExecution execute_layer(World& world, const Experiment& e, Run& run, std::size_t index, const ExecuteOptions& options) {
  const int layer = e.layers[index];
  const int ranks = e.topology.ranks();
  const Hosts hosts(ranks, world.size());
  const int begin = hosts.first[world.rank()], end = hosts.first[world.rank() + 1];

  // Each process routes its own tokens; choices, not scores, are then shared, and from there on every process plans alike.
  Routing routing = make_routing(e.source, e.model.num_experts, e.model.top_k, e.router);
  route_layer(e, e.eval.first, layer, begin, end, routing);
  std::vector<std::int64_t> choice_counts, token_counts;
  for (int p = 0; p < world.size(); ++p) {
    token_counts.push_back(routing.first_token[hosts.first[p + 1]] - routing.first_token[hosts.first[p]]);
    choice_counts.push_back(token_counts.back() * routing.top_k);
  }
  world.all_gather(std::span(routing.expert), choice_counts);
  world.all_gather(std::span(routing.weight), choice_counts);
  const Plan plan = run.plan(e.eval.first, index, std::move(routing));

  LayerExecution done;
  done.layer = layer;
  done.plan_digest = plan.digest();
  if (!world.all_equal(done.plan_digest)) throw std::runtime_error(fmt::format("processes planned layer {} differently: no row was moved", layer));
  const Schedule schedule = e.exchange.schedule(plan, e.topology, execute_pricing(e));

  Player player(world, hosts, e, plan, schedule);
  std::vector<double> dispatch, compute, combine;
  for (int i = 0; i < options.repeats; ++i) {
    const StageSeconds s = player.play();
    dispatch.push_back(world.max(s.dispatch)), compute.push_back(world.max(s.compute)), combine.push_back(world.max(s.combine));
  }
  done.measured = {median(dispatch), median(compute), median(combine)};

  std::vector<std::int64_t> value_counts;
  for (int p = 0; p < world.size(); ++p) value_counts.push_back(token_counts[static_cast<std::size_t>(p)] * e.execute_hidden);
  const std::vector<float> y = world.gather(std::span<const float>(player.result()), value_counts);
  const Player::Received received = player.received();
  done.rows_match_plan = world.all(received.as_planned);
  for (const std::int64_t rows : world.gather(std::span(&received.rows, 1), std::vector<std::int64_t>(static_cast<std::size_t>(world.size()), 1))) done.rows_moved += rows;
  done.bytes_moved = done.rows_moved * e.execute_hidden * static_cast<std::int64_t>(sizeof(float));
  if (!world.root()) return done;

  const Timeline timeline = simulate(schedule, e.topology, e.network, e.compute, Precision::fp32);
  const Timeline::Stages stages = timeline.stages(schedule);
  done.simulated = {stages.dispatch.seconds(), stages.compute.seconds(), stages.combine.seconds()};

  const std::vector<float> x = token_vectors(e, 0, plan.routing.tokens());
  ExpertBank bank(e.execute_hidden);
  const Reference expected = reference(plan, [&](Rank home, Slot s) { return e.exchange.tree(plan, e.topology, home, s); }, e.exchange.tree_by_key, e.model.shared_ffn > 0, x, bank,
                                       [&](int expert) { load_expert(e, layer, expert, bank); });
  done.bit_identical = y.size() == expected.y.size() && std::memcmp(y.data(), expected.y.data(), y.size() * sizeof(float)) == 0;
  for (std::size_t i = 0; i < y.size(); ++i) {
    // A NaN must not look like agreement.
    const auto worse = [&](double worst, float other) { return std::isnan(y[i]) ? std::numeric_limits<double>::infinity() : std::max(worst, std::abs(double{y[i]} - double{other})); };
    done.max_abs_error = worse(done.max_abs_error, expected.y[i]);
    done.max_abs_error_plain = worse(done.max_abs_error_plain, expected.y_plain[i]);
  }
  if (!options.dump.empty()) write_dump(options.dump, e, plan, x, y);
  return done;
}

}  // namespace

Pricing execute_pricing(const Experiment& e) {
  Pricing p = e.pricing;
  p.hidden = e.execute_hidden, p.expert_ffn = e.execute_ffn;
  // A shrunken expert has a shrunken shared expert, in the model's own proportion.
  if (p.shared_ffn > 0) p.shared_ffn = std::max<std::int64_t>(1, e.model.shared_ffn * e.execute_ffn / e.model.expert_ffn);
  p.expert_matrices = 3;
  p.dispatch = p.combine = p.weights = Precision::fp32;
  p.dispatch_extra = p.combine_extra = 0;
  return p;
}

void check_execution(const World& world, const Experiment& e, const ExecuteOptions& options) {
  const int ranks = e.topology.ranks();
  Diagnostics problems;
  if (world.size() > ranks) problems.add({}, fmt::format("{} processes cannot share {} plan ranks: start at most {} (mpirun -n {})", world.size(), ranks, ranks, ranks));
  if (!options.dump.empty() && e.layers.size() != 1)
    problems.add({}, fmt::format("--dump writes one layer and the experiment has {}: choose one, such as --set layers={}", e.layers.size(), e.layers.front()));
  const double memory = static_cast<double>(sysconf(_SC_PHYS_PAGES)) * static_cast<double>(sysconf(_SC_PAGESIZE)), least = least_memory(world, e);
  if (memory > 0 && least > memory)
    problems.add({}, fmt::format("real experts and tokens of this size need more than {} on the first process and this machine has {}: shrink them, such as --set execute.hidden=256 --set "
                                 "execute.ffn=64, or take fewer tokens",
                                 format_bytes(least), format_bytes(memory)));
  problems.check();
}

std::vector<LayerExecution> execute(World& world, const Experiment& e, const ExecuteOptions& options) {
  std::vector<LayerExecution> all;
  Run run(e);
  fit(e, {&run});
  for (std::size_t l = 0; l < e.layers.size(); ++l) all.push_back(execute_layer(world, e, run, l, options));
  return all;
}

}  // namespace epsim
