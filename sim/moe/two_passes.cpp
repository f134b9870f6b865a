#include "sim/moe/two_passes.h"

#include <numeric>

#include "base/check.h"

namespace epsim {
namespace {

/// The place in [T][k] of each row of a slot whose token is known. Of a token that chose an expert twice the rows come in choice order.
std::vector<std::int64_t> choices_of_rows(const Plan& plan, Slot slot, std::span<const float> tokens) {
  const std::int64_t k = plan.routing.top_k;
  std::map<std::int64_t, std::int64_t> next;  // choice to look at, by token
  std::vector<std::int64_t> places;
  for (const float number : tokens) {
    ensure(number >= 0 && number < static_cast<float>(plan.routing.tokens()), "a row of a call is a token's");
    const auto token = static_cast<std::int64_t>(number);
    std::int64_t& c = next.try_emplace(token, token * k).first->second;
    while (c < (token + 1) * k && plan.slot[static_cast<std::size_t>(c)] != slot) ++c;
    ensure(c < (token + 1) * k, "a row of a slot is a choice of its token");
    places.push_back(c++);
  }
  return places;
}

}  // namespace

CallWork TwoPasses::forward() {
  return [this](const PlayedCall& call, std::span<const float> in, std::span<float> out) {
    Kept& mine = kept(call);
    mine.slot = call.slot;
    mine.rows.forward(experts_, expert_of(call, plan_.placement), in, out);
  };
}

CallWork TwoPasses::number() {
  return [this](const PlayedCall& call, std::span<const float> in, std::span<float>) {
    std::vector<std::int64_t>& place = kept(call).rows.place;
    place.clear();
    if (call.slot.valid())
      place = choices_of_rows(plan_, call.slot, in);
    else
      for (const float token : in) place.push_back(static_cast<std::int64_t>(token));
  };
}

CallWork TwoPasses::backward() {
  return [this](const PlayedCall& call, std::span<const float> in, std::span<float> out) { kept(call).rows.backward(experts_, expert_of(call, plan_.placement), in, out); };
}

std::vector<float> TwoPasses::of_slot(Slot slot) const {
  std::vector<const ExpertRows*> rows;
  for (const auto& [key, call] : calls_)
    if (call.slot.valid() && call.slot == slot) rows.push_back(&call.rows);
  return weight_gradients(experts_.shape(plan_.placement.expert_of_slot[slot]), rows, plan_.routing.weight);
}

std::vector<float> TwoPasses::of_shared(Rank rank) const {
  std::vector<const ExpertRows*> rows;
  for (const auto& [key, call] : calls_)
    if (!call.slot.valid() && std::get<0>(key) == rank) rows.push_back(&call.rows);
  return weight_gradients(experts_.shape(kSharedExpert), rows, {});
}

void TwoPasses::write_d_weight(std::span<float> d_weight) const {
  for (const auto& [key, call] : calls_)
    for (std::size_t i = 0; call.slot.valid() && i < call.rows.place.size(); ++i) d_weight[static_cast<std::size_t>(call.rows.place[i])] = call.rows.d_weight[i];
}

std::vector<float> token_numbers(const Plan& plan, Rank rank) {
  std::vector<float> numbers(static_cast<std::size_t>(plan.routing.first_token[rank + 1] - plan.routing.first_token[rank]));
  std::iota(numbers.begin(), numbers.end(), static_cast<float>(plan.routing.first_token[rank]));
  return numbers;
}

}  // namespace epsim
