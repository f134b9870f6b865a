#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "base/params.h"
#include "workloads/import/parameters.h"
#include "workloads/model.h"

namespace epsim {
namespace {

/// A model's sizes as its publishers' configuration gives them; the import reads them like any other file.
struct Preset {
  std::string_view name;
  std::string_view config;
  std::string_view type = {};    ///< the model's type, where the configuration is spelt in keys of our own: its sizes are those of the paper or the publisher's configuration
};

constexpr std::string_view kDense = "dense:";

constexpr Preset kPresets[] = {
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
    {"deepseek-v2", R"({"model_type": "deepseek_v2", "hidden_size": 5120, "intermediate_size": 12288, "moe_intermediate_size": 1536, "num_hidden_layers": 60,
      "first_k_dense_replace": 1, "moe_layer_freq": 1, "n_routed_experts": 160, "n_shared_experts": 2, "num_experts_per_tok": 6, "n_group": 8, "topk_group": 3,
      "topk_method": "group_limited_greedy", "scoring_func": "softmax", "norm_topk_prob": false, "routed_scaling_factor": 16.0, "num_attention_heads": 128, "q_lora_rank": 1536,
      "kv_lora_rank": 512, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128, "attention_bias": false, "vocab_size": 102400,
      "tie_word_embeddings": false, "torch_dtype": "bfloat16"})"},
    {"qwen1.5-moe-a2.7b", R"({"model_type": "qwen2_moe", "hidden_size": 2048, "intermediate_size": 5632, "moe_intermediate_size": 1408, "shared_expert_intermediate_size": 5632,
      "num_hidden_layers": 24, "decoder_sparse_step": 1, "num_experts": 60, "num_experts_per_tok": 4, "norm_topk_prob": false, "num_attention_heads": 16, "num_key_value_heads": 16,
      "vocab_size": 151936, "tie_word_embeddings": false, "torch_dtype": "bfloat16"})"},
    {"qwen2-57b-a14b", R"({"model_type": "qwen2_moe", "hidden_size": 3584, "intermediate_size": 18944, "moe_intermediate_size": 2560, "shared_expert_intermediate_size": 20480,
      "num_hidden_layers": 28, "decoder_sparse_step": 1, "num_experts": 64, "num_experts_per_tok": 8, "norm_topk_prob": false, "num_attention_heads": 28, "num_key_value_heads": 4,
      "vocab_size": 151936, "tie_word_embeddings": false, "torch_dtype": "bfloat16"})"},
    {"qwen3-235b-a22b", R"({"model_type": "qwen3_moe", "hidden_size": 4096, "intermediate_size": 12288, "moe_intermediate_size": 1536, "num_hidden_layers": 94,
      "decoder_sparse_step": 1, "mlp_only_layers": [], "num_experts": 128, "num_experts_per_tok": 8, "norm_topk_prob": true, "num_attention_heads": 64,
      "num_key_value_heads": 4, "head_dim": 128, "attention_bias": false, "vocab_size": 151936, "tie_word_embeddings": false, "torch_dtype": "bfloat16"})"},
    {"gpt-oss-120b", R"({"model_type": "gpt_oss", "hidden_size": 2880, "intermediate_size": 2880, "num_hidden_layers": 36, "num_local_experts": 128,
      "num_experts_per_tok": 4, "num_attention_heads": 64, "num_key_value_heads": 8, "head_dim": 64, "attention_bias": true, "vocab_size": 201088,
      "tie_word_embeddings": false, "quantization_config": {"quant_method": "mxfp4"}})"},
    {"olmoe-1b-7b", R"({"model_type": "olmoe", "hidden_size": 2048, "intermediate_size": 1024, "num_hidden_layers": 16, "num_experts": 64, "num_experts_per_tok": 8,
      "norm_topk_prob": false, "num_attention_heads": 16, "num_key_value_heads": 16, "vocab_size": 50304, "tie_word_embeddings": false, "torch_dtype": "bfloat16"})"},
    {"kimi-k2", R"({"model_type": "kimi_k2", "hidden_size": 7168, "intermediate_size": 18432, "moe_intermediate_size": 2048, "num_hidden_layers": 61,
      "first_k_dense_replace": 1, "moe_layer_freq": 1, "n_routed_experts": 384, "n_shared_experts": 1, "num_experts_per_tok": 8, "n_group": 1, "topk_group": 1,
      "topk_method": "noaux_tc", "scoring_func": "sigmoid", "norm_topk_prob": true, "routed_scaling_factor": 2.827, "num_attention_heads": 64, "q_lora_rank": 1536,
      "kv_lora_rank": 512, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128, "attention_bias": false, "vocab_size": 163840,
      "tie_word_embeddings": false, "torch_dtype": "bfloat16", "quantization_config": {"quant_method": "fp8"}})"},
    {"glm-4.5", R"({"model_type": "glm4_moe", "hidden_size": 5120, "intermediate_size": 12288, "moe_intermediate_size": 1536, "num_hidden_layers": 92, "first_k_dense_replace": 3,
      "n_routed_experts": 160, "n_shared_experts": 1, "num_experts_per_tok": 8, "n_group": 1, "topk_group": 1, "norm_topk_prob": true, "routed_scaling_factor": 2.5,
      "num_attention_heads": 96, "num_key_value_heads": 8, "head_dim": 128, "attention_bias": true, "use_qk_norm": true, "vocab_size": 151552, "tie_word_embeddings": false,
      "torch_dtype": "bfloat16"})"},
    {"glm-4.5-air", R"({"model_type": "glm4_moe", "hidden_size": 4096, "intermediate_size": 10944, "moe_intermediate_size": 1408, "num_hidden_layers": 46, "first_k_dense_replace": 1,
      "n_routed_experts": 128, "n_shared_experts": 1, "num_experts_per_tok": 8, "n_group": 1, "topk_group": 1, "norm_topk_prob": true, "routed_scaling_factor": 1.0,
      "num_attention_heads": 96, "num_key_value_heads": 8, "head_dim": 128, "attention_bias": true, "use_qk_norm": false, "vocab_size": 151552, "tie_word_embeddings": false,
      "torch_dtype": "bfloat16"})"},
    {"llama-4-scout", R"({"hidden_size": 5120, "intermediate_size": 16384, "moe_intermediate_size": 8192, "num_hidden_layers": 48, "decoder_sparse_step": 1,
      "num_local_experts": 16, "num_shared_experts": 1, "num_experts_per_tok": 1, "scoring_func": "sigmoid", "norm_topk_prob": false, "num_attention_heads": 40, "num_key_value_heads": 8,
      "head_dim": 128, "vocab_size": 202048, "tie_word_embeddings": false, "torch_dtype": "bfloat16"})", "llama4_text"},
    {"llama-4-maverick", R"({"hidden_size": 5120, "intermediate_size": 16384, "moe_intermediate_size": 8192, "num_hidden_layers": 48, "decoder_sparse_step": 2,
      "num_local_experts": 128, "num_shared_experts": 1, "num_experts_per_tok": 1, "scoring_func": "sigmoid", "norm_topk_prob": false, "num_attention_heads": 40, "num_key_value_heads": 8,
      "head_dim": 128, "vocab_size": 202048, "tie_word_embeddings": false, "torch_dtype": "bfloat16"})", "llama4_text"},
    {"dbrx", R"({"hidden_size": 6144, "intermediate_size": 10752, "moe_intermediate_size": 10752, "num_hidden_layers": 40, "num_local_experts": 16, "num_experts_per_tok": 4,
      "norm_topk_prob": true, "num_attention_heads": 48, "num_key_value_heads": 8, "vocab_size": 100352, "tie_word_embeddings": false, "torch_dtype": "bfloat16"})", "dbrx"},
    // Fedus et al. 2021, table 9, and the published google/switch-c-2048.
    {"switch-c-2048", R"({"model_type": "switch_transformers", "d_model": 2080, "d_ff": 6144, "d_kv": 64, "num_heads": 32, "num_layers": 15, "num_decoder_layers": 15,
      "num_sparse_encoder_layers": 15, "num_sparse_decoder_layers": 15, "num_experts": 2048, "vocab_size": 32128, "relative_attention_num_buckets": 32, "is_gated_act": false,
      "router_bias": false, "tie_word_embeddings": true, "torch_dtype": "float32"})"},
};

/// Models whose publishers give sizes in a paper alone: every second FFN has plain experts.
struct PaperModel {
  std::string_view name, type, router;
  std::int64_t hidden, ffn;
  int layers, heads, experts, top_k;
  std::int64_t head_dim, vocabulary;
  bool tied;
  int dense_matrices;
};
constexpr PaperModel kPapers[] = {
    // Du et al. 2021, table 4: 64B/64E; its FFNs without experts are gated.
    {"glam-64b-64e", "glam", "gshard", 8192, 32768, 64, 128, 64, 2, 128, 256000, true, 3},
    // Riquelme et al. 2021: ViT sizes with 32 experts in every second block, k = 2, noise of 1/32; `vocabulary` are the classes of ImageNet.
    {"vmoe-l16", "vmoe", "topk: {renormalise: false, noise: 0.03125}", 1024, 4096, 24, 16, 32, 2, 64, 1000, true, 2},
    {"vmoe-h14", "vmoe", "topk: {renormalise: false, noise: 0.03125}", 1280, 5120, 32, 16, 32, 2, 80, 1000, true, 2},
};

Model paper_model(const PaperModel& p) {
  Model m;
  m.name = p.name, m.model_type = p.type;
  m.hidden = p.hidden, m.expert_ffn = p.ffn, m.num_experts = p.experts, m.top_k = p.top_k, m.num_layers = p.layers, m.expert_matrices = 2;
  for (int i = 1; i < p.layers; i += 2) m.moe_layers.push_back(i);
  m.router = parse_yaml(std::make_shared<SourceText>(SourceText{"router of " + m.name, std::string(p.router)}));
  DenseSizes d;
  d.vocabulary = p.vocabulary, d.tied = p.tied, d.heads = d.kv_heads = p.heads, d.head_dim = p.head_dim, d.dense_ffn = p.ffn, d.dense_matrices = p.dense_matrices;
  count_parameters(m, d);
  return m;
}

/// Models that nobody published: rumours state experts, k and totals. The sizes of a layer are *assumed*, so that such a model can be played at all.
struct SpeculatedModel {
  std::string_view name;
  std::int64_t hidden, ffn;
  int layers, experts, top_k;
  double total, active;
};
constexpr SpeculatedModel kSpeculated[] = {
    {"speculated-gpt-4-8e", 12288, 49152, 120, 8, 2, 1.76e12, 4.4e11},
    {"speculated-qwen2.5-moe", 3584, 2560, 28, 60, 2, 42e9, 14e9},
};

Model speculated_model(const SpeculatedModel& s) {
  Model m;
  m.name = s.name, m.model_type = "speculated";
  m.hidden = s.hidden, m.expert_ffn = s.ffn, m.num_experts = s.experts, m.top_k = s.top_k, m.num_layers = s.layers;
  for (int i = 0; i < s.layers; ++i) m.moe_layers.push_back(i);
  m.router = parse_yaml(std::make_shared<SourceText>(SourceText{"router of " + m.name, "topk"}));
  m.total_params = s.total, m.active_params = m.active_params_no_embedding = s.active;
  m.warnings.push_back(fmt::format("{} is speculated: only its experts, top_k and total counts are stated by anybody, and the sizes of a layer are assumed; parameters do not follow from them", s.name));
  return m;
}

constexpr int kSwitchExperts[] = {8, 16, 32, 64, 128, 256};

/// Switch-Base (Fedus et al. 2021): T5-Base with experts in every second FFN.
std::string switch_base(int experts) {
  return fmt::format(
      R"({{"model_type": "switch_transformers", "d_model": 768, "d_ff": 3072, "d_kv": 64, "num_heads": 12, "num_layers": 12, "num_decoder_layers": 12,
      "num_sparse_encoder_layers": 6, "num_sparse_decoder_layers": 6, "num_experts": {}, "vocab_size": 32128, "relative_attention_num_buckets": 32,
      "is_gated_act": false, "router_bias": false, "tie_word_embeddings": true, "torch_dtype": "float32"}})",
      experts);
}

/// The preset that a name on Hugging Face's hub, such as "deepseek-ai/DeepSeek-V3", is likely to mean.
std::string hint(std::string name) {
  name.erase(0, name.find_last_not_of('/') == std::string::npos ? 0 : name.find_last_of('/', name.find_last_not_of('/')) + 1);
  std::ranges::transform(name, name.begin(), [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
  const std::vector<std::string> known = model_presets();
  const std::string* preset = nearest(name, known);
  return preset ? fmt::format(", did you mean the preset `{}`?", *preset) : "; `epsim list model` names the presets";
}

}  // namespace

std::vector<std::string> model_presets() {
  std::vector<std::string> names;
  for (const Preset& p : kPresets) names.emplace_back(p.name);
  for (int experts : kSwitchExperts) names.push_back(fmt::format("switch-base-{}", experts));
  for (const PaperModel& p : kPapers) names.emplace_back(p.name);
  for (const SpeculatedModel& m : kSpeculated) names.emplace_back(m.name);
  return names;
}

std::optional<Model> model_preset(const std::string& name) {
  for (const PaperModel& p : kPapers)
    if (p.name == name) return paper_model(p);
  for (const SpeculatedModel& m : kSpeculated)
    if (m.name == name) return speculated_model(m);
  const Preset* preset = nullptr;
  std::string config;
  for (const Preset& p : kPresets)
    if (p.name == name) preset = &p, config = p.config;
  for (int experts : kSwitchExperts)
    if (fmt::format("switch-base-{}", experts) == name) config = switch_base(experts);
  if (config.empty()) return {};
  Model model = import_hf_config(std::make_shared<SourceText>(SourceText{name + ".json", config}));
  model.name = name;  // a file's name would lose what follows its dots
  if (preset && !preset->type.empty()) model.model_type = preset->type, model.warnings.clear();
  return model;
}

Model dense_twin(const Model& model) {
  Model m = model;
  const double layers = static_cast<double>(m.moe_layers.size()), gate = static_cast<double>(m.hidden) * m.num_experts, idle = (m.num_experts - m.top_k) * m.expert_params();
  m.name = std::string(kDense) + model.name;
  m.expert_ffn = m.top_k * m.expert_ffn + m.shared_ffn, m.shared_ffn = 0;
  m.num_experts = m.top_k = m.expert_groups = 1;
  m.router = parse_yaml(std::make_shared<SourceText>(SourceText{m.name, "topk"}));
  m.total_params -= layers * (idle + gate);
  m.active_params -= layers * gate, m.active_params_no_embedding -= layers * gate;
  return m;
}

Model load_model(const std::string& name_or_path, const Location& at) {
  if (name_or_path.starts_with(kDense)) return dense_twin(load_model(name_or_path.substr(kDense.size()), at));
  if (name_or_path.find('/') != std::string::npos || name_or_path.ends_with(".json")) {
    const std::filesystem::path path = resolve_path(name_or_path, at);
    if (!name_or_path.ends_with(".json") && !std::filesystem::exists(path)) throw InputError(at, fmt::format("there is no file or folder `{}`{}", name_or_path, hint(name_or_path)));
    return import_hf_config(read_text(std::filesystem::is_directory(path) ? path / "config.json" : path, std::size_t{1} << 24));
  }
  if (std::optional<Model> preset = model_preset(name_or_path)) return *std::move(preset);
  throw InputError(at, fmt::format("there is no model `{}`{} (a path has a slash or ends in .json)", name_or_path, suggest(name_or_path, model_presets())));
}

}  // namespace epsim
