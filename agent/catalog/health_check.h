// SPDX-License-Identifier: Apache-2.0
// Health checks as a service definition states them, in Consul's shape. Nothing here runs them.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace mesh::syntax {
class Fields;
}

namespace mesh::catalog {

enum class CheckKind { Ttl, Tcp, Http, Grpc };
enum class CheckStatus { Passing, Warning, Critical };
std::string_view to_string(CheckKind kind);      // ttl, tcp, http, grpc
std::string_view to_string(CheckStatus status);  // passing, warning, critical

struct HealthCheck {
  std::string id;    // unique in the service
  std::string name;  // for people
  std::string notes;
  CheckKind kind = CheckKind::Ttl;
  // Http: a URL with http or https. Tcp: host:port. Grpc: host:port or host:port/service. Ttl: "".
  std::string target;

  // Of Http.
  std::string method = "GET";
  std::map<std::string, std::vector<std::string>> header;
  std::string body;
  bool follow_redirects = true;

  // TLS is used: by the URL of Http, by a key of the others.
  bool tls = false;
  bool tls_skip_verify = false;
  std::string tls_server_name;  // "": the host of the target

  std::chrono::nanoseconds interval{};  // not of Ttl
  std::chrono::nanoseconds timeout{};   // of one attempt; not of Ttl
  std::chrono::nanoseconds ttl{};       // of Ttl: without a word for so long it is critical

  CheckStatus initial = CheckStatus::Critical;
  std::uint32_t success_before_passing = 0;  // so many in a row after the first count for nothing
  std::uint32_t failures_before_warning = 0;
  std::uint32_t failures_before_critical = 0;
  std::chrono::nanoseconds deregister_after{};  // critical for so long; 0: never

  bool operator==(const HealthCheck&) const = default;
};

void decode_fields(syntax::Fields& fields, HealthCheck& out);

// Gives the checks of a service the ids and names that they were not given. Tells ids that are
// there twice.
void name_checks(syntax::Fields& service, std::string_view service_id,
                 std::string_view service_name, std::vector<HealthCheck>& checks);

}  // namespace mesh::catalog
