// SPDX-License-Identifier: Apache-2.0
// Where a check goes: host, port and path out of what the definition says.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "agent/base/address.h"
#include "agent/catalog/health_check.h"

namespace mesh::health {

struct Target {
  std::string host;  // as written; may be empty
  std::uint16_t port = 0;
  std::string path;  // of Http with the query, at least "/"; of Grpc the service, or empty
  bool tls = false;
  auto operator<=>(const Target&) const = default;
};

Result<Target> parse_target(const catalog::HealthCheck& check);
// The target of a redirect: an absolute URL, or a path that begins with '/'.
Result<Target> redirect(const Target& from, std::string_view location);

// A check is of its workload: its loopback or one of its addresses. Others would be connections
// that no policy has seen.
Result<Endpoint> endpoint_of(const Target& target, const std::vector<Address>& own);

// "host:port" as a Host header or an authority has it.
std::string authority(const Target& target);

}  // namespace mesh::health
