#include "policies/capacity/shared/factor.h"

#include <algorithm>
#include <cmath>

namespace epsim {
namespace {

using Wide = unsigned __int128;
constexpr std::int64_t kMost = 1'000'000'000'000'000;  // larger than any number of choices: no limit

struct Quotient {
  Wide whole, rest, down;
};

Quotient divide(const Factor& f, std::int64_t num, std::int64_t den, std::int64_t times) {
  const Wide up = static_cast<Wide>(num) * static_cast<Wide>(times) * static_cast<Wide>(f.factor.num), down = static_cast<Wide>(den) * static_cast<Wide>(f.factor.den);
  return {up / down, up % down, down};
}

std::int64_t bounded(Wide w) { return static_cast<std::int64_t>(std::min<Wide>(w, kMost)); }

double product(const Factor& f, std::int64_t num, std::int64_t den, std::int64_t times) {
  const double quotient = static_cast<double>(num) / static_cast<double>(den), factor = f.factor.value() * static_cast<double>(times);
  const double product = f.arithmetic == Factor::Arithmetic::float32 ? static_cast<double>(static_cast<float>(quotient) * static_cast<float>(factor)) : quotient * factor;
  return std::min(product, static_cast<double>(kMost));
}

}  // namespace

std::int64_t Factor::down(std::int64_t num, std::int64_t den, std::int64_t times) const {
  return arithmetic == Arithmetic::exact ? bounded(divide(*this, num, den, times).whole) : static_cast<std::int64_t>(product(*this, num, den, times));
}

std::int64_t Factor::up(std::int64_t num, std::int64_t den, std::int64_t times) const {
  if (arithmetic != Arithmetic::exact) return static_cast<std::int64_t>(std::ceil(product(*this, num, den, times)));
  const Quotient q = divide(*this, num, den, times);
  return bounded(q.whole + (q.rest > 0));
}

std::int64_t Factor::nearest(std::int64_t num, std::int64_t den, std::int64_t times) const {
  if (arithmetic != Arithmetic::exact) return static_cast<std::int64_t>(std::nearbyint(product(*this, num, den, times)));  // the default mode: halves to even
  const Quotient q = divide(*this, num, den, times);
  const Wide twice = 2 * q.rest;
  return bounded(q.whole + (twice > q.down || (twice == q.down && q.whole % 2 == 1)));
}

Factor read_factor(Params& p, std::string_view help, const std::vector<std::string>& modes, std::optional<Rational> fallback) {
  Factor f;
  f.factor = p.rational("factor", help, fallback);
  const std::string mode = p.choice("arithmetic", "of the capacity: as the framework rounds (the default), in double or single precision, or with the factor as a fraction", modes, modes.front());
  f.arithmetic = mode == "double" ? Factor::Arithmetic::float64 : mode == "float32" ? Factor::Arithmetic::float32 : Factor::Arithmetic::exact;
  return f;
}

void read_overflow(Capacity& capacity, Params& p) {
  const std::string name = p.choice("overflow",
                                    "what becomes of a choice that does not fit: it is dropped; its token's next best expert with room takes it; another replica of its expert does, and else it is dropped, or the next best expert takes it; it is dropped, and experts "
                                    "with fewer compute empty rows up to their capacity (pad); so, and each rank sends empty rows up to its share of the capacity (dense); or it is kept all the same",
                                    {"drop", "next_best", "other_replica", "other_replica_or_next_best", "pad", "dense", "none"}, "drop");
  capacity.overflow = name == "next_best"       ? Capacity::Overflow::next_best
                      : name == "other_replica" ? Capacity::Overflow::other_replica
                      : name == "other_replica_or_next_best" ? Capacity::Overflow::other_replica_or_next_best
                      : name == "none"          ? Capacity::Overflow::none
                                                : Capacity::Overflow::drop;
  capacity.dense = name == "dense";
  capacity.pad = name == "pad" || capacity.dense;
}

void check_order(const Capacity& capacity, Params& p, const Shape* shape) {
  const bool by_weight = capacity.order == Capacity::Order::probability || capacity.order == Capacity::Order::priority;
  if (by_weight && shape && shape->source_has_choices && !shape->source_has_weights)
    p.error("order", "the source has no weights to order choices by; give `order: position` or a source with weights");
  const bool other_expert = capacity.overflow == Capacity::Overflow::next_best || capacity.overflow == Capacity::Overflow::other_replica_or_next_best;
  if (other_expert && shape && shape->source_has_choices)
    p.error("overflow", "the source brings ready choices and no scores: there is no next best expert");
}

void check_group(Capacity& capacity, Params& p) {
  if (capacity.group <= 0) return;
  capacity.scope = Capacity::Scope::group;
  if (capacity.by_replica()) p.error("overflow", "replicas of an expert hold for a source rank: take `group: 0`");
}

}  // namespace epsim
