#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <string_view>
#include <vector>

#include "base/catalog.h"
#include "base/ids.h"
#include "base/matrix.h"
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

/// The MoE gate as a function from scores to choices.
struct Router {
  std::string_view summary;
  /// For each token of `scores`, in blocks (workloads/scores.h): the top_k chosen expert ids, best first by selection score (ties: lowest id), and their combine weights.
  std::function<void(ScoreForm form, std::int64_t count, std::span<const float> scores, std::span<std::uint16_t> experts, std::span<float> weights)> select;
};

using RouterCatalog = Catalog<Router, const Shape*>;
RouterCatalog builtin_routers();

/// All choices of one layer, token by token, best first.
struct Routing {
  int experts = 0;
  int top_k = 0;
  std::vector<std::int64_t> first_token;  ///< [R+1], home blocks
  std::vector<std::uint16_t> expert;      ///< [T][k]
  std::vector<float> weight;              ///< [T][k]

  int ranks() const { return static_cast<int>(first_token.size()) - 1; }
  std::int64_t tokens() const { return first_token.back(); }
};

/// Routes the tokens of a batch whose home ranks are [begin, end) through a layer; other tokens' choices stay unset. `router` is not used by a source of ready choices.
void route(const Source& source, const Router& router, int batch, int layer, int begin, int end, Routing& routing);
/// An empty Routing of the right sizes.
Routing make_routing(const Source& source, int experts, int top_k);
/// Choices by home rank and expert: [R][E].
Matrix<std::int64_t> count_choices(const Routing& routing);

}  // namespace epsim
