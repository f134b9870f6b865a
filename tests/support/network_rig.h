#pragma once
#include <cmath>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "sim/network/network.h"

namespace epsim::testing {

inline NetworkModel network_named(const std::string& name) {
  Setting setting;
  setting.kind = Setting::Kind::scalar;
  setting.text = name;
  Diagnostics problems;
  NetworkModel model = builtin_networks().make(setting, problems);
  problems.check();
  return model;
}

/// Sends messages over a network at given seconds and says when they arrive: `rig.send(0, a, b, 1e6); rig.expect_arrival(id, 21e-6);`.
class NetworkRig {
 public:
  NetworkRig(const std::string& network, Topology topology) : NetworkRig(network_named(network), std::move(topology)) {}
  NetworkRig(const NetworkModel& model, Topology topology) : topology_(std::move(topology)), network_(model.make(topology_)) {}
  NetworkRig(const NetworkRig&) = delete;

  Network& network() { return *network_; }
  /// Gives the message's id: 0, 1, 2 ...
  int send(double at, int source, int destination, double bytes, std::int64_t messages = 1, bool one_sided = false) {
    const auto id = static_cast<int>(arrivals_.size());
    batches_[at].push_back({id, Rank(source), Rank(destination), bytes, messages, one_sided});
    arrivals_.push_back(std::numeric_limits<double>::quiet_NaN());
    return id;
  }
  /// Plays everything; [messages] seconds of arrival.
  const std::vector<double>& arrivals() {
    if (played_) return arrivals_;
    played_ = true;
    double clock = 0;
    const auto play_until = [&](double limit) {
      for (double next; (next = network_->next_event()) <= limit && next < std::numeric_limits<double>::infinity();) {
        EXPECT_GE(next, clock) << "an event lies in the past";
        clock = next;
        std::vector<Network::Arrival> arrived;
        network_->advance(next, arrived);
        for (const Network::Arrival& a : arrived) {
          EXPECT_TRUE(std::isnan(arrivals_[static_cast<std::size_t>(a.id)])) << "message " << a.id << " arrives twice";
          EXPECT_LE(a.at, clock);
          arrivals_[static_cast<std::size_t>(a.id)] = a.at;
        }
      }
    };
    for (const auto& [at, flows] : batches_) {
      play_until(at);
      network_->start(flows, at);
      clock = at;
    }
    play_until(std::numeric_limits<double>::infinity());
    return arrivals_;
  }
  /// Not before and not after: the time is right to a relative 1e-12. Looked at when the rig goes, with all messages sent.
  void expect_arrival(int id, double seconds) { expected_.emplace_back(id, seconds); }
  ~NetworkRig() {
    for (const auto& [id, seconds] : expected_) EXPECT_NEAR(arrivals()[static_cast<std::size_t>(id)], seconds, seconds * 1e-12) << "message " << id;
  }

 private:
  Topology topology_;
  std::unique_ptr<Network> network_;
  std::map<double, std::vector<Flow>> batches_;
  std::vector<double> arrivals_;
  std::vector<std::pair<int, double>> expected_;
  bool played_ = false;
};

}  // namespace epsim::testing
