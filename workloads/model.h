#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/check.h"
#include "base/setting.h"
#include "topology/device.h"

namespace epsim {

/// The facts about an MoE model that a layer's routing, traffic and cost follow from.
struct Model {
  std::string name;        ///< preset name or the file's
  std::string model_type;  ///< as in the Hugging Face config
  std::int64_t hidden = 0;            ///< length of a token vector
  std::int64_t expert_ffn = 0;        ///< inner width of one routed expert
  int num_experts = 0;                ///< routed experts of an MoE layer
  int top_k = 0;                      ///< experts a token goes to
  std::int64_t shared_ffn = 0;        ///< inner width of all shared experts together; 0: none
  int num_layers = 0;                 ///< transformer layers
  std::vector<int> moe_layers;        ///< indices of the MoE layers, ascending
  int expert_matrices = 3;            ///< 3 for a gated FFN (SwiGLU), 2 for a plain one
  bool expert_bias = false;           ///< the experts' linear maps have biases
  Precision weights = Precision::bf16;
  Setting router;                     ///< the model's own gate as a part setting, such as {grouped_topk: {groups: 8, ...}}
  int expert_groups = 1;              ///< n_group of the gate; EPLB's groups

  double total_params = 0;                ///< all parameters, embeddings included
  double active_params = 0;               ///< parameters a token uses, both embeddings counted in full
  double active_params_no_embedding = 0;  ///< the same without the input embedding
  std::vector<std::string> warnings;      ///< guesses the import made

  /// Parameters of one routed expert.
  double expert_params() const;
};

/// Imports a Hugging Face `config.json`. Unknown model types are imported generically with a warning that lists the guessed keys; missing or contradictory sizes are
/// InputErrors with line and column.
Model import_hf_config(std::shared_ptr<const SourceText> file);

/// Names of the presets (workloads/presets.cpp), and one by name.
std::vector<std::string> model_presets();
std::optional<Model> model_preset(const std::string& name);

/// The dense model that does the same FLOPs for a token: in place of a layer's experts it has one FFN as wide as those a token goes to and the shared ones together, and no gate. On ranks it is one expert that all tokens choose.
Model dense_twin(const Model& model);

/// A preset by name, or a config file or the folder of a config.json by path (anything that has a slash or ends in .json), or of either, as `dense:NAME`, the dense twin. An unknown name is an InputError at `at`.
Model load_model(const std::string& name_or_path, const Location& at);

}  // namespace epsim
