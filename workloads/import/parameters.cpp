#include "workloads/import/parameters.h"

namespace epsim {
namespace {

/// Queries, keys and values of their own widths (Ainslie et al. 2023, grouped-query attention).
double grouped_attention(double hidden, const DenseSizes& d) {
  const double q = static_cast<double>(d.heads) * static_cast<double>(d.head_dim), kv = static_cast<double>(d.kv_heads) * static_cast<double>(d.head_dim);
  return hidden * (q + 2 * kv) + q * hidden + (d.qkv_bias ? q + 2 * kv : 0) + (d.output_bias ? hidden : 0) + static_cast<double>(d.sinks + d.qk_norm);
}

/// Multi-head latent attention (DeepSeek-V2): down-projections, their norms, and up-projections.
double latent_attention(double hidden, const DenseSizes& d) {
  const auto heads = static_cast<double>(d.heads), q_rank = static_cast<double>(d.q_rank), kv_rank = static_cast<double>(d.kv_rank);
  const auto rope = static_cast<double>(d.rope_dim), nope = static_cast<double>(d.nope_dim), value = static_cast<double>(d.value_dim);
  const double query = heads * (nope + rope);
  const double q = d.q_rank > 0 ? hidden * q_rank + q_rank + q_rank * query : hidden * query;
  const double kv = hidden * (kv_rank + rope) + kv_rank + kv_rank * heads * (nope + value);
  const double biases = d.qkv_bias ? (d.q_rank > 0 ? q_rank : 0) + kv_rank + rope : 0;
  return q + kv + heads * value * hidden + biases + (d.output_bias ? hidden : 0);
}

double attention(double hidden, const DenseSizes& d) {
  return d.attention == DenseSizes::Attention::latent ? latent_attention(hidden, d) : grouped_attention(hidden, d);
}

}  // namespace

double Model::expert_params() const {
  const double matrices = static_cast<double>(expert_matrices) * static_cast<double>(hidden) * static_cast<double>(expert_ffn);
  return matrices + (expert_bias ? static_cast<double>(expert_matrices - 1) * static_cast<double>(expert_ffn) + static_cast<double>(hidden) : 0);
}

void count_parameters(Model& m, const DenseSizes& d) {
  const auto hidden = static_cast<double>(m.hidden), moe = static_cast<double>(m.moe_layers.size()), layers = static_cast<double>(m.num_layers);
  double rest = layers * (attention(hidden, d) + 2 * hidden) + hidden;  // two norms a layer, one at the end
  if (d.attention == DenseSizes::Attention::t5)                         // cross-attention with its norm, a second final norm, two tables of position bias
    rest += d.decoder_layers * (attention(hidden, d) + hidden) + hidden + 2 * static_cast<double>(d.position_buckets * d.heads);
  rest += (layers - moe) * d.dense_matrices * hidden * static_cast<double>(d.dense_ffn);
  rest += moe * (hidden + (d.router_bias ? 1 : 0)) * m.num_experts;
  rest += moe * (static_cast<double>(m.expert_matrices) * hidden * static_cast<double>(m.shared_ffn) + (d.shared_gate ? hidden : 0));
  const double embedding = static_cast<double>(d.vocabulary) * hidden;
  rest += d.tied ? embedding : 2 * embedding;
  m.total_params = rest + moe * m.num_experts * m.expert_params();
  m.active_params = rest + moe * m.top_k * m.expert_params();
  // A tied matrix is still multiplied with as the output embedding, so nothing can be left out.
  m.active_params_no_embedding = m.active_params - (d.tied ? 0 : embedding);
}

}  // namespace epsim
