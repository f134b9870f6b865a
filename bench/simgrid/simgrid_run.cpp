// simgrid_run PLATFORM BYTES TIMES [--cfg=...]: what network_run does, by SimGrid 3.32 (S4U, flow level). BYTES and TIMES are files of doubles [source][destination].
// PLATFORM is one of
//   star:N:BANDWIDTH:LATENCY      a full-duplex link from each host to one switch
//   fat_tree:N:BANDWIDTH:LATENCY  two levels, 16 hosts a leaf, 16 spines, one cable from each leaf to each spine; SimGrid's routes are D-mod-k
//   a file of routes              binary: int32 counts of hosts and links; for each link double bandwidth (bytes/s) and latency (s);
//                                 then for each pair of hosts [source][destination] int32 number of links and their int32 numbers, none for a pair without messages
// Of SimGrid's ways to start messages, an actor a host that sends and receives by mailboxes is the fastest by far where many are under way.
#include <simgrid/s4u.hpp>

#include <fstream>
#include <iostream>
#include <stdexcept>
#include <string>
#include <vector>

#include "bench/doubles.h"

namespace {

namespace s4u = simgrid::s4u;

constexpr unsigned long kPerLeaf = 16, kSpines = 16;
constexpr double kSpeed = 1e9;  // of a host; nothing is computed

std::vector<s4u::Host*> star(unsigned long hosts, double bandwidth, double latency) {
  s4u::NetZone* zone = s4u::create_star_zone("star");
  std::vector<s4u::Host*> out;
  for (unsigned long i = 0; i < hosts; ++i) {
    s4u::Host* host = zone->create_host("h" + std::to_string(i), kSpeed);
    const s4u::Link* link = zone->create_split_duplex_link("l" + std::to_string(i), bandwidth)->set_latency(latency)->seal();
    zone->add_route(host->get_netpoint(), nullptr, nullptr, nullptr, {{link, s4u::LinkInRoute::Direction::UP}}, true);
    out.push_back(host);
  }
  zone->seal();
  return out;
}

std::vector<s4u::Host*> fat_tree(unsigned long hosts, double bandwidth, double latency) {
  if (hosts % kPerLeaf) throw std::runtime_error("a fat tree has a whole number of leaves of 16 hosts");
  std::vector<s4u::Host*> out(hosts);
  const auto host = [&](s4u::NetZone* zone, const std::vector<unsigned long>&, unsigned long id) {
    out[id] = zone->create_host("h" + std::to_string(id), kSpeed)->seal();
    return std::pair<simgrid::kernel::routing::NetPoint*, simgrid::kernel::routing::NetPoint*>(out[id]->get_netpoint(), nullptr);
  };
  s4u::create_fatTree_zone("fat_tree", nullptr, {2, {kPerLeaf, static_cast<unsigned>(hosts / kPerLeaf)}, {1, kSpines}, {1, 1}}, {host, {}, {}}, bandwidth, latency,
                           s4u::Link::SharingPolicy::SPLITDUPLEX)
      ->seal();
  return out;
}

template <class T>
T next(std::istream& in) {
  T value;
  if (!in.read(reinterpret_cast<char*>(&value), sizeof value)) throw std::runtime_error("the file of routes ends too early");
  return value;
}

std::vector<s4u::Host*> routes(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  const auto hosts = next<int>(in), links = next<int>(in);
  s4u::NetZone* zone = s4u::create_full_zone("routes");
  std::vector<s4u::Host*> out;
  for (int i = 0; i < hosts; ++i) out.push_back(zone->create_host("h" + std::to_string(i), kSpeed)->seal());
  std::vector<s4u::LinkInRoute> link;
  for (int l = 0; l < links; ++l) {
    const auto bandwidth = next<double>(in), latency = next<double>(in);
    link.emplace_back(zone->create_link("l" + std::to_string(l), bandwidth)->set_latency(latency)->seal());
  }
  for (int s = 0; s < hosts; ++s)
    for (int d = 0; d < hosts; ++d) {
      std::vector<s4u::LinkInRoute> route;
      for (int hops = next<int>(in); hops > 0; --hops) route.push_back(link.at(static_cast<std::size_t>(next<int>(in))));
      if (!route.empty()) zone->add_route(out[static_cast<std::size_t>(s)]->get_netpoint(), out[static_cast<std::size_t>(d)]->get_netpoint(), nullptr, nullptr, route, false);
    }
  zone->seal();
  return out;
}

std::vector<s4u::Host*> platform(const std::string& text) {
  const bool is_star = text.rfind("star:", 0) == 0, is_tree = text.rfind("fat_tree:", 0) == 0;
  if (!is_star && !is_tree) return routes(text);
  std::size_t at = text.find(':') + 1, used = 0;
  const unsigned long hosts = std::stoul(text.substr(at), &used);
  const double bandwidth = std::stod(text.substr(at += used + 1), &used), latency = std::stod(text.substr(at + used + 1));
  return is_star ? star(hosts, bandwidth, latency) : fat_tree(hosts, bandwidth, latency);
}

/// Sends the whole row of `self` at once, in the order self + 1, self + 2, ..., receives its column, and overwrites the row with the times of the ends.
void exchange(std::size_t self, std::size_t n, std::vector<double>& cells, const std::vector<s4u::Mailbox*>& mailboxes) {
  static int nothing = 0;
  std::vector<s4u::CommPtr> all, sent(n);
  std::vector<void*> received(n);
  all.reserve(2 * n);
  for (std::size_t k = 1; k < n; ++k)
    if (cells[(self + k) % n * n + self] > 0) all.push_back(mailboxes[self]->get_async<void>(&received[k]));
  for (std::size_t k = 1; k < n; ++k) {
    const std::size_t d = (self + k) % n;
    if (cells[self * n + d] > 0) all.push_back(sent[d] = mailboxes[d]->put_async(&nothing, static_cast<std::uint64_t>(cells[self * n + d])));
  }
  for (const s4u::CommPtr& c : all) c->wait();
  for (std::size_t d = 0; d < n; ++d) cells[self * n + d] = sent[d] ? sent[d]->get_finish_time() : 0;
}

void run(s4u::Engine& engine, char** argument) {
  const std::vector<s4u::Host*> hosts = platform(argument[0]);
  std::vector<double> cells = epsim::bench::read_doubles(argument[1]);
  const std::size_t n = hosts.size();
  if (cells.size() != n * n) throw std::runtime_error("the platform has another number of hosts than the matrix");
  std::vector<s4u::Mailbox*> mailboxes;
  for (std::size_t i = 0; i < n; ++i) mailboxes.push_back(s4u::Mailbox::by_name("m" + std::to_string(i)));
  for (std::size_t i = 0; i < n; ++i) s4u::Actor::create("a" + std::to_string(i), hosts[i], [i, n, &cells, &mailboxes] { exchange(i, n, cells, mailboxes); });
  engine.run();
  epsim::bench::write_doubles(argument[2], cells);
}

}  // namespace

int main(int count, char** argument) {
  try {
    s4u::Engine engine(&count, argument);
    if (count != 4) throw std::runtime_error("usage: simgrid_run PLATFORM BYTES TIMES [--cfg=...]");
    run(engine, argument + 1);
    return 0;
  } catch (const std::exception& e) {
    std::cerr << "simgrid_run: " << e.what() << "\n";
    return 1;
  }
}
