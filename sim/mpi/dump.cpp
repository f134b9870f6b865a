#include "sim/mpi/dump.h"

#include <filesystem>
#include <fstream>

#include "base/npz.h"
#include "sim/moe/expert.h"
#include "sim/mpi/layer_data.h"

namespace epsim {
namespace {

namespace fs = std::filesystem;

Location named(const std::string& path) { return {std::make_shared<SourceText>(SourceText{path, {}}), 0, 0}; }

void append(std::vector<float>& to, std::span<const float> from) { to.insert(to.end(), from.begin(), from.end()); }

/// w1, w3 and w2 of some experts, each one behind another, from those of each expert behind one another.
void add_gradients(NpzWriter& npz, const std::string& prefix, const std::vector<std::vector<float>>& experts, std::vector<std::int64_t> in, std::vector<std::int64_t> out) {
  std::vector<float> w1, w3, w2;
  for (const std::vector<float>& all : experts) {
    const std::size_t n = all.size() / 3;
    const std::span<const float> e(all);
    append(w1, e.first(n)), append(w3, e.subspan(n, n)), append(w2, e.last(n));
  }
  npz.add(prefix + "w1", in, std::span<const float>(w1));
  npz.add(prefix + "w3", in, std::span<const float>(w3));
  npz.add(prefix + "w2", std::move(out), std::span<const float>(w2));
}

/// The arrays of constant experts, where there are any.
void add_constants(NpzWriter& npz, const std::string& prefix, std::int64_t hidden, std::span<const float> vectors, std::span<const float> matrices) {
  const std::int64_t count = static_cast<std::int64_t>(vectors.size()) / hidden;
  if (count == 0) return;
  npz.add(prefix + "constant", {count, hidden}, vectors);
  npz.add(prefix + "constant_gate", {count, hidden, 2}, matrices);
}

void add_gradients(NpzWriter& npz, const Experiment& e, const Plan& plan, const ExecutedGradients& g) {
  const std::int64_t tokens = plan.routing.tokens(), experts = plan.routing.experts, h = e.execute_hidden, f = e.execute_ffn;
  npz.add("r", {tokens, h}, std::span<const float>(g.r));
  npz.add("dx", {tokens, h}, std::span<const float>(g.of_plan.x));
  npz.add("d_weight", {tokens, plan.routing.top_k}, std::span<const float>(g.of_plan.d_weight));
  add_gradients(npz, "d", g.of_plan.experts, {experts, h, f}, {experts, f, h});
  if (const std::int64_t s = execute_pricing(e).shared_ffn; s > 0) add_gradients(npz, "dshared_", {g.of_plan.shared}, {h, s}, {s, h});
  add_constants(npz, "d", h, g.of_plan.constant, g.of_plan.constant_gate);
  if (!g.gate.empty()) npz.add("dgate", {h, experts + e.router.idle.count()}, std::span<const float>(g.gate));
}

}  // namespace

void check_dump_folder(const std::string& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  const fs::path probe = fs::path(folder) / ".epsim-probe";
  if (!std::ofstream(probe)) throw InputError(named(folder), "this folder cannot be made or written");
  fs::remove(probe, error);
}

void write_dump(const std::string& folder, const Experiment& e, const Plan& plan, const std::vector<float>& x, const std::vector<float>& y, const ExecutedGradients* gradients) {
  const std::int64_t tokens = plan.routing.tokens(), k = plan.routing.top_k, experts = plan.routing.experts, h = e.execute_hidden, f = e.execute_ffn;
  NpzWriter npz;
  npz.add("x", {tokens, h}, std::span<const float>(x));
  if (e.source.gate) {
    const std::int64_t columns = experts + e.router.idle.count();
    std::vector<float> gate(static_cast<std::size_t>(h * columns));
    e.source.gate(plan.layer, gate);
    npz.add("gate", {h, columns}, std::span<const float>(gate));
  }
  std::vector<float> w1, w3, w2;
  for (int expert = 0; expert < experts; ++expert) {
    const ExpertWeights w = make_expert_weights(e.seed, plan.layer, expert, h, f);
    append(w1, w.w1), append(w3, w.w3), append(w2, w.w2);
  }
  npz.add("w1", {experts, h, f}, std::span<const float>(w1));
  npz.add("w3", {experts, h, f}, std::span<const float>(w3));
  npz.add("w2", {experts, f, h}, std::span<const float>(w2));
  if (const std::int64_t s = execute_pricing(e).shared_ffn; s > 0) {
    const ExpertWeights w = make_expert_weights(e.seed, plan.layer, kSharedExpert, h, s);
    npz.add("shared_w1", {h, s}, std::span<const float>(w.w1));
    npz.add("shared_w3", {h, s}, std::span<const float>(w.w3));
    npz.add("shared_w2", {s, h}, std::span<const float>(w.w2));
  }
  const IdleBank idle = idle_bank(e, plan.layer);
  add_constants(npz, "", h, idle.weights.constant, idle.weights.constant_gate);
  std::vector<std::int32_t> ids(plan.routing.expert.begin(), plan.routing.expert.end()), kept, home, shared_rank(plan.shared_rank.begin(), plan.shared_rank.end()), physical(plan.placement.expert_of_slot.begin(), plan.placement.expert_of_slot.end());
  for (std::int32_t& id : ids)
    if (plan.routing.may_choose_fewer && id == kNoExpert) id = -1;
  for (std::size_t c = 0; c < plan.slot.size(); ++c) kept.push_back(plan.slot[c] >= 0 || ids[c] >= experts);
  for (int r = 0; r < plan.ranks(); ++r) home.insert(home.end(), static_cast<std::size_t>(plan.routing.first_token[r + 1] - plan.routing.first_token[r]), r);
  npz.add("expert_ids", {tokens, k}, std::span<const std::int32_t>(ids));
  npz.add("weights", {tokens, k}, std::span<const float>(plan.routing.weight));
  npz.add("kept", {tokens, k}, std::span<const std::int32_t>(kept));
  npz.add("slot_of_copy", {tokens, k}, std::span<const std::int32_t>(plan.slot));
  npz.add("home", {tokens}, std::span<const std::int32_t>(home));
  if (!plan.shared_rank.empty()) npz.add("shared_rank", {tokens}, std::span<const std::int32_t>(shared_rank));
  npz.add("physical_to_logical", {static_cast<std::int64_t>(physical.size())}, std::span<const std::int32_t>(physical));
  npz.add("y", {tokens, h}, std::span<const float>(y));
  if (gradients) add_gradients(npz, e, plan, *gradients);

  const fs::path file = fs::path(folder) / "dump.npz", part = fs::path(folder) / ".dump.npz.part";
  const std::string bytes = npz.bytes();
  std::error_code error;
  std::ofstream out(part, std::ios::binary);
  out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  out.close();
  if (!out) {
    fs::remove(part, error);
    throw InputError(named(file.string()), "cannot be written");
  }
  fs::rename(part, file);
}

}  // namespace epsim
