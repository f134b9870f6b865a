#pragma once
#include <cstdint>
#include <optional>
#include <vector>

#include "base/matrix.h"
#include "policies/schedule.h"
#include "topology/topology.h"

namespace epsim {

/// What rows between a serving rank and homes that are far enough from it have in common.
struct Approach {
  double latency = 0;                             ///< seconds that they take beside the time for which they keep the serving rank's links busy, one after another, at least
  std::vector<std::vector<std::int32_t>> nearer;  ///< [R] by serving rank: itself, and the homes with shorter ways; ascending
  std::vector<double> rates;                      ///< [R] bytes/s of the serving rank's links that the others' ways end or begin with; 0: there are no others
};

/// Where rows cross to a node once for all that it computes of a token (RowFor::node), and results go back the way that rows came: how soon and how fast.
struct Crossing {
  std::vector<std::int32_t> node;                ///< [R]
  std::vector<std::vector<std::int32_t>> homes;  ///< [R] ranks of other nodes whose rows enter this rank's node by it
  std::vector<double> in, out;                   ///< [R] bytes/s of the links by which they enter a rank, and their results leave it; 0: there are none
  std::vector<double> relayed_in, relayed_out;   ///< [R] bytes/s of the links by which those that entered by other ranks come to a rank, and their results leave it; 0: there are none
  double straight_there_s = 0, straight_back_s = 0;  ///< latency of a row that enters by the rank that it is for, and of its result, at least; 0 where none does
  double relayed_there_s = 0, relayed_back_s = 0;    ///< the same of one that enters by another; 0 where none does
};

/// What bounds must know of a machine and of an exchange on it, found once: how fast bytes can leave and enter each rank and each node, over all links together, and how long they are under way at least.
struct MachineCuts {
  std::vector<double> rank_out, rank_in;          ///< [R] bytes/s of a rank's own links, but for those that no path between ranks goes over; infinite where there are none
  std::vector<double> node_out, node_in;          ///< [N] bytes/s of the narrowest cut between a node and all others (topology/bisection.h); infinite where there is one node
  std::vector<double> latency_out, latency_in;    ///< [R] seconds from a rank to any other, or back, at least
  std::vector<double> far_out, far_in;            ///< [R] the same to and from ranks of other nodes; infinite where there is one node
  std::vector<Approach> there, back;              ///< of rows to serving ranks and of results from them, on the exchange's own ways, hop after hop; empty beyond 512 ranks
  std::optional<Crossing> crossing;               ///< where rows cross to nodes once
};
MachineCuts cuts_of(const Topology& topology, const Exchange& exchange);

}  // namespace epsim
