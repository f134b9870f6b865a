#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/cli.h"

namespace epsim::verb {
namespace {

double expert_bytes(const Model& m) { return m.expert_params() * bytes_per_value(m.weights); }

/// "3-60", "1, 3, 5".
std::string ranges_of(const std::vector<int>& layers) {
  std::string out;
  for (std::size_t i = 0; i < layers.size();) {
    std::size_t last = i;
    while (last + 1 < layers.size() && layers[last + 1] == layers[last] + 1) ++last;
    out += fmt::format("{}{}", out.empty() ? "" : ", ", layers[i]);
    if (last > i) out += fmt::format("-{}", layers[last]);
    i = last + 1;
  }
  return out;
}

void print_json(const Model& m) {
  nlohmann::ordered_json j;
  j["name"] = m.name;
  j["model_type"] = m.model_type;
  j["hidden"] = m.hidden;
  j["num_layers"] = m.num_layers;
  j["moe_layers"] = m.moe_layers;
  j["num_experts"] = m.num_experts;
  j["top_k"] = m.top_k;
  j["expert_ffn"] = m.expert_ffn;
  j["expert_matrices"] = m.expert_matrices;
  j["expert_bias"] = m.expert_bias;
  j["shared_ffn"] = m.shared_ffn;
  j["expert_groups"] = m.expert_groups;
  j["router"] = to_yaml(m.router);
  j["weights_precision"] = name_of(m.weights);
  j["total_params"] = static_cast<std::int64_t>(m.total_params);
  j["active_params"] = static_cast<std::int64_t>(m.active_params);
  j["active_params_no_embedding"] = static_cast<std::int64_t>(m.active_params_no_embedding);
  j["expert_params"] = static_cast<std::int64_t>(m.expert_params());
  j["expert_bytes"] = expert_bytes(m);
  j["warnings"] = m.warnings;
  std::cout << j.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) << '\n';
}

void print_text(const Model& m) {
  const auto line = [](std::string_view name, const std::string& value) { std::cout << fmt::format("{:<28}{}\n", name, value); };
  const auto billions = [](double count) { return fmt::format("{:.2f} billion", count * 1e-9); };
  line("model", m.model_type.empty() ? m.name : fmt::format("{} ({})", m.name, m.model_type));
  line("token vector", fmt::format("{} values", m.hidden));
  line("layers", fmt::format("{}, {} of them with experts: {}", m.num_layers, m.moe_layers.size(), ranges_of(m.moe_layers)));
  line("experts", fmt::format("{} a layer, {} a token", m.num_experts, m.top_k));
  line("expert", fmt::format("{} matrices {} x {}{}, {:.3f} million parameters, {} as {}", m.expert_matrices, m.hidden, m.expert_ffn,
                             m.expert_bias ? " with biases" : "", m.expert_params() * 1e-6, format_bytes(expert_bytes(m)), name_of(m.weights)));
  line("shared experts", m.shared_ffn > 0 ? fmt::format("inner width {} together", m.shared_ffn) : "none");
  line("router", to_yaml(m.router));
  line("total parameters", billions(m.total_params));
  line("active parameters", fmt::format("{} ({} without the input embedding)", billions(m.active_params), billions(m.active_params_no_embedding)));
}

}  // namespace

void model(CLI::App& app, const Catalogs&, int& result) {
  struct Options {
    std::string name, format = "text";
  };
  auto options = std::make_shared<Options>();
  CLI::App* verb = app.add_subcommand("model", "Print the sizes of a model: a preset by name, or a Hugging Face config.json");
  verb->add_option("model", options->name, "a preset, or the path of a config.json or its folder (it has a slash or ends in .json)")->required();
  verb->add_option("--format", options->format, "text or json")->check(CLI::IsMember({"text", "json"}));
  verb->callback([options, &result] {
    const auto typed = std::make_shared<SourceText>(SourceText{"model", options->name});
    const Model m = load_model(options->name, {typed, 1, 1});
    for (const std::string& warning : m.warnings) std::cerr << "warning: " << warning << '\n';
    options->format == "json" ? print_json(m) : print_text(m);
    result = kOk;
  });
}

}  // namespace epsim::verb
