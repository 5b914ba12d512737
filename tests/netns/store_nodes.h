// SPDX-License-Identifier: Apache-2.0
// Two nodes whose agents know of each other by a real etcd.
#pragma once

#include <cstdio>
#include <optional>
#include <string>
#include <utility>

#include "tests/netns/two_nodes.h"
#include "tests/support/etcd.h"

namespace mesh::test {

class StoreNodes : public TwoNodes {
 protected:
  // For the agents that are started from here on.
  void start_store(const Netns& netns, const std::string& address, std::chrono::seconds lease) {
    EtcdSetup setup;
    setup.netns = &netns;
    setup.address = address;
    etcd_.emplace(std::move(setup));
    extra_flags = {"--store", etcd_->store(), "--store-lease-ttl", std::to_string(lease.count())};
  }
  // On the first node, at its address for the other.
  void start_store(std::chrono::seconds lease) {
    start_store(a_->host().netns(), "172.31.0.1", lease);
  }
  void TearDown() override {
    if (HasFailure() && etcd_) std::fprintf(stderr, "--- log of etcd\n%s\n", etcd_->log(0).c_str());
    TwoNodes::TearDown();
    etcd_.reset();
  }

  std::optional<EtcdCluster> etcd_;
};

}  // namespace mesh::test
