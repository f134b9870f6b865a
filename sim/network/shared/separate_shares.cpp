#include "sim/network/shared/separate_shares.h"

#include <numeric>

#include "base/check.h"

namespace epsim {
namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();

/// The link that holds a flow back, and the capacity it has for each of its flows.
struct Holder {
  double share = kNever;
  std::int32_t link = 0;
};

/// Which link holds each flow of a batch back.
class Holders {
 public:
  Holders(const Topology& topology, const Curve& incast, const std::vector<RankPair>& flows)
      : topology_(topology), incast_(incast), paths_(topology), crossing_(topology.links().size()) {
    std::vector<std::uint32_t> on_tail;
    for (const RankPair& pair : flows) {
      if (const std::int32_t out = paths_.way_out(pair.source); out == Paths::kMany) {
        count(paths_(pair.source, pair.destination), 1);
      } else {
        ++crossing_[static_cast<std::size_t>(out)];
        const Paths::Tail t = paths_.tail(pair.source, pair.destination);
        if (t >= on_tail.size()) on_tail.resize(t + 1);
        ++on_tail[t];
      }
    }
    for (Paths::Tail t = 0; t < on_tail.size(); ++t) count(paths_.hops(t), on_tail[t]);
    for (Paths::Tail t = 0; t < on_tail.size(); ++t) of_tail_.push_back(least(paths_.hops(t)));
  }

  bool whole() const { return whole_; }  ///< no flow is spread over several paths
  std::uint32_t crossing(std::size_t link) const { return crossing_[link]; }
  double share(std::size_t link) const {
    const Link& l = topology_.links()[link];
    const double all = l.bandwidth / crossing_[link];
    return incast_.flat() || !topology_.vertices()[static_cast<std::size_t>(l.to)].rank.valid() ? all : all * incast_(crossing_[link]);
  }
  Holder operator()(RankPair pair) {
    const std::int32_t out = paths_.way_out(pair.source);
    if (out == Paths::kMany) return least(paths_(pair.source, pair.destination));
    if (out != out_) {
      out_ = out;
      first_ = {share(static_cast<std::size_t>(out)), out};
    }
    const Holder& rest = of_tail_[paths_.tail(pair.source, pair.destination)];
    return first_.share < rest.share ? first_ : rest;
  }

 private:
  void count(std::span<const Paths::Hop> hops, std::uint32_t flows) {
    for (const auto& [link, part] : hops) {
      crossing_[static_cast<std::size_t>(link)] += flows;
      whole_ = whole_ && part == 1;
    }
  }
  // Of several the last: sizes that depend on the destination then end together.
  Holder least(std::span<const Paths::Hop> hops) const {
    Holder h;
    for (const auto& [link, part] : hops)
      if (const double s = share(static_cast<std::size_t>(link)); s <= h.share) h = {s, link};
    return h;
  }

  const Topology& topology_;
  const Curve& incast_;
  Paths paths_;
  std::vector<std::uint32_t> crossing_;  // [links] flows
  std::vector<Holder> of_tail_;          // [tails]
  bool whole_ = true;
  std::int32_t out_ = Paths::kMany;      // of the last flow asked for
  Holder first_;
};

}  // namespace

bool SeparateShares::begin(FlowBatch& batch, double now) {
  ensure(idle(), "flows that keep apart begin on an idle network");
  if (!batch.weights.empty()) return false;
  const std::size_t flows = batch.size(), links = topology_.links().size();
  Holders holder(topology_, incast_, batch.pairs);
  if (!holder.whole()) return false;
  struct Held {
    std::uint32_t flows = 0;
    double bytes = 0;  // of each
  };
  std::vector<Held> held(links);
  for (std::size_t f = 0; f < flows; ++f) {
    Held& h = held[static_cast<std::size_t>(holder(batch.pairs[f]).link)];
    if (h.flows++ == 0) h.bytes = batch.bytes[f];
    if (h.bytes != batch.bytes[f]) return false;
  }
  std::vector<std::size_t> holders;  // in the order in which their flows end
  for (std::size_t l = 0; l < links; ++l) {
    if (held[l].flows == 0) continue;
    if (held[l].flows != holder.crossing(l)) return false;
    holders.push_back(l);
  }
  const auto end_of = [&](std::size_t link) { return now + held[link].bytes / holder.share(link); };
  std::stable_sort(holders.begin(), holders.end(), [&](std::size_t a, std::size_t b) { return end_of(a) < end_of(b); });
  for (const std::size_t l : holders) {
    const Group g{end_of(l), holder.share(l), held[l].flows};
    if (!groups_.empty() && groups_.back().end == g.end && groups_.back().rate == g.rate)
      groups_.back().last += g.last;
    else
      groups_.push_back({g.end, g.rate, g.last + (groups_.empty() ? 0 : groups_.back().last)});
  }
  if (groups_.size() > 1) {
    std::vector<std::uint32_t> next(links);  // where the next flow of a link comes in the order
    std::uint32_t place = 0;
    for (const std::size_t l : holders) {
      next[l] = place;
      place += held[l].flows;
    }
    order_.resize(flows);
    for (std::size_t f = 0; f < flows; ++f) order_[next[static_cast<std::size_t>(holder(batch.pairs[f]).link)]++] = static_cast<std::uint32_t>(f);
  }
  ids_ = std::move(batch.ids);
  pairs_ = std::move(batch.pairs);
  batch = {};
  return true;
}

void SeparateShares::leave(double now, FlowBatch& batch) {
  for (; current_ < groups_.size(); ++current_)
    for (const Group& g = groups_[current_]; next_ < g.last; ++next_) {
      const std::size_t f = flow_at(next_);
      batch.add(ids_[f], pairs_[f], g.rate * std::max(0.0, g.end - now));
    }
  clear();
}

void SeparateShares::clear() {
  ids_.clear();
  pairs_.clear();
  order_.clear();
  groups_.clear();
  current_ = next_ = 0;
}

}  // namespace epsim
