#pragma once
#include <cstdint>

#include "workloads/model.h"

namespace epsim {

/// The sizes of what is not an expert; only parameter counts need them.
struct DenseSizes {
  enum class Attention { grouped, latent, t5 } attention = Attention::grouped;
  std::int64_t vocabulary = 0;
  bool tied = false;  ///< input and output embedding are one matrix
  std::int64_t heads = 0, kv_heads = 0, head_dim = 0;
  bool qkv_bias = false, output_bias = false;
  std::int64_t sinks = 0;                                               ///< learned attention sinks of a layer
  std::int64_t qk_norm = 0;                                             ///< weights of the norms on queries and keys of a layer
  std::int64_t q_rank = 0;                                              ///< latent attention: rank of the query projection; 0: not factored
  std::int64_t kv_rank = 0, rope_dim = 0, nope_dim = 0, value_dim = 0;  ///< latent attention
  std::int64_t dense_ffn = 0;                                           ///< inner width of the layers without experts
  int dense_matrices = 3;
  bool router_bias = false;           ///< the gate has a bias or a correction term per expert
  bool shared_gate = false;           ///< a sigmoid gate scales the shared experts (Qwen2)
  int decoder_layers = 0;             ///< T5: layers with cross-attention, the last ones
  std::int64_t position_buckets = 0;  ///< T5: relative position bias
};

/// Fills the three counts of `model` from its own sizes and `dense`.
void count_parameters(Model& model, const DenseSizes& dense);

}  // namespace epsim
