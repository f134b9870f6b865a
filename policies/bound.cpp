#include "policies/bound.h"

#include <algorithm>
#include <array>
#include <limits>
#include <numeric>

#include "base/check.h"

namespace epsim {
namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();
// Sums are taken in another order than a simulation takes them: leave room for rounding.
constexpr double kRounding = 1 - 1e-12;

/// What a link must carry of one phase, as messages are added from the latest begin to the earliest.
struct LinkLoad {
  double bytes = 0;
  double ready = kNever, upstream = kNever;  // earliest begin, and shortest way to the link, of the messages so far
  double carried = 0;                        // the earliest moment that the last byte can have passed
  double downstream = kNever;                // the shortest way from the link, its own latency included
  double to_end = kNever;                    // the least that is left of the schedule after one of the messages has passed
  Rank destination;                          // of all its messages; invalid where there are several
};

/// What a link must carry of all transfers of a stage, whether or not they wait for each other.
struct LinkTotal {
  double bytes = 0;
  double ready = kNever, upstream = kNever;  // the least of each over all messages, as in LinkLoad
  double to_end = kNever;
};

class Bound {
 public:
  Bound(const Schedule& schedule, const Topology& topology, const KernelCost& cost) : schedule_(schedule), topology_(topology) {
    const auto n = static_cast<std::size_t>(schedule.ranks);
    const std::size_t phases = schedule.phases.size();
    ensure(schedule.ranks == topology.ranks(), "a schedule has the ranks of the topology");
    compute_.assign(phases, {});
    for (std::size_t p = 0; p < phases; ++p)
      if (schedule.phases[p].kind == Phase::Kind::kernel) {
        compute_[p].assign(n, 0);
        for (const KernelCall& k : schedule.phases[p].kernels) compute_[p][k.rank] += cost(k);
      }
    after_.assign(phases, std::vector<double>(n, 0));
    after_sent_.assign(phases, {});
    sent_.assign(phases, {});
    for (const Phase& phase : schedule.phases)
      for (const int before : phase.after_sent) after_sent_[before].assign(n, 0), sent_[before].assign(n, 0);
    begin_.assign(phases, std::vector<double>(n, 0));
    done_.assign(phases, std::vector<double>(n, 0));
  }

  double run() {
    for (std::size_t p = schedule_.phases.size(); p-- > 0;) look_back(p);
    for (std::size_t p = 0; p < schedule_.phases.size(); ++p) look_ahead(p);
    for (const Rank r : ids<Rank>(schedule_.ranks)) one_at_a_time(r);
    for (const std::vector<LinkTotal>& of_stage : totals_)
      for (std::size_t l = 0; l < of_stage.size(); ++l)
        if (of_stage[l].bytes > 0) end_ = std::max(end_, of_stage[l].ready + of_stage[l].upstream + of_stage[l].bytes / topology_.links()[l].bandwidth + of_stage[l].to_end);
    return end_ * kRounding;
  }

 private:
  template <class Visit>
  void for_each_message(const Phase& phase, Rank s, Visit&& visit) const {
    if (phase.row_bytes > 0)
      for (const RowTable::Entry& e : phase.rows.from(s)) visit(e.destination, static_cast<double>(e.rows * phase.row_bytes));
  }

  // after_[p][r]: what must still pass between the moment that r is done with p and the end of the schedule, and after_sent_[p][r] from the moment that what r sends in p has arrived.
  // Phases behind p are known; gives its share to the phases before p.
  void look_back(std::size_t p) {
    const Phase& phase = schedule_.phases[p];
    for (const Rank r : ids<Rank>(schedule_.ranks)) {
      const double sent = after_sent_[p].empty() ? 0 : after_sent_[p][r];
      double rest = std::max(after_[p][r], sent);
      if (phase.kind == Phase::Kind::kernel) rest += compute_[p][r];
      if (phase.kind == Phase::Kind::transfer)
        for_each_message(phase, r, [&](Rank d, double bytes) {
          double alone = 0;
          for (const Crossing& c : way(r, d)) alone = std::max(alone, bytes * c.share / topology_.links()[c.link].bandwidth + (c.before + c.after).seconds());
          rest = std::max(rest, alone + std::max(after_[p][d], sent));
        });
      for (const int before : phase.after_sent) after_sent_[before][r] = std::max(after_sent_[before][r], rest);
      for (const int before : phase.after) after_[before][r] = std::max(after_[before][r], rest);
    }
  }

  // begin_[p][r] and done_[p][r]: the earliest that r can begin p and be done with it.
  void look_ahead(std::size_t p) {
    const Phase& phase = schedule_.phases[p];
    for (const Rank r : ids<Rank>(schedule_.ranks)) {
      for (const int before : phase.after) begin_[p][r] = std::max(begin_[p][r], done_[before][r]);
      for (const int before : phase.after_sent) begin_[p][r] = std::max(begin_[p][r], sent_[before][r]);
      if (!sent_[p].empty()) sent_[p][r] = begin_[p][r];
      done_[p][r] = begin_[p][r] + (phase.kind == Phase::Kind::kernel ? compute_[p][r] : 0);
    }
    if (phase.kind == Phase::Kind::transfer) transfer(p);
    for (const Rank r : ids<Rank>(schedule_.ranks)) end_ = std::max(end_, done_[p][r] + after_[p][r]);
  }

  void transfer(std::size_t p) {
    const Phase& phase = schedule_.phases[p];
    const std::span<const Link> links = topology_.links();
    std::vector<LinkLoad> loads(links.size());
    std::vector<Rank> sources;
    for (const Rank r : ids<Rank>(schedule_.ranks)) sources.push_back(r);
    std::stable_sort(sources.begin(), sources.end(), [&](Rank a, Rank b) { return begin_[p][a] > begin_[p][b]; });
    for (const Rank s : sources) {
      const double begun = begin_[p][s];
      for_each_message(phase, s, [&](Rank d, double bytes) {
        for (const Crossing& c : way(s, d)) {
          LinkLoad& load = loads[c.link];
          const double crossing = bytes * c.share, downstream = c.after.seconds();
          load.destination = load.bytes == 0 || load.destination == d ? d : Rank();
          load.bytes += crossing;
          load.ready = begun;
          load.upstream = std::min(load.upstream, c.before.seconds());
          load.downstream = std::min(load.downstream, downstream);
          load.to_end = std::min(load.to_end, downstream + after_[p][d]);
          const double alone = begun + crossing / links[c.link].bandwidth + (c.before + c.after).seconds();
          done_[p][d] = std::max(done_[p][d], alone);
          if (!sent_[p].empty()) sent_[p][s] = std::max(sent_[p][s], alone);
        }
      });
      // What begins no earlier than `begun` has to pass after it.
      topology_links_of(phase, s, [&](std::int32_t l) { loads[l].carried = std::max(loads[l].carried, loads[l].ready + loads[l].upstream + loads[l].bytes / links[l].bandwidth); });
    }
    std::vector<LinkTotal>& totals = totals_[static_cast<std::size_t>(phase.stage)];
    totals.resize(links.size());
    for (const LinkLoad& load : loads) {
      const std::size_t l = static_cast<std::size_t>(&load - loads.data());
      if (load.bytes == 0) continue;
      LinkTotal& total = totals[l];
      total.bytes += load.bytes;
      total.ready = std::min(total.ready, load.ready);
      total.upstream = std::min(total.upstream, load.upstream);
      total.to_end = std::min(total.to_end, load.to_end);
      if (load.destination.valid()) done_[p][load.destination] = std::max(done_[p][load.destination], load.carried + load.downstream);
      end_ = std::max(end_, load.carried + load.to_end);
    }
  }

  /// A link that bytes cross on their way: their share, and the shortest times to the link and from its beginning to the end.
  struct Crossing {
    std::int32_t link = 0;
    double share = 0;
    Time before, after;
  };
  std::span<const Crossing> way(Rank s, Rank d) {
    const std::span<const Link> links = topology_.links();
    way_.clear();
    topology_.for_each_share(s, d, [&](std::int32_t l, double share) { way_.push_back({l, share, {}, {}}); });
    // Links come after all links before them.
    reach_.resize(topology_.vertices().size());
    for (const Crossing& c : way_) reach_[links[c.link].to] = Time::never();
    reach_[links[way_.front().link].from] = {};
    for (Crossing& c : way_) {
      c.before = reach_[links[c.link].from];
      reach_[links[c.link].to] = std::min(reach_[links[c.link].to], c.before + links[c.link].latency);
    }
    const std::int32_t end = links[way_.back().link].to;
    for (const Crossing& c : way_) reach_[links[c.link].from] = Time::never();
    reach_[end] = {};
    for (std::size_t i = way_.size(); i-- > 0;) {
      Crossing& c = way_[i];
      c.after = reach_[links[c.link].to] + links[c.link].latency;
      reach_[links[c.link].from] = std::min(reach_[links[c.link].from], c.after);
    }
    return way_;
  }

  template <class Visit>
  void topology_links_of(const Phase& phase, Rank s, Visit&& visit) const {
    for_each_message(phase, s, [&](Rank d, double) { topology_.for_each_link(s, d, visit); });
  }

  // A rank computes one kernel at a time, also where phases do not wait for each other.
  void one_at_a_time(Rank r) {
    double first = kNever, work = 0, rest = kNever;
    for (std::size_t p = 0; p < compute_.size(); ++p) {
      if (compute_[p].empty() || compute_[p][r] == 0) continue;
      first = std::min(first, begin_[p][r]);
      work += compute_[p][r];
      rest = std::min(rest, after_[p][r]);
    }
    if (work > 0) end_ = std::max(end_, first + work + rest);
  }

  const Schedule& schedule_;
  const Topology& topology_;
  std::vector<std::vector<double>> compute_;              // [phases][R] seconds of a kernel phase
  std::vector<std::vector<double>> after_, begin_, done_;  // [phases][R]
  std::vector<std::vector<double>> after_sent_, sent_;     // [phases][R] of transfers that others wait for to be sent
  std::vector<Crossing> way_;
  std::vector<Time> reach_;  // [V]
  std::array<std::vector<LinkTotal>, 3> totals_;           // [stages][links]
  double end_ = 0;
};

}  // namespace

double lower_bound(const Schedule& schedule, const Topology& topology, const KernelCost& cost) { return Bound(schedule, topology, cost).run(); }

}  // namespace epsim
