#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <string_view>
#include <vector>

#include "base/catalog.h"
#include "base/ids.h"
#include "base/matrix.h"
#include "policies/idle_experts.h"
#include "workloads/source.h"

namespace epsim {

using Expert = Id<struct ExpertTag>;  ///< a logical expert
using Slot = Id<struct SlotTag>;      ///< a place on a rank that holds one expert replica

/// The sizes that parts check their settings against. Null while listing and when the model or cluster is itself broken.
struct Shape {
  int experts = 0;
  int top_k = 0;
  int ranks = 0;
  int nodes = 0;
  int expert_groups = 1;      ///< of the model's gate
  bool source_has_choices = false;
  bool source_has_weights = true;
};

struct GateBatch;

inline constexpr std::uint16_t kNoExpert = 65535;  ///< in a Routing: a choice that was not made

/// The MoE gate as a function from scores to choices.
struct Router {
  std::string_view summary;
  /// What must be known before any token can be settled: its own scores, those of its home rank, or those of the batch.
  enum class Scope { token, rank, batch } scope = Scope::token;
  int top_k = 0;             ///< choices of a token at most; 0: the model's top_k
  IdleExperts idle;          ///< experts behind the model's that have scores but compute nothing: no token is sent to them
  bool may_choose_fewer = false;
  bool takes_bias = false;   ///< whether a batch's bias has a say in its choices

  /// The fast way, of gates that settle token by token and always choose top_k. For each token of `scores`, in blocks (workloads/scores.h): the top_k chosen expert ids, best first by selection score (ties: lowest id), and their combine weights.
  std::function<void(ScoreForm form, std::int64_t count, std::span<const float> scores, std::span<std::uint16_t> experts, std::span<float> weights)> select;
  /// The general way, for tokens of one block of `scope`: ids [T][top_k], best first by selection score and -1 where no choice is made, and weights, 0 there. Null: `select` does it.
  std::function<void(const GateBatch& batch, std::span<std::int32_t> experts, std::span<float> weights)> choose;
  /// Weights [T][top_k] of given choices; null where they do not follow from a token's logits and choices.
  std::function<void(const GateBatch& batch, std::span<const std::int32_t> experts, std::span<float> weights)> weigh;
  /// What batch-prioritised capacities rank tokens by [T]: the largest score of a token's choices, before scores are divided by their sum. Null: its largest weight.
  std::function<void(const GateBatch& batch, std::span<const std::int32_t> experts, std::span<float> priority)> prioritise;
  /// Adds dL/dlogits [T][E], given dL/dweights; choices are constant. Null where `weigh` is.
  std::function<void(const GateBatch& batch, std::span<const std::int32_t> experts, std::span<const float> d_weights, std::span<float> d_logits)> backward;
  /// Takes choices back after capacity, which they then filled in vain; mostly null.
  std::function<void(const GateBatch& batch, std::span<const std::int32_t> experts, std::span<const float> weights, std::span<std::uint8_t> kept)> prune;
};

using RouterCatalog = Catalog<Router, const Shape*>;
RouterCatalog builtin_routers();

/// All choices of one layer, token by token, best first. Ids from `experts` on are of experts that compute nothing: they are kept whatever the capacity, and no row is sent to them.
struct Routing {
  int experts = 0;                        ///< that compute
  int top_k = 0;
  bool may_choose_fewer = false;          ///< some choices may be kNoExpert, or of experts that compute nothing
  std::vector<std::int64_t> first_token;  ///< [R+1], home blocks
  std::vector<std::uint16_t> expert;      ///< [T][k]
  std::vector<float> weight;              ///< [T][k]
  std::vector<float> priority;            ///< [T] what batch-prioritised capacities rank tokens by; empty: their largest weights
  std::uint64_t seed = 0;                 ///< that capacities draw by,
  std::int64_t number = 0;                ///< and the number of the first token among those of all batches

  int ranks() const { return static_cast<int>(first_token.size()) - 1; }
  std::int64_t tokens() const { return first_token.back(); }
  /// Whether a choice is of an expert that computes.
  bool computes(std::size_t choice) const { return expert[choice] < experts; }
  float priority_of(std::int64_t token) const;  ///< of a token, as `priority` says
};

/// Routes the tokens of a batch whose home ranks are [begin, end) through a layer; other tokens' choices stay unset, unless the router's scope is the batch. `router` is not used by a source of ready choices, and `seed` only by routers that draw.
void route(const Source& source, const Router& router, int batch, int layer, int begin, int end, Routing& routing, std::uint64_t seed = 0);
/// An empty Routing of the right sizes; `top_k` is the model's. `priorities`: with what batch-prioritised capacities rank tokens by, where the router knows better than by weights.
Routing make_routing(const Source& source, int experts, int top_k, const Router& router = {}, bool priorities = false);
/// Scores as one row of logits a token: [count][experts].
void logits_of_scores(ScoreForm form, std::int64_t count, int experts, std::span<const float> scores, std::span<float> logits);
/// Chooses for a batch, block of the router's scope by block: ids and weights [T][router.top_k].
void choose(const Router& router, const GateBatch& batch, std::span<std::int32_t> experts, std::span<float> weights);
/// Choices by home rank and expert: [R][E].
Matrix<std::int64_t> count_choices(const Routing& routing);

}  // namespace epsim
