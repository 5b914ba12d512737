// SPDX-License-Identifier: Apache-2.0
// Opens the DNS responder's sockets in the namespaces of workloads. A workload without them
// resolves names as if there were no mesh: the hooks look for the sockets.
#pragma once

#include <cstdint>
#include <map>
#include <memory>

#include "agent/bpf/datapath.h"
#include "agent/capture/netns_directory.h"
#include "agent/dns/server.h"
#include "agent/health/table.h"
#include "agent/workload/workload.h"

namespace mesh::capture {

// Control thread.
class DnsCapture {
 public:
  // `health` says which instances answers may name.
  DnsCapture(dns::Server& server, const bpf::Datapath& datapath, const health::Table& health)
      : server_(server), datapath_(datapath), health_(health) {}

  // What the workload's namespace has not got yet. What cannot be opened is logged, and tried again
  // when the workload changes.
  void open(const workload::Workload& workload, const std::shared_ptr<const NetnsHandle>& netns);
  void drop(std::uint64_t netns_cookie);
  void set_catalog(std::shared_ptr<const catalog::Catalog> catalog);
  // Before the first catalog: the VIPs that an earlier agent left in the maps. Of endpoints nothing
  // is known yet.
  void seed();

 private:
  struct Opened {
    bool v4 = false;
    bool v6 = false;
  };
  Result<UniqueFd> make(int netns_fd, const Endpoint& at, int type) const;
  bool open_family(const workload::Workload& workload,
                   const std::shared_ptr<const NetnsHandle>& netns, const Endpoint& at);

  dns::Server& server_;
  const bpf::Datapath& datapath_;
  const health::Table& health_;
  std::map<std::uint64_t, Opened> opened_;
};

}  // namespace mesh::capture
