#pragma once
#include <array>
#include <cstdint>
#include <vector>

#include "sim/moe/buffers.h"
#include "sim/mpi/hosts.h"
#include "sim/mpi/world.h"

namespace epsim {

/// Seconds of a layer's three stages.
struct StageSeconds {
  double dispatch = 0, compute = 0, combine = 0;
};

/// One process's share of a schedule: plays it as often as wanted, with rows of any width and any work for its kernel calls.
class Player {
 public:
  /// `rows` [R] of the ranks that this process hosts. All must outlive the player.
  Player(World& world, const Hosts& hosts, const Schedule& schedule, const std::vector<RankRows>& rows);

  /// Plays the schedule once, `home` being the rows [tokens][width] of each hosted rank's tokens, and gives this process's seconds by stage.
  StageSeconds play(const std::vector<std::vector<float>>& home, std::int64_t width, const CallWork& work);

  /// Of the last play: the results of the hosted ranks' tokens, in token order.
  std::vector<float> result() const;

  /// Of the last play: rows that came to the hosted ranks, and whether they are those of the schedule in every phase and from every rank.
  struct Received {
    std::int64_t rows = 0;
    bool as_planned = true;
  };
  Received received() const;

 private:
  RankBuffers& buffers(int rank) { return buffers_[static_cast<std::size_t>(rank - begin_)]; }
  const RankRows::PhaseRows& rows(int rank, int phase) const { return rows_[rank].phases[static_cast<std::size_t>(phase)]; }
  void compute(int phase, Phase::Kind kind, const CallWork& work);
  void exchange(int phase, std::int64_t width);
  int next_tag(int peer, bool sending);

  World& world_;
  const Hosts& hosts_;
  const Schedule& schedule_;
  const std::vector<RankRows>& rows_;
  int begin_, end_;
  std::vector<RankBuffers> buffers_;
  std::vector<std::array<int, 2>> messages_;  // by peer: received, sent
  std::vector<std::vector<std::vector<std::int64_t>>> received_;  // [phases][hosted ranks][messages] rows that came
};

}  // namespace epsim
