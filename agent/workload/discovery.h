// SPDX-License-Identifier: Apache-2.0
// Finds the workloads of this node and keeps the set current: the public face of this folder.
#pragma once

#include <boost/asio/io_context.hpp>
#include <cstdint>
#include <memory>
#include <vector>

#include "agent/base/result.h"
#include "agent/base/unique_fd.h"
#include "agent/workload/workload.h"

namespace mesh::workload {

// Lives on one thread, that of `io`. Needs CAP_SYS_ADMIN (setns), CAP_SYS_PTRACE and
// CAP_NET_ADMIN (SIOCGSKNS), the host's PID namespace and a view of /run/netns.
class Discovery {
 public:
  Discovery(boost::asio::io_context& io, Options options, Callbacks callbacks);
  ~Discovery();  // stops, without callbacks
  Discovery(const Discovery&) = delete;
  Discovery& operator=(const Discovery&) = delete;

  // Finds everything that exists now and reports it before it returns (a namespace that several
  // hold an address of: the lower cookie gets it), then goes on in the background. Call once.
  Status start();
  // Closes every socket; no callback comes after it. The counters stay readable.
  void stop();

  // The namespace of a workload, or of the host by host_cookie(). The result holds the namespace:
  // use it and drop it at once.
  [[nodiscard]] Result<UniqueFd> open_netns(std::uint64_t cookie) const;

  [[nodiscard]] std::vector<Workload> workloads() const;  // by cookie
  [[nodiscard]] const std::vector<Address>& host_addresses() const;
  [[nodiscard]] std::uint64_t host_cookie() const;  // 0 before start()
  [[nodiscard]] Counters counters() const;

 private:
  class Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace mesh::workload
