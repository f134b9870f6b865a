#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <filesystem>

#include "workloads/import/config_reader.h"
#include "workloads/import/parameters.h"

namespace epsim {
namespace {

using Keys = ConfigReader::Keys;

const Keys kExperts = {"num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts"};
const Keys kTopK = {"num_experts_per_tok", "experts_per_token", "num_experts_per_token", "moe_topk", "moe_top_k"};
const Keys kHidden = {"hidden_size", "d_model", "n_embd"};
const Keys kLayers = {"num_hidden_layers", "n_layers", "n_layer"};
const Keys kHeads = {"num_attention_heads", "n_heads", "num_heads"};
const Keys kGroups = {"n_group"};
const Keys kGroupsKept = {"topk_group"};

/// What the classes of a family have in common; unknown model types are read with what their keys suggest.
enum class Family { mixtral, qwen2, qwen3, deepseek_v2, deepseek_v3, glm4, olmoe, gpt_oss, switch_t5, unknown };

Family family_of(const std::string& model_type) {
  static constexpr std::array<std::pair<std::string_view, Family>, 11> kKnown = {{{"mixtral", Family::mixtral},
                                                                                  {"qwen2_moe", Family::qwen2},
                                                                                  {"qwen3_moe", Family::qwen3},
                                                                                  {"deepseek_v2", Family::deepseek_v2},
                                                                                  {"deepseek_v3", Family::deepseek_v3},
                                                                                  {"deepseek_v32", Family::deepseek_v3},
                                                                                  {"kimi_k2", Family::deepseek_v3},
                                                                                  {"glm4_moe", Family::glm4},
                                                                                  {"olmoe", Family::olmoe},
                                                                                  {"gpt_oss", Family::gpt_oss},
                                                                                  {"switch_transformers", Family::switch_t5}}};
  for (const auto& [name, family] : kKnown)
    if (name == model_type) return family;
  return Family::unknown;
}

/// Which layers have experts. DeepSeek and GLM say from which on and how often, Qwen how often and which not; the others: all.
void read_moe_layers(ConfigReader& c, Family family, Model& m) {
  const bool deepseek = family == Family::deepseek_v2 || family == Family::deepseek_v3 || family == Family::glm4 || family == Family::unknown;
  const bool qwen = family == Family::qwen2 || family == Family::qwen3 || family == Family::unknown;
  const std::int64_t class_first = family == Family::deepseek_v3 ? 3 : family == Family::glm4 ? 1 : 0;
  const std::int64_t first = deepseek ? c.integer({"first_k_dense_replace"}, class_first) : 0;
  const std::int64_t every = deepseek && family != Family::glm4 ? c.integer({"moe_layer_freq"}, 1, 1) : 1;
  const std::int64_t step = qwen ? c.integer({"decoder_sparse_step"}, 1, 0) : 1;  // 0: none is sparse
  const std::vector<std::int64_t> dense = qwen ? c.integers("mlp_only_layers") : std::vector<std::int64_t>{};
  for (std::int64_t layer : dense)
    if (layer >= m.num_layers) c.error({"mlp_only_layers"}, fmt::format("`mlp_only_layers` names layer {}, the model has {}", layer, m.num_layers));
  for (int i = 0; i < m.num_layers; ++i)
    if (i >= first && i % every == 0 && step > 0 && (i + 1) % step == 0 && std::find(dense.begin(), dense.end(), i) == dense.end()) m.moe_layers.push_back(i);
  if (m.moe_layers.empty() && c.problems().size() == 0) {
    const Keys why = first >= m.num_layers ? Keys{"first_k_dense_replace"} : Keys{"decoder_sparse_step", "mlp_only_layers"};
    c.error(why, "no layer has experts");
  }
}

void read_experts(ConfigReader& c, Family family, Model& m) {
  m.num_experts = static_cast<int>(std::min<std::int64_t>(c.size(kExperts, "the number of experts"), 1 << 20));
  m.top_k = static_cast<int>(std::min<std::int64_t>(c.size(kTopK, "the number of experts of a token"), 1 << 20));
  if (m.num_experts > 65535) c.error(kExperts, "more than 65535 experts");
  if (m.top_k > m.num_experts) c.error(kTopK, fmt::format("top_k is {}, but there are {} experts", m.top_k, m.num_experts));
  const bool plain_width = family == Family::mixtral || family == Family::olmoe || family == Family::gpt_oss;
  m.expert_ffn =
      c.size(plain_width                                                     ? Keys{"intermediate_size"}
             : family != Family::unknown || c.has({"moe_intermediate_size"}) ? Keys{"moe_intermediate_size"}
                                                                             : Keys{"expert_ffn_hidden_size", "intermediate_size", "ffn_hidden_size"},
             "the inner width of an expert");
  m.expert_bias = family == Family::gpt_oss;
  if (family == Family::qwen2 || (family == Family::unknown && c.has({"shared_expert_intermediate_size"}))) {
    m.shared_ffn = c.integer({"shared_expert_intermediate_size"}, 5632);
  } else if (family == Family::deepseek_v2 || family == Family::deepseek_v3 || family == Family::glm4 || family == Family::unknown) {
    const std::int64_t class_count = family == Family::deepseek_v2 ? 2 : family == Family::unknown ? 0 : 1;
    m.shared_ffn = c.integer({"n_shared_experts", "num_shared_experts", "num_shared_expert"}, class_count) * m.expert_ffn;
  }
}

void read_attention(ConfigReader& c, Family family, Model& m, DenseSizes& d) {
  d.heads = c.size(kHeads, "the number of attention heads");
  const bool bias = c.flag({"attention_bias", "qkv_bias", "use_qkv_bias"}, family == Family::qwen2 || family == Family::gpt_oss);
  d.qkv_bias = bias;
  d.output_bias = bias && family != Family::qwen2 && family != Family::glm4;
  if (c.has({"kv_lora_rank"}) || family == Family::deepseek_v2 || family == Family::deepseek_v3) {
    d.attention = DenseSizes::Attention::latent;
    d.kv_rank = c.size({"kv_lora_rank"}, "the rank of the key and value projection");
    d.q_rank = c.integer({"q_lora_rank"}, 0);
    d.rope_dim = c.size({"qk_rope_head_dim"}, "the rotated width of a head");
    d.nope_dim = c.size({"qk_nope_head_dim"}, "the unrotated width of a head");
    d.value_dim = c.size({"v_head_dim"}, "the value width of a head");
    return;
  }
  d.kv_heads = c.integer({"num_key_value_heads", "n_kv_heads"}, d.heads, 1);
  if (d.heads % d.kv_heads != 0)
    c.error({"num_key_value_heads", "n_kv_heads"}, fmt::format("{} key/value heads do not divide {} attention heads", d.kv_heads, d.heads));
  if (!c.has({"head_dim"}) && m.hidden % d.heads != 0)
    c.error(kHeads, fmt::format("{} heads do not divide the hidden size {}, and there is no `head_dim`", d.heads, m.hidden));
  d.head_dim = c.integer({"head_dim"}, std::max<std::int64_t>(m.hidden / d.heads, 1), 1);
  if (family == Family::gpt_oss) d.sinks = d.heads;
  if (family == Family::qwen3 || c.flag({"use_qk_norm"}, false)) d.qk_norm = 2 * d.head_dim;
  if (family == Family::olmoe) d.qk_norm = (d.heads + d.kv_heads) * d.head_dim;
}

Setting router_setting(const Model& m, const std::string& yaml) { return parse_yaml(std::make_shared<SourceText>(SourceText{"router of " + m.name, yaml})); }

void read_router(ConfigReader& c, Family family, Model& m) {
  const bool groups_known = family == Family::deepseek_v2 || family == Family::deepseek_v3 || family == Family::glm4 || family == Family::unknown;
  const bool v3 = family == Family::deepseek_v3;
  const bool sigmoid_family = v3 || family == Family::glm4;
  std::int64_t groups = 1, kept = 1;
  double scale = 1;
  std::string score = sigmoid_family ? "sigmoid" : "softmax";
  if (groups_known) {
    groups = c.integer(kGroups, v3 ? 8 : 1, 1);
    kept = c.integer(kGroupsKept, v3 ? 4 : 1, 1);
    scale = c.number("routed_scaling_factor", v3 ? 2.5 : 1);
    score = c.text({"scoring_func", "score_function", "score_func"}, score);
    if (score != "sigmoid" && score != "softmax")
      c.error({"scoring_func", "score_function", "score_func"}, fmt::format("score function `{}` is not known; known: sigmoid, softmax", score));
    if (m.num_experts % groups != 0)
      c.error(kGroups, fmt::format("{} groups do not divide {} experts", groups, m.num_experts));
    else if (kept > groups)
      c.error(kGroupsKept, fmt::format("`topk_group` is {}, but there are {} groups", kept, groups));
    else if (m.top_k > m.num_experts / groups * kept && m.top_k <= m.num_experts)
      c.error(kGroupsKept, fmt::format("top_k is {}, but {} of {} groups hold only {} experts", m.top_k, kept, groups, m.num_experts / groups * kept));
  }
  const std::string method = groups_known ? c.text({"topk_method"}, sigmoid_family ? "noaux_tc" : groups > 1 ? "group_limited_greedy" : "greedy") : "greedy";
  if (method != "noaux_tc" && method != "group_limited_greedy" && method != "greedy")
    c.error({"topk_method"}, fmt::format("`topk_method` `{}` is not known; known: greedy, group_limited_greedy, noaux_tc", method));
  const bool renormalise = c.flag({"norm_topk_prob"}, sigmoid_family || family == Family::mixtral || family == Family::unknown);
  const std::string tail = fmt::format("renormalise: {}, scale: {}", renormalise, format_number(scale));
  if (family == Family::gpt_oss) {
    m.router = router_setting(m, "topk: {score: softmax_after}");
  } else if (method == "greedy") {
    m.router = router_setting(m, fmt::format("topk: {{score: {}, {}}}", score == "sigmoid" ? "sigmoid" : "softmax_before", tail));
  } else {
    m.expert_groups = static_cast<int>(groups);
    m.router = router_setting(m, fmt::format("grouped_topk: {{groups: {}, groups_kept: {}, score: {}, group_score: {}, {}}}", groups, kept, score,
                                             method == "noaux_tc" ? "top2" : "max", tail));
  }
}

void read_precision(ConfigReader& c, Model& m) {
  const std::string type = c.text({"torch_dtype", "dtype"}, "bfloat16");
  m.weights = type == "float32" ? Precision::fp32 : Precision::bf16;
  const std::string quantised = c.nested_text("quantization_config", "quant_method");
  if (quantised == "fp8")
    m.weights = Precision::fp8;
  else if (quantised == "mxfp4")
    m.weights = Precision::fp4;
  else if (!quantised.empty())
    m.warnings.push_back(fmt::format("quantisation `{}` is not known: expert weights are taken as {}", quantised, name_of(m.weights)));
}

/// T5 with experts in every n-th FFN of encoder and decoder (Fedus et al. 2021). Decoder layers are numbered after the encoder's.
void read_switch(ConfigReader& c, Model& m, DenseSizes& d) {
  const auto encoder = static_cast<int>(std::min<std::int64_t>(c.size({"num_layers", "num_hidden_layers"}, "the number of encoder layers"), 10'000));
  const auto decoder = static_cast<int>(std::min<std::int64_t>(c.integer({"num_decoder_layers"}, encoder, 1), 10'000));
  m.num_layers = encoder + decoder;
  const auto sparse = [&](const std::string& key, int layers, int offset) {
    const std::int64_t count = c.integer({key}, 3);
    if (count > layers) c.error({key}, fmt::format("`{}` is {}, but there are {} layers", key, count, layers));
    if (count == 0 || count > layers) return;
    const std::int64_t step = layers / count;
    for (int i = 0; i < layers; ++i)
      if (step == 1 || i % step == 1) m.moe_layers.push_back(offset + i);
  };
  sparse("num_sparse_encoder_layers", encoder, 0);
  sparse("num_sparse_decoder_layers", decoder, encoder);
  if (m.moe_layers.empty() && c.problems().size() == 0) c.error({"num_sparse_encoder_layers", "num_sparse_decoder_layers"}, "no layer has experts");
  m.num_experts = static_cast<int>(std::min<std::int64_t>(c.size({"num_experts"}, "the number of experts"), 1 << 20));
  if (m.num_experts > 65535) c.error({"num_experts"}, "more than 65535 experts");
  m.top_k = 1;
  m.expert_ffn = d.dense_ffn = c.size({"d_ff"}, "the inner width of an FFN");
  m.expert_matrices = d.dense_matrices = c.flag({"is_gated_act"}, false) ? 3 : 2;
  d.attention = DenseSizes::Attention::t5;
  d.decoder_layers = decoder;
  d.heads = d.kv_heads = c.size(kHeads, "the number of attention heads");
  d.head_dim = c.integer({"d_kv"}, 64, 1);
  d.position_buckets = c.integer({"relative_attention_num_buckets"}, 32, 1);
  d.router_bias = c.flag({"router_bias"}, false);
  m.router = router_setting(m, "topk: {score: softmax_before, renormalise: false}");
}

void read_decoder(ConfigReader& c, Family family, Model& m, DenseSizes& d) {
  m.num_layers = static_cast<int>(std::min<std::int64_t>(c.size(kLayers, "the number of layers"), 1 << 20));
  if (m.num_layers > 10'000) c.error(kLayers, "more than 10000 layers");
  m.num_layers = std::min(m.num_layers, 10'000);
  read_experts(c, family, m);
  read_moe_layers(c, family, m);
  read_attention(c, family, m, d);
  read_router(c, family, m);
  if (static_cast<int>(m.moe_layers.size()) < m.num_layers) d.dense_ffn = c.size({"intermediate_size"}, "the inner width of the layers without experts");
  d.router_bias = family == Family::gpt_oss || family == Family::deepseek_v3 || family == Family::glm4;
  d.shared_gate = family == Family::qwen2;
}

/// The file's name, or its folder's where all such files have one name: that of the folder itself, whatever folder the program works in.
std::string name_of_file(const std::string& path) {
  std::error_code error;
  const std::filesystem::path p = std::filesystem::absolute(path, error).lexically_normal();
  const std::string stem = p.stem().string();
  const std::string folder = p.parent_path().filename().string();
  return stem == "config" && !folder.empty() ? folder : stem;
}

}  // namespace

Model import_hf_config(std::shared_ptr<const SourceText> file) {
  ConfigReader c(file);
  Model m;
  DenseSizes d;
  m.name = name_of_file(file->name);
  m.model_type = c.text({"model_type"}, "");
  const Family family = family_of(m.model_type);
  m.hidden = c.size(kHidden, "the length of a token vector");
  if (family == Family::switch_t5)
    read_switch(c, m, d);
  else
    read_decoder(c, family, m, d);
  d.vocabulary = c.size({"vocab_size"}, "the size of the vocabulary");
  d.tied = c.flag({"tie_word_embeddings"}, family == Family::switch_t5);
  read_precision(c, m);
  c.problems().check();
  if (family == Family::unknown) {
    std::string keys;
    for (const std::string& key : c.used())
      if (key != "model_type" && keys.find("`" + key + "`") == std::string::npos) keys += (keys.empty() ? "`" : ", `") + key + "`";
    m.warnings.insert(m.warnings.begin(), fmt::format("model type `{}` is not known; sizes are guessed from {}", m.model_type, keys));
  }
  count_parameters(m, d);
  return m;
}

}  // namespace epsim
