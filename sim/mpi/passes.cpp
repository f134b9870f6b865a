#include "sim/mpi/passes.h"

#include <algorithm>
#include <set>

#include "sim/mpi/gate.h"
#include "sim/mpi/gradients.h"
#include "sim/mpi/layer_data.h"

namespace epsim {
namespace {

double median(std::vector<double> v) {
  std::sort(v.begin(), v.end());
  return v.empty() ? 0 : v[v.size() / 2];
}

/// The rows of the ranks that a process hosts.
std::vector<RankRows> hosted_rows(const Experiment& e, const Plan& plan, int begin, int end) {
  std::vector<bool> wanted(static_cast<std::size_t>(plan.ranks()));
  for (int r = begin; r < end; ++r) wanted[r] = true;
  return e.exchange.rows(plan, e.topology, e.model.shared_ffn > 0, wanted);
}

}  // namespace

Passes::Passes(World& world, const Experiment& e, const Plan& plan, const Schedule& schedule, const Hosts& hosts, bool both, int repeats)
    : world_(world), e_(e), plan_(plan), hosts_(hosts), both_(both), repeats_(repeats), begin_(hosts.first[world.rank()]), end_(hosts.first[world.rank() + 1]), rows_(hosted_rows(e, plan, begin_, end_)),
      bank_(e.execute_hidden), idle_(idle_bank(e, plan.layer)), player_(world, hosts, schedule, rows_), passes_(plan, bank_) {
  std::set<int> mine;
  for (int r = begin_; r < end_; ++r)
    for (int s = plan.placement.first_slot[r]; s < plan.placement.first_slot[r + 1]; ++s) mine.insert(plan.placement.expert_of_slot[s]);
  if (e.model.shared_ffn > 0) mine.insert(kSharedExpert);
  for (const int expert : mine) load_expert(e, plan.layer, expert, bank_, both ? ExpertBank::Passes::both : ExpertBank::Passes::forward);
  for (int p = 0; p < world.size(); ++p) tokens_.push_back(plan.routing.first_token[hosts.first[p + 1]] - plan.routing.first_token[hosts.first[p]]);
}

/// What `make(first token, last token)` gives for each hosted rank.
template <class Make>
std::vector<std::vector<float>> Passes::of_ranks(const Make& make) const {
  std::vector<std::vector<float>> all;
  for (int r = begin_; r < end_; ++r) all.push_back(make(plan_.routing.first_token[r], plan_.routing.first_token[r + 1]));
  return all;
}

Played Passes::forward() {
  const auto x = of_ranks([&](std::int64_t first, std::int64_t last) { return token_vectors(e_, first, last); });
  Played played = play(x, both_ ? passes_.forward() : forward_work(plan_.placement, bank_));
  std::vector<float> y = player_.result();
  for (int r = begin_; r < end_; ++r) add_idle(idle_, plan_, Rank(r), x[static_cast<std::size_t>(r - begin_)], rows_of(y, r));
  played.result = world_.gather(std::span<const float>(y), counts(e_.execute_hidden));
  return played;
}

Played Passes::backward(const std::vector<float>& weights, PlanGradients& gradients, std::vector<float>& of_gate) {
  std::vector<std::vector<float>> numbers;
  for (int r = begin_; r < end_; ++r) numbers.push_back(token_numbers(plan_, Rank(r)));
  player_.play(numbers, 1, passes_.number());
  const auto r = of_ranks([&](std::int64_t first, std::int64_t last) { return gradient_vectors(e_, plan_.layer, first, last); });
  const Played played = play(r, passes_.backward());

  gradients.d_weight.assign(plan_.slot.size(), 0);
  passes_.write_d_weight(gradients.d_weight);
  bring_home(world_, hosts_, plan_, gradients.d_weight);
  const std::size_t size = static_cast<std::size_t>(3 * e_.execute_hidden * e_.execute_ffn);
  gradients.experts = add_slots(world_, hosts_, plan_, size, [&](Slot s) { return passes_.of_slot(s); });
  gather_experts(world_, hosts_, plan_, size, gradients.experts);
  std::vector<float> dx = player_.result();
  std::vector<std::vector<float>> shared, gate, constant, constant_gate;
  for (int rank = begin_; rank < end_; ++rank) {
    if (e_.model.shared_ffn > 0) shared.push_back(passes_.of_shared(Rank(rank)));
    const std::vector<float> x = token_vectors(e_, plan_.routing.first_token[rank], plan_.routing.first_token[rank + 1]);
    LayerWeights of_idle = add_idle_backward(idle_, plan_, Rank(rank), x, r[static_cast<std::size_t>(rank - begin_)], rows_of(dx, rank), of_home(plan_, Rank(rank), plan_.routing.top_k, gradients.d_weight));
    constant.push_back(std::move(of_idle.constant)), constant_gate.push_back(std::move(of_idle.constant_gate));
    if (gate_has_gradient(e_)) gate.push_back(gate_backward(e_, plan_, weights, gradients.d_weight, Rank(rank), rows_of(dx, rank)));
  }
  if (!shared.empty()) gradients.shared = add_ranks(world_, std::move(shared));
  if (!gate.empty()) of_gate = add_ranks(world_, std::move(gate));
  if (idle_.shape.idle.constant > 0) gradients.constant = add_ranks(world_, std::move(constant)), gradients.constant_gate = add_ranks(world_, std::move(constant_gate));
  gradients.x = world_.gather(std::span<const float>(dx), counts(e_.execute_hidden));
  const std::int64_t k = plan_.routing.top_k, mine = plan_.routing.first_token[begin_];
  gradients.d_weight = world_.gather(std::span<const float>(gradients.d_weight).subspan(static_cast<std::size_t>(mine * k), static_cast<std::size_t>(tokens_[static_cast<std::size_t>(world_.rank())] * k)), counts(k));
  return played;
}

/// The rows of a rank's tokens among those of the hosted ranks.
std::span<float> Passes::rows_of(std::vector<float>& hosted, int rank) const {
  const std::int64_t h = e_.execute_hidden, first = plan_.routing.first_token[rank];
  return std::span(hosted).subspan(static_cast<std::size_t>((first - plan_.routing.first_token[begin_]) * h), static_cast<std::size_t>((plan_.routing.first_token[rank + 1] - first) * h));
}

/// Of each process: its tokens times `width`.
std::vector<std::int64_t> Passes::counts(std::int64_t width) const {
  std::vector<std::int64_t> all = tokens_;
  for (std::int64_t& n : all) n *= width;
  return all;
}

Played Passes::play(const std::vector<std::vector<float>>& home, const CallWork& work) {
  Played played;
  std::vector<double> dispatch, compute, combine;
  for (int i = 0; i < repeats_; ++i) {
    const StageSeconds s = player_.play(home, e_.execute_hidden, work);
    dispatch.push_back(world_.max(s.dispatch)), compute.push_back(world_.max(s.compute)), combine.push_back(world_.max(s.combine));
  }
  played.measured = {median(dispatch), median(compute), median(combine)};
  const Player::Received received = player_.received();
  played.rows_match_plan = world_.all(received.as_planned);
  for (const std::int64_t rows : world_.gather(std::span(&received.rows, 1), std::vector<std::int64_t>(static_cast<std::size_t>(world_.size()), 1))) played.rows_moved += rows;
  return played;
}

}  // namespace epsim
