#include "policies/placement/shared/layer_guess.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/check.h"

namespace epsim {
namespace {

constexpr std::int64_t kTokens = 1 << 11;      // looked at for where rows go; of more, every n-th
constexpr std::int64_t kLooks = 4;             // at an expert in a batch, in the mean, or more: one that is not seen there counts nothing
constexpr std::size_t kCostTable = 1 << 14;
constexpr int kByChance = 64;                  // copies of an expert in a batch, in the mean, up to which chance matters
constexpr int kMeans = 4;                      // looked up for each of them
constexpr double kSpread = 0.02;               // of the whole load, beside the fullest: shows the way where the fullest does not change

/// Tokens of one choice each that add up to the counts of a layer, or to a part of them.
std::vector<std::shared_ptr<const Routing>> tokens_of_counts(const Problem& problem, std::size_t layer) {
  const Matrix<std::int64_t>& counts = problem.counts[layer];
  std::int64_t total = 0;
  for (const std::int64_t n : counts.cells) total += n;
  const double share = std::min(1.0, static_cast<double>(kTokens) / static_cast<double>(std::max<std::int64_t>(1, total)));
  const auto routing = std::make_shared<Routing>();
  routing->experts = problem.experts, routing->top_k = 1, routing->first_token = {0};
  for (std::int64_t r = 0; r < problem.ranks; ++r) {
    if (r < counts.rows)
      for (int e = 0; e < problem.experts; ++e)
        routing->expert.insert(routing->expert.end(), static_cast<std::size_t>(std::llround(share * static_cast<double>(counts(r, e)))), static_cast<std::uint16_t>(e));
    routing->first_token.push_back(static_cast<std::int64_t>(routing->expert.size()));
  }
  return {routing};
}

}  // namespace

LayerGuess::LayerGuess(const Problem& problem, std::size_t layer, std::vector<std::int32_t> first, Rows rows, Batches of) : problem_(problem), rows_(rows), first_(std::move(first)) {
  const Topology* topology = problem.topology;
  for (const Rank r : ids<Rank>(problem.ranks)) {
    node_of_.push_back(topology ? topology->node_of(r) : Node(0));
    for (std::int32_t p = first_[r]; p < first_[r + 1]; ++p) rank_of_place_.push_back(r);
  }
  if (topology && rows_ == Rows::node) {
    gateway_ = Matrix<std::int32_t>(problem.ranks, topology->nodes());
    for (const Rank home : ids<Rank>(problem.ranks))
      for (const Node node : ids<Node>(topology->nodes())) {
        const std::span<const Rank> there = topology->ranks_of(node);
        gateway_(home, node) = there[static_cast<std::size_t>(topology->local_index(home)) % there.size()];
      }
  }
  if (topology && problem.pricing.hidden > 0) {
    const double row = static_cast<double>(problem.pricing.dispatch_row() + problem.pricing.combine_row());
    const Device& device = topology->device();
    near_row_s_ = row / device.scale_up_bandwidth.value;
    for (const Rank other : ids<Rank>(problem.ranks)) {  // as the first rank has them
      double& wait = topology->node_of(other) == topology->node_of(Rank(0)) ? near_wait_s_ : far_wait_s_;
      if (other != Rank(0)) wait = std::max(wait, (topology->latency(Rank(0), other) + topology->latency(other, Rank(0))).seconds());
    }
    far_wait_s_ = std::max(far_wait_s_, near_wait_s_);
    far_row_s_ = problem.nodes > 1 && device.nic_bandwidth.value > 0 ? row / device.nic_bandwidth.value : near_row_s_;
  }

  const std::vector<std::shared_ptr<const Routing>> batches = problem.tokens.empty() ? tokens_of_counts(problem, layer) : problem.tokens[layer];
  batches_ = static_cast<int>(batches.size());
  top_k_ = batches.front()->top_k;
  std::int64_t tokens = 0;
  for (const auto& batch : batches) tokens += batch->tokens();
  const std::int64_t looked_at = std::max(kTokens, kLooks * problem.experts * batches_ / top_k_), step = (tokens + looked_at - 1) / looked_at;
  std::vector<std::uint16_t> experts;
  weight_ = Matrix<double>(problem.experts, batches_);
  for (int b = 0; b < batches_; ++b) {
    const Routing& routing = *batches[static_cast<std::size_t>(b)];
    for (const std::uint16_t e : routing.expert) ++weight_(e, b);
    const std::int64_t start = step > 0 ? b * (routing.tokens() / problem.ranks) % step : 0;  // a home further than in the batch before, as homes of few tokens are skipped
    for (int r = 0; r < routing.ranks(); ++r)
      for (std::int64_t t = routing.first_token[static_cast<std::size_t>(r)]; t < routing.first_token[static_cast<std::size_t>(r) + 1]; ++t) {
        if (t % step != start) continue;
        batch_of_.push_back(static_cast<std::uint16_t>(b)), home_.push_back(static_cast<std::uint16_t>(r));
        experts.insert(experts.end(), routing.expert.begin() + t * top_k_, routing.expert.begin() + (t + 1) * top_k_);
      }
  }
  scale_ = batch_of_.empty() ? 1 : static_cast<double>(tokens) / static_cast<double>(batch_of_.size());

  choices_first_.assign(static_cast<std::size_t>(problem.experts) + 1, 0);
  for (const std::uint16_t e : experts) ++choices_first_[static_cast<std::size_t>(e) + 1];
  std::partial_sum(choices_first_.begin(), choices_first_.end(), choices_first_.begin());
  choices_.resize(experts.size());
  std::vector<std::uint32_t> next(choices_first_.begin(), choices_first_.end() - 1);
  looked_at_ = Matrix<std::int32_t>(problem.experts, batches_);
  Matrix<std::uint32_t> dealt(problem.ranks, problem.experts);  // of this batch, as the replica rule begins anew with each
  for (std::size_t i = 0; i < experts.size(); ++i) {
    const std::size_t token = i / static_cast<std::size_t>(top_k_), e = experts[i];
    if (i > 0 && batch_of_[token] != batch_of_[(i - 1) / static_cast<std::size_t>(top_k_)]) std::ranges::fill(dealt.cells, 0U);
    const std::uint32_t home = home_[token];
    choices_[next[e]++] = {static_cast<std::uint32_t>(token), home + dealt(home, static_cast<std::int64_t>(e))++};
    ++looked_at_(static_cast<std::int64_t>(e), batch_of_[token]);
  }
  for (std::size_t i = 0; i < weight_.cells.size(); ++i) weight_.cells[i] = looked_at_.cells[i] > 0 ? weight_.cells[i] / (looked_at_.cells[i] * scale_) : 1;
  for (std::size_t c = 0; c < kCostTable; ++c) cost_of_copies_.push_back(c == 0 ? 0 : seconds_of(static_cast<double>(c)));
  if (of == Batches::to_come) expect();
}

double LayerGuess::seconds_of(double copies) const {
  return problem_.expert_seconds ? problem_.expert_seconds(std::max<std::int64_t>(1, std::llround(copies * scale_))) : copies * scale_;
}

double LayerGuess::expert_seconds(double copies) const {
  const auto low = static_cast<std::size_t>(copies);
  if (low + 1 >= cost_of_copies_.size()) return seconds_of(copies);
  return cost_of_copies_[low] + (copies - static_cast<double>(low)) * (cost_of_copies_[low + 1] - cost_of_copies_[low]);
}

/// What an expert takes by its mean copies, where how many come is geometric.
void LayerGuess::expect() {
  std::vector<double> seconds = {0};
  for (int n = 1; n <= 10 * kByChance; ++n) seconds.push_back(problem_.expert_seconds ? problem_.expert_seconds(n) : n);
  for (int i = 0; i <= kByChance * kMeans; ++i) {
    const double mean = static_cast<double>(i) / kMeans;
    double probability = 1 / (1 + mean), all = 0;
    for (std::size_t n = 1; n < seconds.size(); ++n) probability *= mean / (1 + mean), all += probability * seconds[n];
    expected_s_.push_back(all);
  }
}

double LayerGuess::mean_seconds(double copies) const {
  const double at = copies * scale_ * kMeans;
  const auto low = static_cast<std::size_t>(at);
  if (low + 1 >= expected_s_.size()) return expert_seconds(copies);
  return expected_s_[low] + (at - static_cast<double>(low)) * (expected_s_[low + 1] - expected_s_[low]);
}

void LayerGuess::set(std::vector<int> expert_of_place) {
  ensure(expert_of_place.size() == rank_of_place_.size(), "a guess has an expert for each place");
  expert_of_place_ = std::move(expert_of_place);
  places_of_.assign(static_cast<std::size_t>(problem_.experts), {});
  for (std::size_t p = 0; p < expert_of_place_.size(); ++p)
    if (expert_of_place_[p] != kEmpty) places_of_[static_cast<std::size_t>(expert_of_place_[p])].push_back(static_cast<int>(p));
  copies_ = Matrix<std::int32_t>(static_cast<std::int64_t>(rank_of_place_.size()), batches_);
  ports_.assign(static_cast<std::size_t>(problem_.ranks), {});
  on_rank_ = Matrix<std::uint16_t>(static_cast<std::int64_t>(home_.size()), problem_.ranks);
  on_node_ = Matrix<std::uint16_t>(static_cast<std::int64_t>(home_.size()), *std::ranges::max_element(node_of_) + 1);
  compute_s_ = Matrix<double>(problem_.ranks, batches_ + 1);
  stale_.assign(static_cast<std::size_t>(problem_.ranks), 1);
  serves_s_.resize(static_cast<std::size_t>(problem_.ranks));
  stale_ranks_.resize(static_cast<std::size_t>(problem_.ranks));
  std::iota(stale_ranks_.begin(), stale_ranks_.end(), 0);
  for (std::size_t e = 0; e < places_of_.size(); ++e) {
    const std::vector<int>& places = places_of_[e];
    ensure(!places.empty(), "every expert has a place");
    for (std::uint32_t c = choices_first_[e]; c < choices_first_[e + 1]; ++c) {
      const auto& [token, ordinal] = choices_[c];
      const int place = places[ordinal % places.size()], rank = rank_of_place_[static_cast<std::size_t>(place)];
      ++copies_(place, batch_of_[token]);
      come(token, rank);
    }
  }
  refresh();
  forget_change();
}

/// Adds or takes away the rows that a token's copy on `rank` makes, which has no other there.
void LayerGuess::count_row(int home, int rank, bool on_node, std::int64_t sign) {
  if (rank == home) return;
  const int node = node_of_[static_cast<std::size_t>(rank)];
  Ports& to = ports_[static_cast<std::size_t>(rank)];
  Ports& from = ports_[static_cast<std::size_t>(home)];
  if (node == node_of_[static_cast<std::size_t>(home)]) {
    from.node_out += sign, to.node_in += sign;
    return;
  }
  if (rows_ != Rows::node) {
    from.far_out += sign, to.far_in += sign;
    return;
  }
  const int gateway = gateway_(home, node);
  if (!on_node) from.far_out += sign, ports_[static_cast<std::size_t>(gateway)].far_in += sign;
  if (gateway != rank) ports_[static_cast<std::size_t>(gateway)].node_out += sign, to.node_in += sign;
}

/// A copy of a token comes to a rank.
void LayerGuess::come(std::uint32_t token, int rank) {
  const bool first_on_rank = on_rank_(token, rank)++ == 0, first_on_node = on_node_(token, node_of_[static_cast<std::size_t>(rank)])++ == 0;
  if (first_on_rank || rows_ == Rows::copy) count_row(home_[token], rank, !first_on_node, 1);
}

/// A copy of a token leaves a rank.
void LayerGuess::leave(std::uint32_t token, int rank) {
  const bool last_on_rank = --on_rank_(token, rank) == 0, last_on_node = --on_node_(token, node_of_[static_cast<std::size_t>(rank)]) == 0;
  if (last_on_rank || rows_ == Rows::copy) count_row(home_[token], rank, !last_on_node, -1);
}

/// Sends the copies of an expert from places to others: `move(token, from, to)` for each token that changes rank.
template <typename Move>
void LayerGuess::deal(int expert, const std::vector<int>& before, const std::vector<int>& places, Move&& move) {
  const auto e = static_cast<std::size_t>(expert);
  if (before.size() == 1 && places.size() == 1) {
    const int from = before[0], to = places[0], old_rank = rank_of_place_[static_cast<std::size_t>(from)], new_rank = rank_of_place_[static_cast<std::size_t>(to)];
    for (int b = 0; b < batches_; ++b) copies_(from, b) -= looked_at_(expert, b), copies_(to, b) += looked_at_(expert, b);
    if (old_rank != new_rank)
      for (std::uint32_t c = choices_first_[e]; c < choices_first_[e + 1]; ++c) move(choices_[c].token, old_rank, new_rank);
    return;
  }
  const auto old_places = static_cast<std::uint32_t>(before.size()), new_places = static_cast<std::uint32_t>(places.size());
  for (std::uint32_t c = choices_first_[e]; c < choices_first_[e + 1]; ++c) {
    const auto& [token, ordinal] = choices_[c];
    const int from = before[ordinal % old_places], to = places[ordinal % new_places];
    if (from == to) continue;
    --copies_(from, batch_of_[token]), ++copies_(to, batch_of_[token]);
    const int old_rank = rank_of_place_[static_cast<std::size_t>(from)], new_rank = rank_of_place_[static_cast<std::size_t>(to)];
    if (old_rank != new_rank) move(token, old_rank, new_rank);
  }
}

/// Sends the copies of an expert to other places, and remembers from where.
void LayerGuess::send(int expert, std::vector<int> places) {
  std::vector<int>& now = places_of_[static_cast<std::size_t>(expert)];
  for (const std::vector<int>* touched : {&now, &places})
    for (const int place : *touched) {
      const int rank = rank_of_place_[static_cast<std::size_t>(place)];
      if (!std::exchange(stale_[static_cast<std::size_t>(rank)], 1)) stale_ranks_.push_back(rank);
    }
  deal(expert, now, places, [this](std::uint32_t token, int from, int to) { leave(token, from), come(token, to); });
  last_.sent.emplace_back(expert, std::exchange(now, std::move(places)));
}

void LayerGuess::forget_change() { last_.sent.clear(), last_.held.clear(), last_.ranks.clear(), last_.compute_s.clear(), last_.ports = ports_; }

void LayerGuess::undo() {
  for (; !last_.sent.empty(); last_.sent.pop_back()) {
    auto& [expert, places] = last_.sent.back();
    std::vector<int>& now = places_of_[static_cast<std::size_t>(expert)];
    deal(expert, now, places, [this](std::uint32_t token, int from, int to) {
      --on_rank_(token, from), ++on_rank_(token, to);
      --on_node_(token, node_of_[static_cast<std::size_t>(from)]), ++on_node_(token, node_of_[static_cast<std::size_t>(to)]);
    });
    now = std::move(places);
  }
  for (const auto& [place, expert] : last_.held) expert_of_place_[static_cast<std::size_t>(place)] = expert;
  for (std::size_t i = 0; i < last_.ranks.size(); ++i) std::copy_n(last_.compute_s.begin() + static_cast<std::ptrdiff_t>(i) * (batches_ + 1), batches_ + 1, compute_s_.row(last_.ranks[i]).begin());
  ports_ = last_.ports;
  forget_change();
}

void LayerGuess::refresh() {
  for (const int r : stale_ranks_) {
    stale_[static_cast<std::size_t>(r)] = 0;
    const std::span<double> row = compute_s_.row(r);
    last_.ranks.push_back(r), last_.compute_s.insert(last_.compute_s.end(), row.begin(), row.end());
    std::ranges::fill(row, 0.0);
    for (std::int32_t p = first_[static_cast<std::size_t>(r)]; p < first_[static_cast<std::size_t>(r) + 1]; ++p) {
      const int expert = expert_of_place_[static_cast<std::size_t>(p)];
      if (expert == kEmpty) continue;
      double all = 0;
      for (int b = 0; b < batches_; ++b) {
        const double n = copies_(p, b) * weight_(expert, b);
        row[static_cast<std::size_t>(b)] += expert_seconds(n);
        all += n;
      }
      row[static_cast<std::size_t>(batches_)] += mean_seconds(all / batches_);
    }
  }
  stale_ranks_.clear();
}

void LayerGuess::swap(int a, int b) {
  forget_change();
  const int x = expert_of_place_[static_cast<std::size_t>(a)], y = expert_of_place_[static_cast<std::size_t>(b)];
  if (x == y) return;
  const auto moved = [&](int expert, int from, int to) {
    std::vector<int> places = places_of_[static_cast<std::size_t>(expert)];
    *std::ranges::find(places, from) = to;
    std::ranges::sort(places);
    send(expert, std::move(places));
  };
  if (x != kEmpty) moved(x, a, b);
  if (y != kEmpty) moved(y, b, a);
  last_.held = {{a, x}, {b, y}};
  std::swap(expert_of_place_[static_cast<std::size_t>(a)], expert_of_place_[static_cast<std::size_t>(b)]);
  refresh();
}

void LayerGuess::put(int place, int expert) {
  forget_change();
  const int old = std::exchange(expert_of_place_[static_cast<std::size_t>(place)], expert);
  if (old == expert) return;
  last_.held = {{place, old}};
  if (old != kEmpty) {
    std::vector<int> places = places_of_[static_cast<std::size_t>(old)];
    std::erase(places, place);
    ensure(!places.empty(), "every expert has a place");
    send(old, std::move(places));
  }
  if (expert != kEmpty) {
    std::vector<int> places = places_of_[static_cast<std::size_t>(expert)];
    places.insert(std::ranges::upper_bound(places, place), place);
    send(expert, std::move(places));
  }
  refresh();
}

LayerGuess::Turns LayerGuess::turns(const Ports& p) const {
  const double near_s = near_row_s_ * scale_ / batches_, far_s = far_row_s_ * scale_ / batches_, wait = p.far_in > 0 ? far_wait_s_ : p.node_in > 0 ? near_wait_s_ : 0;
  const auto at = [](std::int64_t rows, double row_s) { return static_cast<double>(rows) * row_s; };
  if (rows_ == Rows::node) {  // what it relays delays what it serves
    const double ports = at(std::max(p.node_in, p.node_out), near_s) + at(std::max(p.far_in, p.far_out), far_s) + wait;
    return {ports, ports};
  }
  return {std::max(at(p.node_in, near_s), at(p.far_in, far_s)) + wait, std::max(at(p.node_out, near_s), at(p.far_out, far_s)) + wait};
}

double LayerGuess::seconds() const {
  double homes = 0, mean = 0, sum = 0, squares = 0;
  for (int r = 0; r < problem_.ranks; ++r) {
    const Turns t = turns(ports_[static_cast<std::size_t>(r)]);
    serves_s_[static_cast<std::size_t>(r)] = t.serves;
    homes = std::max(homes, t.home), mean += compute_s_(r, batches_) / problem_.ranks;
    const double busy = compute_s_(r, batches_) + t.serves;
    sum += busy, squares += busy * busy;
  }
  double all = 0;
  for (int b = 0; b <= batches_; ++b) {
    double most = homes + mean;
    for (int r = 0; r < problem_.ranks; ++r) most = std::max(most, compute_s_(r, b) + serves_s_[static_cast<std::size_t>(r)]);
    all += b < batches_ ? 0.5 * most / batches_ : 0.5 * most;
  }
  return all + (sum > 0 ? kSpread * squares / sum : 0);
}

int LayerGuess::slowest_rank() const {
  int slowest = 0;
  for (int r = 1; r < problem_.ranks; ++r)
    if (compute_s_(r, batches_) > compute_s_(slowest, batches_)) slowest = r;
  return slowest;
}

int LayerGuess::busiest_rank() const {
  int busiest = 0;
  double longest = 0;
  for (int r = 0; r < problem_.ranks; ++r)
    if (const Turns t = turns(ports_[static_cast<std::size_t>(r)]); std::max(t.serves, t.home) > longest) longest = std::max(t.serves, t.home), busiest = r;
  return busiest;
}

}  // namespace epsim
