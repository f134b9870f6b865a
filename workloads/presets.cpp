#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/params.h"
#include "workloads/model.h"

namespace epsim {
namespace {

/// A model's sizes as its publishers' configuration gives them; the import reads them like any other file.
struct Preset {
  std::string_view name;
  std::string_view config;
};

constexpr std::array<Preset, 6> kPresets = {{
    {"mixtral-8x7b", R"({"model_type": "mixtral", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
      "num_key_value_heads": 8, "num_local_experts": 8, "num_experts_per_tok": 2, "vocab_size": 32000, "tie_word_embeddings": false, "torch_dtype": "bfloat16"})"},
    {"mixtral-8x22b", R"({"model_type": "mixtral", "hidden_size": 6144, "intermediate_size": 16384, "num_hidden_layers": 56, "num_attention_heads": 48,
      "num_key_value_heads": 8, "num_local_experts": 8, "num_experts_per_tok": 2, "vocab_size": 32000, "tie_word_embeddings": false, "torch_dtype": "bfloat16"})"},
    {"deepseek-v3", R"({"model_type": "deepseek_v3", "hidden_size": 7168, "intermediate_size": 18432, "moe_intermediate_size": 2048, "num_hidden_layers": 61,
      "first_k_dense_replace": 3, "moe_layer_freq": 1, "n_routed_experts": 256, "n_shared_experts": 1, "num_experts_per_tok": 8, "n_group": 8, "topk_group": 4,
      "topk_method": "noaux_tc", "scoring_func": "sigmoid", "norm_topk_prob": true, "routed_scaling_factor": 2.5, "num_attention_heads": 128, "q_lora_rank": 1536,
      "kv_lora_rank": 512, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128, "attention_bias": false, "vocab_size": 129280,
      "tie_word_embeddings": false, "torch_dtype": "bfloat16", "quantization_config": {"quant_method": "fp8"}})"},
    {"deepseek-v2-lite",
     R"({"model_type": "deepseek_v2", "hidden_size": 2048, "intermediate_size": 10944, "moe_intermediate_size": 1408, "num_hidden_layers": 27,
      "first_k_dense_replace": 1, "moe_layer_freq": 1, "n_routed_experts": 64, "n_shared_experts": 2, "num_experts_per_tok": 6, "n_group": 1, "topk_group": 1,
      "topk_method": "greedy", "scoring_func": "softmax", "norm_topk_prob": false, "routed_scaling_factor": 1.0, "num_attention_heads": 16, "q_lora_rank": null,
      "kv_lora_rank": 512, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128, "attention_bias": false, "vocab_size": 102400,
      "tie_word_embeddings": false, "torch_dtype": "bfloat16"})"},
    {"qwen3-30b-a3b", R"({"model_type": "qwen3_moe", "hidden_size": 2048, "intermediate_size": 6144, "moe_intermediate_size": 768, "num_hidden_layers": 48,
      "decoder_sparse_step": 1, "mlp_only_layers": [], "num_experts": 128, "num_experts_per_tok": 8, "norm_topk_prob": true, "num_attention_heads": 32,
      "num_key_value_heads": 4, "head_dim": 128, "attention_bias": false, "vocab_size": 151936, "tie_word_embeddings": false, "torch_dtype": "bfloat16"})"},
    {"gpt-oss-20b", R"({"model_type": "gpt_oss", "hidden_size": 2880, "intermediate_size": 2880, "num_hidden_layers": 24, "num_local_experts": 32,
      "num_experts_per_tok": 4, "num_attention_heads": 64, "num_key_value_heads": 8, "head_dim": 64, "attention_bias": true, "vocab_size": 201088,
      "tie_word_embeddings": false, "quantization_config": {"quant_method": "mxfp4"}})"},
}};

constexpr std::array<int, 5> kSwitchExperts = {8, 16, 32, 64, 128};

/// Switch-Base (Fedus et al. 2021): T5-Base with experts in every second FFN.
std::string switch_base(int experts) {
  return fmt::format(
      R"({{"model_type": "switch_transformers", "d_model": 768, "d_ff": 3072, "d_kv": 64, "num_heads": 12, "num_layers": 12, "num_decoder_layers": 12,
      "num_sparse_encoder_layers": 6, "num_sparse_decoder_layers": 6, "num_experts": {}, "vocab_size": 32128, "relative_attention_num_buckets": 32,
      "is_gated_act": false, "router_bias": false, "tie_word_embeddings": true, "torch_dtype": "float32"}})",
      experts);
}

}  // namespace

std::vector<std::string> model_presets() {
  std::vector<std::string> names;
  for (const Preset& p : kPresets) names.emplace_back(p.name);
  for (int experts : kSwitchExperts) names.push_back(fmt::format("switch-base-{}", experts));
  return names;
}

std::optional<Model> model_preset(const std::string& name) {
  std::string config;
  for (const Preset& p : kPresets)
    if (p.name == name) config = p.config;
  for (int experts : kSwitchExperts)
    if (fmt::format("switch-base-{}", experts) == name) config = switch_base(experts);
  if (config.empty()) return {};
  return import_hf_config(std::make_shared<SourceText>(SourceText{name + ".json", config}));
}

Model load_model(const std::string& name_or_path, const Location& at) {
  if (name_or_path.find('/') != std::string::npos || name_or_path.ends_with(".json"))
    return import_hf_config(read_text(resolve_path(name_or_path, at), std::size_t{1} << 24));
  if (std::optional<Model> preset = model_preset(name_or_path)) return *std::move(preset);
  throw InputError(at, fmt::format("there is no model `{}`{} (a path has a slash or ends in .json)", name_or_path, suggest(name_or_path, model_presets())));
}

}  // namespace epsim
