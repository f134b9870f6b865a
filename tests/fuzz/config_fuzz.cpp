#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "workloads/model.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto file = std::make_shared<epsim::SourceText>(epsim::SourceText{"config.json", std::string(reinterpret_cast<const char*>(data), size)});
  try {
    const epsim::Model m = epsim::import_hf_config(file);
    epsim::ensure(m.top_k >= 1 && m.top_k <= m.num_experts && !m.moe_layers.empty() && m.total_params >= m.active_params, "an accepted model makes sense");
  } catch (const epsim::InputError&) {
  }
  return 0;
}

std::vector<std::string> fuzz_seeds() {
  return {R"({"model_type": "deepseek_v3", "hidden_size": 64, "intermediate_size": 8, "moe_intermediate_size": 8, "num_hidden_layers": 5, "vocab_size": 9,
             "num_attention_heads": 4, "kv_lora_rank": 4, "q_lora_rank": null, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 4, "n_routed_experts": 16,
             "num_experts_per_tok": 4, "n_group": 4, "topk_group": 2, "quantization_config": {"quant_method": "fp8"}})",
          R"({"text_config": {"model_type": "qwen2_moe", "hidden_size": 64, "num_hidden_layers": 4, "vocab_size": 9, "num_attention_heads": 4, "num_experts": 6,
             "num_experts_per_tok": 2, "moe_intermediate_size": 4, "decoder_sparse_step": 2, "intermediate_size": 8, "mlp_only_layers": [3]}})",
          R"({"model_type": "switch_transformers", "d_model": 8, "d_ff": 16, "num_heads": 2, "num_layers": 4, "num_experts": 4, "vocab_size": 10,
             "num_sparse_encoder_layers": 2, "num_sparse_decoder_layers": 2})"};
}
