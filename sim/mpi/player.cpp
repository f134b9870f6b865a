#include "sim/mpi/player.h"

#include <algorithm>
#include <chrono>

namespace epsim {

using Clock = std::chrono::steady_clock;

Player::Player(World& world, const Hosts& hosts, const Schedule& schedule, const std::vector<RankRows>& rows)
    : world_(world), hosts_(hosts), schedule_(schedule), rows_(rows), begin_(hosts.first[world.rank()]), end_(hosts.first[world.rank() + 1]), received_(schedule.phases.size()) {}

StageSeconds Player::play(const std::vector<std::vector<float>>& home, std::int64_t width, const CallWork& work) {
  buffers_.clear();
  for (int r = begin_; r < end_; ++r) buffers_.emplace_back(rows_[r], width, home[static_cast<std::size_t>(r - begin_)]);
  messages_.assign(static_cast<std::size_t>(world_.size()), {});
  for (std::size_t p = 0; p < received_.size(); ++p) {
    received_[p].clear();
    for (int r = begin_; r < end_; ++r) received_[p].emplace_back(rows(r, static_cast<int>(p)).receives.size());
  }
  world_.barrier();
  StageSeconds seconds;
  for (std::size_t p = 0; p < schedule_.phases.size(); ++p) {
    const auto start = Clock::now();
    const Phase& phase = schedule_.phases[p];
    if (phase.kind == Phase::Kind::transfer)
      exchange(static_cast<int>(p), width);
    else
      compute(static_cast<int>(p), phase.kind, work);
    double& stage = phase.stage == Stage::dispatch ? seconds.dispatch : phase.stage == Stage::compute ? seconds.compute : seconds.combine;
    stage += std::chrono::duration<double>(Clock::now() - start).count();
  }
  return seconds;
}

std::vector<float> Player::result() const {
  std::vector<float> y;
  for (const RankBuffers& b : buffers_) {
    const auto rows = b.buffer(static_cast<int>(schedule_.phases.size()) - 1);
    y.insert(y.end(), rows.begin(), rows.end());
  }
  return y;
}

Player::Received Player::received() const {
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

void Player::compute(int phase, Phase::Kind kind, const CallWork& work) {
  for (int r = begin_; r < end_; ++r) {
    if (kind == Phase::Kind::reduce) buffers(r).play_reduce(rows_[r], phase);
    const std::vector<Slot>& slots = rows(r, phase).slots;
    for (std::size_t call = 0; call < slots.size(); ++call) buffers(r).play_kernel(rows_[r], {Rank(r), phase, call, slots[call]}, work);
  }
}

/// Messages between two processes are told apart by how many came before them; both ends count alike because both walk pairs of ranks in one order.
int Player::next_tag(int peer, bool sending) {
  std::array<int, 2>& count = messages_[static_cast<std::size_t>(peer)];
  return count[sending]++ % World::kMaxTag;
}

void Player::exchange(int phase, std::int64_t h) {
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

}  // namespace epsim
