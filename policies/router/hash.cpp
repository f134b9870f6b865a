#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "base/npz.h"
#include "base/rng.h"
#include "policies/router/shared/topk_gate.h"

namespace epsim::parts_router {
namespace {

/// Reads `table` [vocabulary][k] of expert ids.
std::vector<std::int32_t> read_table(const std::string& file, Params& p, const Shape& shape) {
  std::vector<std::int32_t> table;
  try {
    const auto arrays = read_npz(read_text(file));
    const auto it = arrays.find("table");
    if (it == arrays.end() || it->second.is_float || it->second.shape.size() != 2 || it->second.shape[1] != shape.top_k || it->second.shape[0] == 0) {
      p.error("table", fmt::format("{}: expected an integer array `table` [vocabulary][{}]", file, shape.top_k));
      return table;
    }
    for (const std::int64_t e : it->second.integers) {
      if (e < 0 || e >= shape.experts) {
        p.error("table", fmt::format("{}: the table names expert {}, but there are {}", file, e, shape.experts));
        return table;
      }
      const std::size_t k = static_cast<std::size_t>(shape.top_k), row = table.size() / k;
      if (std::find(table.begin() + static_cast<std::ptrdiff_t>(row * k), table.end(), e) != table.end()) {
        p.error("table", fmt::format("{}: the table names expert {} twice for id {}", file, e, row));
        return table;
      }
      table.push_back(static_cast<std::int32_t>(e));
    }
  } catch (const InputError& e) {
    for (const Diagnostic& d : e.problems()) p.error("table", fmt::format("{}: {}", file, d.message));
  }
  return table;
}

}  // namespace

/// Hash layers (Roller et al. 2021): a token's experts are looked up by its id in the vocabulary, in a table (DeepSeek-V4's tid2eid) or by a random hash. Weights are the gate's scores of these experts. Where
/// tokens bring no ids, each draws one of `vocabulary` with probability in inverse proportion to its rank (*assumed*: Zipf's law), the same in every layer.
Router hash(Params& p, const Shape* shape) {
  Router router;
  router.summary = "a token's experts follow from its id in the vocabulary, by a table or a random hash (hash layers, DeepSeek-V4)";
  const std::string file = p.path("table", ".npz with `table` [vocabulary][top_k] of expert ids; without it experts are drawn for each id", "");
  const std::int64_t vocabulary = p.integer("vocabulary", "token ids, where tokens bring none", 32000, 1, std::int64_t{1} << 32);
  const std::string score = p.choice("score", "combine weights: of softmax over all experts, softmax over the chosen ones, sigmoid, or the square root of the softplus",
                                     {"sigmoid", "softmax_before", "softmax_after", "sqrt_softplus"}, "sigmoid");
  const double scale = p.number("scale", "factor on the weights", 1.0);
  if (!p.usable()) return router;
  check_top_k(p, shape);
  if (!p.usable() || !shape) return router;
  std::vector<std::int32_t> table;
  if (p.has("table")) table = read_table(file, p, *shape);
  if (!p.usable()) return router;
  router.top_k = shape->top_k;
  Weighing weighing;
  weighing.score = score == "sigmoid"         ? Weighing::Score::sigmoid
                   : score == "softmax_after" ? Weighing::Score::softmax_chosen
                   : score == "sqrt_softplus" ? Weighing::Score::sqrt_softplus
                                              : Weighing::Score::softmax;
  weighing.renormalise = score != "softmax_before", weighing.scale = scale;
  weigh_by(router, weighing);
  const std::int64_t known = table.empty() ? vocabulary : static_cast<std::int64_t>(table.size()) / shape->top_k;
  choose_by_token(router, [table, known](const GateBatch& batch, std::int64_t t, std::span<const float>, std::span<std::int32_t> ids) {
    const auto layer = static_cast<std::uint32_t>(batch.layer);
    std::int64_t id = 0;
    if (batch.token_ids.empty()) {  // the inverse of the law's distribution function, of a continuous rank
      const double u = Rng(batch.seed, Stream::router, static_cast<std::uint64_t>(batch.first_token + t)).uniform();
      id = std::min(static_cast<std::int64_t>(std::pow(static_cast<double>(known + 1), u)) - 1, known - 1);
    } else {
      id = batch.token_ids[static_cast<std::size_t>(t)];
      if (id < 0 || (!table.empty() && id >= known)) throw InputError(Location{}, table.empty() ? fmt::format("token {} has id {}: ids are not negative", t, id) : fmt::format("token {} has id {}, but the table has ids 0 to {}", t, id, known - 1));
    }
    if (!table.empty()) {
      std::copy_n(table.begin() + id * static_cast<std::int64_t>(ids.size()), ids.size(), ids.begin());
      return;
    }
    Rng rng(batch.seed, Stream::router, static_cast<std::uint64_t>(id), layer + 0x10000U);
    for (std::size_t i = 0; i < ids.size(); ++i)
      do ids[i] = static_cast<std::int32_t>(rng.below(static_cast<std::uint64_t>(batch.experts)));
      while (std::ranges::find(ids.first(i), ids[i]) != ids.first(i).end());
  });
  return router;
}

}  // namespace epsim::parts_router
