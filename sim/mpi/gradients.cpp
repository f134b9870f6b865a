#include "sim/mpi/gradients.h"

#include <algorithm>

#include "sim/moe/expert_rows.h"
#include "sim/moe/vectors.h"

namespace epsim {
namespace {

constexpr int kTag = 0;  // both ends walk their messages in one order, and MPI keeps it

/// The processes that host an expert's slots, each once, in slot order: the first of them adds.
std::vector<int> holders(const Hosts& hosts, const Placement& placement, const std::vector<Slot>& slots) {
  std::vector<int> processes;
  for (const Slot slot : slots)
    if (const int p = hosts.process_of(placement.rank_of(slot)); std::ranges::find(processes, p) == processes.end()) processes.push_back(p);
  return processes;
}

}  // namespace

void bring_home(World& world, const Hosts& hosts, const Plan& plan, std::vector<float>& d_weight) {
  const std::int64_t k = plan.routing.top_k;
  std::vector<int> process_of_slot;
  for (const Slot s : ids<Slot>(plan.placement.slots())) process_of_slot.push_back(hosts.process_of(plan.placement.rank_of(s)));
  // By peer, in choice order at both ends.
  std::vector<std::vector<float>> leaving(static_cast<std::size_t>(world.size())), coming(leaving.size());
  std::vector<std::vector<std::int64_t>> places(leaving.size());
  for (const Rank home : ids<Rank>(plan.ranks())) {
    const int here = hosts.process_of(home);
    for (std::int64_t c = plan.routing.first_token[home] * k; c < plan.routing.first_token[home + 1] * k; ++c) {
      const std::int32_t slot = plan.slot[static_cast<std::size_t>(c)];
      if (slot < 0) continue;
      const int there = process_of_slot[static_cast<std::size_t>(slot)];
      if (here == there) continue;
      if (there == world.rank()) leaving[static_cast<std::size_t>(here)].push_back(d_weight[static_cast<std::size_t>(c)]);
      if (here == world.rank()) places[static_cast<std::size_t>(there)].push_back(c);
    }
  }
  World::Requests requests;
  for (std::size_t p = 0; p < places.size(); ++p) {
    coming[p].resize(places[p].size());
    if (!coming[p].empty()) requests.receive(coming[p], static_cast<int>(p), kTag);
    if (!leaving[p].empty()) requests.send(leaving[p], static_cast<int>(p), kTag);
  }
  requests.wait();
  for (std::size_t p = 0; p < places.size(); ++p)
    for (std::size_t i = 0; i < places[p].size(); ++i) d_weight[static_cast<std::size_t>(places[p][i])] = coming[p][i];
}

std::vector<std::vector<float>> add_slots(World& world, const Hosts& hosts, const Plan& plan, std::size_t size, const std::function<std::vector<float>(Slot)>& of_slot) {
  const std::vector<std::vector<Slot>>& slots = plan.placement.slots_of_expert;
  std::vector<std::vector<std::vector<float>>> parts(slots.size());  // [E][slots]
  {
    World::Requests requests;
    for (std::size_t e = 0; e < slots.size(); ++e) {
      const int adds = holders(hosts, plan.placement, slots[e]).front();
      parts[e].resize(slots[e].size());
      for (std::size_t i = 0; i < slots[e].size(); ++i) {
        const int process = hosts.process_of(plan.placement.rank_of(slots[e][i]));
        if (process == world.rank()) parts[e][i] = of_slot(slots[e][i]);
        if (process == world.rank() && adds != world.rank()) requests.send(parts[e][i], adds, kTag);
        if (process != world.rank() && adds == world.rank()) parts[e][i].resize(size), requests.receive(parts[e][i], process, kTag);
      }
    }
    requests.wait();
  }
  std::vector<std::vector<float>> sums(slots.size());
  World::Requests requests;
  for (std::size_t e = 0; e < slots.size(); ++e) {
    const std::vector<int> processes = holders(hosts, plan.placement, slots[e]);
    if (processes.front() == world.rank()) {
      sums[e] = add_replicas(parts[e]);
      for (std::size_t i = 1; i < processes.size(); ++i) requests.send(sums[e], processes[i], kTag);
    } else if (std::ranges::find(processes, world.rank()) != processes.end()) {
      sums[e].resize(size);
      requests.receive(sums[e], processes.front(), kTag);
    }
  }
  requests.wait();
  return sums;
}

void gather_experts(World& world, const Hosts& hosts, const Plan& plan, std::size_t size, std::vector<std::vector<float>>& experts) {
  World::Requests requests;
  for (std::size_t e = 0; e < experts.size(); ++e) {
    const std::vector<int> processes = holders(hosts, plan.placement, plan.placement.slots_of_expert[e]);
    if (std::ranges::find(processes, 0) != processes.end()) continue;
    if (processes.front() == world.rank()) requests.send(experts[e], 0, kTag);
    if (world.root()) experts[e].resize(size), requests.receive(experts[e], processes.front(), kTag);
  }
  requests.wait();
}

std::vector<float> add_ranks(World& world, std::vector<std::vector<float>> parts) {
  const int last = world.size() - 1;
  std::vector<float> sum(parts.front().size());
  if (!world.root()) {
    World::Requests before;
    before.receive(sum, world.rank() - 1, kTag);
    before.wait();
  }
  for (std::size_t i = 0; i < parts.size(); ++i) {
    if (world.root() && i == 0)
      sum = std::move(parts[0]);
    else
      add_to(sum.data(), parts[i].data(), static_cast<std::int64_t>(sum.size()));
  }
  World::Requests after;
  if (world.rank() < last) {
    after.send(sum, world.rank() + 1, kTag);
    after.wait();
    after.receive(sum, last, kTag);
  } else {
    for (int p = 0; p < last; ++p) after.send(sum, p, kTag);
  }
  after.wait();
  return sum;
}

}  // namespace epsim
