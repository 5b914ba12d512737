// SPDX-License-Identifier: Apache-2.0
// Which namespace holds an address, for the relay's threads. The control thread publishes whole
// snapshots; a snapshot holds the namespaces open, so publishing one without a namespace lets it
// go.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <utility>

#include "agent/base/address.h"
#include "agent/base/unique_fd.h"
#include "agent/capture/leg_sockets.h"
#include "agent/capture/mesh_sockets.h"

namespace mesh::capture {

struct NetnsHandle {
  NetnsHandle(std::uint64_t netns_cookie, UniqueFd netns_fd)
      : cookie(netns_cookie), fd(std::move(netns_fd)), legs(fd.get()), mesh(fd.get()) {}

  const std::uint64_t cookie;
  const UniqueFd fd;  // nsfs
  mutable LegSockets legs;
  mutable MeshSockets mesh;
};

class NetnsDirectory {
 public:
  using Snapshot = std::map<Address, std::shared_ptr<const NetnsHandle>>;

  void publish(Snapshot snapshot) {
    current_.store(std::make_shared<const Snapshot>(std::move(snapshot)));
  }
  // Any thread. Keep the result no longer than a call: it holds the namespace.
  [[nodiscard]] std::shared_ptr<const NetnsHandle> find(const Address& address) const {
    auto snapshot = current_.load();
    if (!snapshot) return nullptr;
    auto it = snapshot->find(address);
    return it == snapshot->end() ? nullptr : it->second;
  }
  // Any thread; holds every namespace for as long as it is kept.
  [[nodiscard]] std::shared_ptr<const Snapshot> snapshot() const { return current_.load(); }

 private:
  std::atomic<std::shared_ptr<const Snapshot>> current_;
};

}  // namespace mesh::capture
