#pragma once
#include "policies/routing.h"

namespace epsim {

/// How many choices an expert may keep, and who is kept.
struct Capacity {
  std::string_view summary;

  /// Who is kept first, ties going to the lowest token id. `position`: the lowest token id; `choice`: first choices before second ones, and so on; `priority`: the same, among them tokens
  /// by their largest score (batch-prioritised routing of V-MoE); `probability`: the highest weight; `random`: by draw.
  enum class Order { position, choice, priority, probability, random };
  /// Tokens that share one capacity of an expert: those of a home rank, of a group inside it, or all.
  enum class Scope { rank, group, batch };
  /// What becomes of a choice that does not fit: nothing; its token's best expert that has room takes it; another replica of the expert does; the one where no replica has room, or the other. `none`: it is kept all the same.
  enum class Overflow { drop, next_best, other_replica, other_replica_or_next_best, none };
  /// A scope's tokens.
  struct Block {
    std::int64_t tokens = 0;
    int top_k = 0, experts = 0;
    std::int64_t most = 0;  ///< choices of the expert that is chosen most
  };

  /// The choices of a source rank that each expert keeps at most: [R][E]. Empty: no limit at all. With groups it is the room of all the rank's groups together.
  std::function<Matrix<std::int64_t>(const Matrix<std::int64_t>& choices, const Routing& routing)> limits;
  std::function<std::int64_t(const Block&)> size;  ///< the capacity of each expert in one block, which `limits` follow from; null where they are made by hand
  Order order = Order::position;
  Scope scope = Scope::rank;
  std::int64_t group = 0;           ///< tokens of a group; the last one of a rank may have fewer
  Overflow overflow = Overflow::drop;
  bool on_arrival = false;          ///< choices travel, and are dropped by the expert's rank
  bool renormalise = false;         ///< the weights that a token keeps are divided by their sum
  bool pad = false;                 ///< experts compute as many rows as their capacity
  bool dense = false;               ///< and that many travel: each source rank sends its share of every capacity, full or not
  std::int64_t row_block = 1;       ///< experts compute a multiple of this many rows

  /// Whether each replica of an expert has the expert's room.
  bool by_replica() const { return overflow == Overflow::other_replica || overflow == Overflow::other_replica_or_next_best; }
  /// Whether what does not fit becomes a choice of another expert.
  bool chooses_again() const { return limits && (overflow == Overflow::next_best || overflow == Overflow::other_replica_or_next_best); }
};

using CapacityCatalog = Catalog<Capacity, const Shape*>;
CapacityCatalog builtin_capacities();

/// Limits by size and scope; call it when both are set.
void limit_by_size(Capacity& capacity);

/// What a layer's choices keep, by home rank and expert [R][E]: it follows from counts alone, those of a rank or of its groups. All of them, where more replicas of an expert keep more.
Matrix<std::int64_t> kept_choices(const Capacity& capacity, const Routing& routing, Matrix<std::int64_t> choices);

/// The stream of random numbers that `Order::random` draws from.
struct CapacityDraw {
  std::uint64_t seed = 0;
  int layer = 0;
  std::int64_t first_token = 0;  ///< global number of the routing's first token
};
/// Writes -1 to `mark` [choices of the rank] where a choice of home rank `r` does not fit; marks of choices that were not made must be -1 already. `choices` and `limits` are those of the rank: [E].
void mark_overflow(const Capacity& capacity, const Routing& routing, Rank r, std::span<const std::int64_t> choices, std::span<const std::int64_t> limits, const CapacityDraw& draw,
                   std::span<std::int32_t> mark);
/// Divides the weights [top_k] of each token's kept choices, whose marks are not negative, by their sum, of which at least 1.2e-7 is taken (DeepSpeed's and transformers' clamp).
void renormalise_kept(int top_k, std::span<const std::int32_t> mark, std::span<float> weights);

}  // namespace epsim
