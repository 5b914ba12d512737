// SPDX-License-Identifier: Apache-2.0
// What `connections` says of the mesh leg behind a connection of an application.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <utility>

#include "agent/admin/kernel_report.h"
#include "agent/bpf/datapath.h"
#include "agent/relay/pool.h"

namespace mesh::admin {

class TlsReport {
 public:
  // A table that cannot be had (the relay does not answer) is an empty one.
  TlsReport(relay::Pool& relay, const capture::NetnsDirectory& directory);
  // Null for a connection that has no mesh leg here.
  [[nodiscard]] nlohmann::json of(const mesh_conn_info& connection) const;
  // Mesh legs that wait for their next connection.
  [[nodiscard]] std::size_t idle() const { return idle_; }
  // See KernelReport.
  [[nodiscard]] nlohmann::json namespaces() const { return kernel_.namespaces(); }

 private:
  using Key = std::pair<std::uint64_t, Endpoint>;  // netns cookie, our end or the client's
  std::map<Key, relay::ConnectionRecord> by_client_;
  std::map<Key, relay::ConnectionRecord> by_server_;
  std::size_t idle_ = 0;
  KernelReport kernel_;
};

}  // namespace mesh::admin
