// network_run CLUSTER NETWORK BYTES TIMES: all messages of a matrix of bytes begin at 0 on a network; writes when each arrives.
// CLUSTER and NETWORK are YAML, as in an experiment file; BYTES and TIMES are files of doubles [source][destination]. Nothing but the library's network and topology takes part: no engine.
// Exit status 2 where the library does not know what CLUSTER or NETWORK say.
#include <malloc.h>
#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <exception>

#include "bench/doubles.h"
#include "sim/network/network.h"

namespace epsim {
namespace {

template <class Catalog>
auto part(const Catalog& catalog, const char* name, const char* yaml) {
  Diagnostics problems;
  auto made = catalog.make(parse_yaml(std::make_shared<SourceText>(SourceText{name, yaml})), problems);
  problems.check();
  return made;
}

void run(char** argument) {
  const Topology topology = part(builtin_clusters(), "CLUSTER", argument[0]);
  const NetworkModel model = part(builtin_networks(), "NETWORK", argument[1]);
  std::vector<double> cells = bench::read_doubles(argument[2]);
  const int n = bench::ranks_of(cells);
  if (n != topology.ranks()) throw std::runtime_error("the cluster has another number of ranks than the matrix");

  const std::unique_ptr<Network> network = model.make(topology);
  std::vector<Flow> flows;  // of one rank
  for (const Rank s : ids<Rank>(n)) {
    flows.clear();
    for (const Rank d : ids<Rank>(n)) {
      double& cell = cells[static_cast<std::size_t>(s) * static_cast<std::size_t>(n) + static_cast<std::size_t>(d)];
      if (s != d && cell > 0) flows.push_back({&cell - cells.data(), s, d, cell});
      cell = 0;
    }
    network->start(flows, 0);
  }
  std::vector<Network::Arrival> arrived;
  for (double next; (next = network->next_event()) < std::numeric_limits<double>::infinity();) {
    network->advance(next, arrived);
    for (const Network::Arrival& a : arrived) cells[static_cast<std::size_t>(a.id)] = a.at;
    arrived.clear();
  }
  bench::write_doubles(argument[3], cells);
}

/// Has the heap's next `bytes` come in large pages where the system has them, as their first touch is dear otherwise.
void large_pages(std::size_t bytes) {
  void* heap = std::malloc(bytes);
  madvise(reinterpret_cast<void*>((reinterpret_cast<std::uintptr_t>(heap) + 4095) & ~std::uintptr_t{4095}), bytes - 4096, MADV_HUGEPAGE);
  std::free(heap);
}

}  // namespace
}  // namespace epsim

int main(int count, char** argument) {
  if (count != 5) {
    std::fputs("usage: network_run CLUSTER NETWORK BYTES TIMES\n", stderr);
    return 2;
  }
  // One thread, as SimGrid has; and memory that was once used is used again before the system is asked for more, whose first touch is most of what a small network takes.
  setenv("EPSIM_THREADS", "1", 1);
  mallopt(M_MMAP_THRESHOLD, 1 << 30);
  mallopt(M_TRIM_THRESHOLD, 1 << 30);
  mallopt(M_TOP_PAD, 1 << 20);
  epsim::large_pages(std::size_t{64} << 20);
  try {
    epsim::run(argument + 1);
    return 0;
  } catch (const epsim::InputError& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 2;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "network_run: %s\n", e.what());
    return 1;
  }
}
