#include <algorithm>

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "cli/cli.h"
#include "topology/device.h"
#include "workloads/model.h"

namespace epsim {
namespace {

void print_settings(const std::vector<ParamDoc>& docs) {
  for (const ParamDoc& d : docs) fmt::print("      {:<24} {}{} ({})\n", d.key, d.help, d.fallback.empty() ? "; required" : "; default " + d.fallback, d.type);
}

/// Prints the parts of a kind; with `settings`, everything that can be set on each.
template <class Part, class... Context>
void print_kind(const Catalog<Part, Context...>& catalog, bool settings) {
  for (const auto& entry : catalog.entries()) {
    Params listing;
    const Part part = entry.make(listing, Context{}...);
    fmt::print("  {:<14} {}\n", entry.name, part.summary);
    if (!settings) continue;
    print_settings(listing.docs());
  }
}

void print_models(bool details) {
  for (const std::string& name : model_presets()) {
    const Model m = *model_preset(name);
    fmt::print("  {:<16} {} experts, top-{}, {} MoE layers, {:.4g} B parameters{}\n", name, m.num_experts, m.top_k, m.moe_layers.size(), m.total_params / 1e9,
               details ? fmt::format("; hidden {}, expert width {}", m.hidden, m.expert_ffn) : "");
  }
}

void print_devices(bool details) {
  for (const Device& d : devices()) {
    fmt::print("  {:<14} {}\n", d.name, d.summary);
    if (!details) continue;
    const auto fact = [](const char* name, const Fact& f, const std::string& value) { fmt::print("      {:<18} {:<14} {}\n", name, value, f.source); };
    fact("FLOP/s fp32", d.flops_fp32, fmt::format("{:.4g}", d.flops_fp32.value));
    fact("FLOP/s bf16", d.flops_bf16, fmt::format("{:.4g}", d.flops_bf16.value));
    fact("FLOP/s fp8", d.flops_fp8, fmt::format("{:.4g}", d.flops_fp8.value));
    fact("memory bandwidth", d.memory_bandwidth, format_bandwidth(d.memory_bandwidth.value));
    fact("memory", d.memory_bytes, format_bytes(d.memory_bytes.value));
    fact("scale-up", d.scale_up_bandwidth, format_bandwidth(d.scale_up_bandwidth.value));
    fact("scale-up latency", d.scale_up_latency, format_seconds(d.scale_up_latency.value));
    fact("NIC", d.nic_bandwidth, format_bandwidth(d.nic_bandwidth.value));
    fact("NIC latency", d.nic_latency, format_seconds(d.nic_latency.value));
    fact("kernel launch", d.kernel_launch, format_seconds(d.kernel_launch.value));
    fact("peak share", d.peak_share, fmt::format("{:.3g}", d.peak_share.value));
    fact("half rows", d.half_rows, fmt::format("{:.4g}", d.half_rows.value));
  }
}

void print_list(const std::string& wanted, const Catalogs& c) {
  const bool all = wanted.empty();
  std::vector<std::string> known;
  bool found = false;
  const auto section = [&](const std::string& kind, auto&& print) {
    known.push_back(kind);
    if (!all && kind != wanted) return;
    found = true;
    if (all) fmt::print("{}\n", kind);
    print(!all);
  };
  std::vector<std::string> kinds_of;  // kinds that have one of this name
  const auto parts = [&](const auto& catalog) {
    if (catalog.find(wanted)) kinds_of.push_back(catalog.kind());
    section(catalog.kind(), [&](bool settings) { print_kind(catalog, settings); });
  };
  section("experiment", [](bool settings) {
    fmt::print("  {:<14} {}\n", "(the file)", "the settings that belong to no part; one key for each kind below comes beside them");
    if (settings) print_settings(experiment_settings());
  });
  section("model", print_models);
  section("device", print_devices);
  parts(c.cluster), parts(c.source), parts(c.router), parts(c.capacity), parts(c.loss), parts(c.compression), parts(c.placement), parts(c.replica), parts(c.shared_expert), parts(c.exchange), parts(c.network), parts(c.compute);
  const Location typed{std::make_shared<SourceText>(SourceText{"epsim list", wanted}), 1, 1};
  if (!found && model_preset(wanted)) kinds_of.emplace_back("model");
  if (!found && find_device(wanted)) kinds_of.emplace_back("device");
  if (!found && !kinds_of.empty()) throw InputError(typed, fmt::format("there is no kind `{}`, but there is one of that name in `epsim list {}`", wanted, fmt::join(kinds_of, "`, `epsim list ")));
  if (!found) throw InputError(typed, fmt::format("there is no kind `{}`{}", wanted, suggest(wanted, known)));
  if (all) fmt::print("\n`epsim list KIND` shows what can be set on each part.\n");
}

}  // namespace

void verb::list(CLI::App& app, const Catalogs& catalogs, int&) {
  CLI::App* sub = app.add_subcommand("list", "List models, devices and the parts of every kind, or one kind with all its settings");
  sub->footer("Example: epsim list placement");
  auto kind = std::make_shared<std::string>();
  sub->add_option("kind", *kind, "experiment, model, device, cluster, source, router, capacity, loss, compression, placement, replica, shared_expert, exchange, network or compute");
  sub->callback([kind, &catalogs] { print_list(*kind, catalogs); });
}

}  // namespace epsim
