#include "cli/play_all.h"

#include <unistd.h>

#include <cstdio>
#include <map>
#include <memory>
#include <mutex>

#include <fmt/format.h>

#include "base/parallel.h"

namespace epsim {
namespace {

/// Equal for experiments whose tokens make the same choices.
std::string routing_key(const Experiment& e) {
  std::string key = fmt::format("{} {}", e.seed, e.topology.ranks());
  for (const char* part : {"model", "source", "router", "compression", "execute", "layers", "batches", "fit", "eval"})
    if (const Setting* setting = e.resolved.find(part)) key += fmt::format("\n{}: {}", part, to_yaml(*setting));
  if (e.capacity.order == Capacity::Order::priority) key += "\nwith priorities";
  if (e.capacity.overflow == Capacity::Overflow::next_best) key += "\n" + e.part("capacity");  // it chooses, too
  return key;
}

/// Says how far it is, on one line of a terminal.
class Progress {
 public:
  explicit Progress(std::size_t steps) : steps_(steps), shown_(::isatty(STDERR_FILENO) != 0) { say(); }
  ~Progress() {
    if (shown_) std::fprintf(stderr, "\r\033[K");
  }
  void step() {
    const std::lock_guard lock(mutex_);
    ++done_;
    say();
  }

 private:
  void say() const {
    if (shown_) std::fprintf(stderr, "\r%zu of %zu layers simulated", done_, steps_);
  }
  std::mutex mutex_;
  std::size_t steps_, done_ = 0;
  bool shown_;
};

}  // namespace

std::vector<RunMetrics> play_all(const std::vector<Experiment>& experiments) {
  std::map<std::string, std::vector<std::size_t>> same_choices;
  std::size_t steps = 0;
  for (std::size_t i = 0; i < experiments.size(); ++i) {
    same_choices[routing_key(experiments[i])].push_back(i);
    steps += experiments[i].layers.size() * static_cast<std::size_t>(experiments[i].eval.count());
  }
  std::vector<RunMetrics> metrics(experiments.size());
  Progress progress(steps);
  for (const auto& [key, members] : same_choices) {
    const Experiment& first = experiments[members.front()];
    std::vector<std::unique_ptr<Run>> runs;
    std::vector<MachineCuts> cuts;
    std::vector<Run*> shown;
    for (const std::size_t m : members) shown.push_back(runs.emplace_back(std::make_unique<Run>(experiments[m])).get());
    for (const std::size_t m : members) cuts.push_back(cuts_of(experiments[m].topology, experiments[m].exchange));
    fit(first, shown);
    Routing routing = first.routing();
    for (int batch = first.eval.first; batch < first.eval.last; ++batch)
      for (std::size_t l = 0; l < first.layers.size(); ++l) {
        route_layer(first, batch, first.layers[l], 0, first.topology.ranks(), routing);
        parallel_for(static_cast<std::int64_t>(members.size()), [&](std::int64_t m) {
          metrics[members[m]].add(measure(experiments[members[m]], runs[m]->play(batch, l, routing, Timeline::Detail::rank), cuts[m]));
          progress.step();
        });
      }
    for (std::size_t m = 0; m < members.size(); ++m) metrics[members[m]].placing_s = runs[m]->placing_seconds();
  }
  return metrics;
}

}  // namespace epsim
