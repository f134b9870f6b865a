#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/units.h"
#include "policies/journey.h"
#include "policies/plan.h"
#include "policies/pricing.h"
#include "policies/row_table.h"

namespace epsim {

/// The part of a layer that a phase's time is counted in.
enum class Stage { dispatch, compute, combine };
std::string_view name_of(Stage stage);

/// A kernel a rank runs: an expert FFN over `rows` rows.
struct KernelCall {
  Rank rank;
  Slot slot;             ///< invalid for the shared expert, in its own phase or for tokens that visit the rank
  std::int64_t rows = 0;
  double flops = 0;        ///< floating point operations
  double weight_bytes = 0; ///< weights read once
  double row_bytes = 0;    ///< activations read and written
};

/// The call of an expert of inner width `ffn` over `rows` rows. Activations are read in the format they were dispatched in and written in the one they return in; the inner vectors are written and
/// read once each in 2 bytes.
KernelCall expert_call(const Pricing& pricing, Rank rank, Slot slot, std::int64_t rows, std::int64_t ffn);

/// One dense operation over all ranks. There are three kinds and no more:
/// a `transfer` of rows between ranks, `kernel` calls, and a `reduce` that adds rows on each rank.
struct Phase {
  enum class Kind { transfer, kernel, reduce };
  Kind kind = Kind::transfer;
  Stage stage = Stage::dispatch;
  std::string name;
  /// Phases that must be complete on a rank before this one begins there. A transfer is complete on a rank when all rows to it have arrived;
  /// kernels and reduces when the rank has done its own.
  std::vector<int> after;
  /// Transfers whose messages *from* a rank must have arrived before this one begins there. It paces a rank and says nothing of data, so interpreters that only move data need not wait for it.
  std::vector<int> after_sent;

  RowTable rows;                      ///< transfer
  Bytes row_bytes = 0;                ///< transfer: bytes of one row on the wire
  std::int64_t rows_per_message = 0;  ///< transfer: rows that travel as one message; 0: all rows of a pair of ranks
  bool one_sided = false;             ///< transfer: rows are written into the receiver's memory, which takes no part in it
  std::vector<KernelCall> kernels;        ///< kernel: grouped by rank, in the order they run
  std::vector<double> reduce_bytes;       ///< reduce: [R] bytes read and written
  std::vector<std::int64_t> reduced_rows; ///< reduce: [R] rows that come of it
};

/// What each rank does in one layer, phase by phase, in an order that respects `after`.
struct Schedule {
  int ranks = 0;
  std::vector<Phase> phases;
};

/// A row in a buffer of a rank. Buffer 0 holds the home tokens; buffer 1+p the rows that phase p delivers, computes or adds up there.
struct RowRef {
  std::int32_t buffer = 0;
  std::int32_t row = 0;
  friend bool operator==(RowRef, RowRef) = default;
};

/// A weighted sum: out = sum over i, in order, of weight[i] * row(terms[i]).
struct Term {
  RowRef row;
  float weight = 1;
};

/// The rows of one rank's part of a schedule: what an interpreter that moves data plays.
struct RankRows {
  struct PhaseRows {
    /// A message: the rank at its other end, and its rows, [first, first + rows) of `send` or of the receiver's buffer of this phase.
    struct Message {
      Rank other;
      std::int64_t first = 0, rows = 0;
    };
    /// transfer, as sender: the rows to each destination, concatenated; destinations rise.
    std::vector<RowRef> send;
    std::vector<Message> sends;
    /// transfer, as receiver: where the rows from each source land; sources rise.
    std::vector<Message> receives;
    /// The message from `source`, which there must be.
    const Message& receive_from(Rank source) const;
    /// kernel: input rows of call i of this rank are input[input_first[i]] ..; output row = position in `input`.
    std::vector<RowRef> input;
    std::vector<std::int64_t> input_first;
    std::vector<Slot> slots;  ///< of each call; invalid for the shared expert
    /// reduce: output row i adds terms[term_first[i]] .. in order.
    std::vector<Term> terms;
    std::vector<std::int64_t> term_first;
  };
  std::vector<PhaseRows> phases;
  std::int64_t buffer_rows(std::size_t phase) const;  ///< rows that the phase's buffer holds
};

/// What a row may stand for at most, on its way across any link: one copy of a token; all its copies on one rank, or on one node; or all of them.
enum class RowFor { copy, rank, node, token };

/// An all-to-all algorithm for the two exchanges of a layer.
struct Exchange {
  std::string_view summary;
  /// The group keys of a copy that is computed on rank `at` in the tree by which its token's result is added, outermost first; copies with equal keys are added first, in choice order,
  /// and groups are added in the order of their first copy, or of their keys where `tree_by_key`. Equal-length for all copies; empty: plain choice order at home.
  /// A shared expert that another rank than home computes is a copy of weight 1 behind all choices; at home it is the last term of the whole sum.
  std::function<std::vector<std::int32_t>(const Plan& plan, const Topology& topology, Rank home, Rank at)> tree;
  bool tree_by_key = false;
  /// What one row stands for at most; bounds on what any placement must send rest on it (policies/optimum.h), and `token` is true of every exchange.
  RowFor dispatch_row_for = RowFor::token, combine_row_for = RowFor::token;
  /// Lowers a plan: counts only.
  std::function<Schedule(const Plan& plan, const Topology& topology, const Pricing& pricing)> schedule;
  /// Lowers a plan to rows for the ranks in `wanted` (others' entries stay empty): [R]. `shared_expert` tells whether the layer has one. The phases are those of `schedule`;
  /// the last one's buffer holds each rank's result, one row a home token.
  std::function<std::vector<RankRows>(const Plan& plan, const Topology& topology, bool shared_expert, const std::vector<bool>& wanted)> rows;
  /// How bytes that are no tokens would travel (`epsim alltoall`); null where an exchange has no meaning without tokens.
  std::function<Journey(const Topology& topology)> journey;
};

using ExchangeCatalog = Catalog<Exchange, const Shape*>;
ExchangeCatalog builtin_exchanges();

}  // namespace epsim
