#pragma once
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "base/catalog.h"
#include "workloads/scores.h"

namespace epsim {

/// What a source must know about the experiment. Null while listing and when the model or cluster is itself broken.
struct SourceContext {
  int experts = 0;
  int top_k = 0;
  int ranks = 0;
  std::int64_t hidden = 0;
  std::uint64_t seed = 0;
  std::vector<int> layers;  ///< model layer indices to be run, ascending
  int batches = 1;          ///< that will be asked for
  std::vector<int> moe_layers;  ///< all MoE layers of the model, ascending; a trace's l-th column is moe_layers[l] when the counts agree
};

/// The tokens of batch after batch: where they live and what they want, on demand. Tokens are numbered globally, and through all batches: those of batch b begin at b x tokens(). Home ranks own contiguous blocks of a batch.
struct Source {
  std::string_view summary;
  enum class Yields {
    scores,  ///< of every expert, for a router to choose from
    choices  ///< ready expert ids: no router is used
  } yields = Yields::scores;
  ScoreForm form = ScoreForm::logits;  ///< of scores
  bool has_weights = false;  ///< of choices: the source brings combine weights (else each is 1/k)
  /// First token of each rank in a batch, and the number of tokens of a batch at the end: [R+1].
  std::vector<std::int64_t> first_token;

  /// Scores of tokens [first, first+count) of a layer, in blocks (workloads/scores.h). Depends on (seed, layer, token, expert) alone.
  std::function<void(int layer, std::int64_t first, std::int64_t count, std::span<float> scores)> scores;
  /// Expert ids and weights, row-major [count][top_k], best first.
  std::function<void(int layer, std::int64_t first, std::int64_t count, std::span<std::uint16_t> experts, std::span<float> weights)> choices;
  /// Of a source with a real gate: its matrix [hidden][experts] for a layer. Empty otherwise.
  std::function<void(int layer, std::span<float> gate)> gate;

  std::int64_t tokens() const { return first_token.empty() ? 0 : first_token.back(); }
};

using SourceCatalog = Catalog<Source, const SourceContext*>;
SourceCatalog builtin_sources();

/// Reads `tokens_per_rank` or `tokens` (exactly one) and gives the contiguous home blocks; the first ranks get one token more where a total does not divide.
std::vector<std::int64_t> read_token_blocks(Params& params, const SourceContext* context);
/// Home blocks of a total over ranks.
std::vector<std::int64_t> token_blocks(std::int64_t tokens, int ranks);

/// The vector of a token as every process computes it: standard normal entries from the token's own random stream, but for the first, which is 1 in every token:
/// the component that tokens share, through which a gate can prefer an expert.
void token_vector(std::uint64_t seed, std::int64_t token, std::span<float> out);

}  // namespace epsim
