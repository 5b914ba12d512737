// SPDX-License-Identifier: Apache-2.0
#include "agent/catalog/health_check.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <set>

#include "agent/base/ascii.h"
#include "agent/catalog/definition_reader.h"
#include "agent/syntax/decode.h"

namespace mesh::catalog {
namespace {

using std::chrono::nanoseconds;
using std::chrono::seconds;

constexpr seconds kDefaultTimeout{10};
constexpr seconds kShortestInterval{1};
constexpr std::size_t kMaxTargetBytes = 2048;
constexpr std::size_t kMaxBodyBytes = 64 * 1024;
constexpr std::size_t kMaxHeaders = 64;

constexpr std::string_view kNoPrograms =
    "checks that run a program are not supported: use http, tcp, grpc or ttl";

// The keys that say what a check does. One of them, and only one, must be there.
struct KindKey {
  std::string_view key;
  CheckKind kind;
};
constexpr std::array kKindKeys{KindKey{"TTL", CheckKind::Ttl}, KindKey{"TCP", CheckKind::Tcp},
                               KindKey{"HTTP", CheckKind::Http}, KindKey{"GRPC", CheckKind::Grpc}};

void refuse_other_kinds(syntax::Fields& f) {
  f.refuse("Args", kNoPrograms, {"ScriptArgs", "script_args"});
  f.refuse("Script", kNoPrograms);
  f.refuse("DockerContainerID", kNoPrograms, {"docker_container_id"});
  f.refuse("Shell", kNoPrograms);
  f.refuse("AliasService",
           "checks that repeat those of another service are not supported: give this service its "
           "own");
  f.refuse("AliasNode", "checks that repeat those of a node are not supported");
  f.refuse("UDP", "udp checks are not supported: use http, tcp, grpc or ttl");
  f.refuse("H2PING", "h2ping checks are not supported: use grpc, http or tcp",
           {"h2ping", "h2_ping"});
  f.refuse("H2PingUseTLS", "h2ping checks are not supported", {"h2ping_use_tls"});
  f.refuse("OSService", "checks of the node's own services are not supported", {"os_service"});
}

bool has_other_kind(syntax::Fields& f) {
  for (std::string_view key : {"Args", "Script", "DockerContainerID", "Shell", "AliasService",
                               "AliasNode", "UDP", "H2PING", "OSService"})
    if (const auto* value = f.value(key); value != nullptr && !syntax::is_zero(*value)) return true;
  return false;
}

// False if it is not known what the check does, which was told.
bool kind(syntax::Fields& f, HealthCheck& out) {
  std::vector<std::string_view> given;
  for (const auto& candidate : kKindKeys) {
    const auto* value = f.value(candidate.key);
    if (value == nullptr || syntax::is_zero(*value)) continue;
    given.push_back(candidate.key);
    out.kind = candidate.kind;
    if (candidate.kind == CheckKind::Ttl)
      f.get(candidate.key, out.ttl);
    else
      f.get(candidate.key, out.target);
  }
  if (given.size() == 1) return true;
  if (!given.empty())
    f.error(given[1], fmt::format("a check does one thing: {} is given as well", given[0]));
  else if (!has_other_kind(f))
    f.error("a check needs one of http, tcp, grpc and ttl");
  return false;
}

void target(syntax::Fields& f, HealthCheck& out) {
  if (out.target.size() > kMaxTargetBytes || has_control(out.target)) {
    f.error(out.kind == CheckKind::Http   ? "HTTP"
            : out.kind == CheckKind::Grpc ? "GRPC"
                                          : "TCP",
            "expected at most 2048 bytes without control characters");
    return;
  }
  if (out.kind == CheckKind::Http) {
    if (out.target.starts_with("https://"))
      out.tls = true;
    else if (!out.target.starts_with("http://") && !out.target.empty())
      f.wrong("HTTP", "a URL that begins with http:// or https://");
  } else if (out.kind != CheckKind::Ttl && !out.target.empty()) {
    const std::string_view host_port = std::string_view(out.target).substr(0, out.target.find('/'));
    const auto colon = host_port.rfind(':');
    if (colon == std::string_view::npos || colon + 1 == host_port.size() || colon == 0)
      f.wrong(out.kind == CheckKind::Grpc ? "GRPC" : "TCP", "host:port");
  }
}

void duration(syntax::Fields& f, std::string_view key, nanoseconds& out) {
  if (f.get(key, out) && out < nanoseconds{0}) f.wrong(key, "a duration that is not negative");
}

void timing(syntax::Fields& f, bool known, HealthCheck& out) {
  duration(f, "Interval", out.interval);
  duration(f, "Timeout", out.timeout);
  duration(f, "DeregisterCriticalServiceAfter", out.deregister_after);
  if (!known) return;
  if (out.kind == CheckKind::Ttl) {
    if (out.ttl < nanoseconds{0}) f.wrong("TTL", "a duration above zero");
    if (out.interval > nanoseconds{0}) f.error("Interval", "a ttl check has no interval");
    out.timeout = nanoseconds{0};
    return;
  }
  if (out.timeout == nanoseconds{0}) out.timeout = kDefaultTimeout;
  const auto* interval = f.value("Interval");
  if (interval == nullptr || syntax::is_zero(*interval))
    f.error("Interval", "a check that is not ttl needs an interval above zero");
  if (out.interval > nanoseconds{0} && out.interval < kShortestInterval) {
    f.warn("Interval", "raised to 1s, the shortest interval there is");
    out.interval = kShortestInterval;
  }
}

// Consul's default of warning is critical's number, not zero.
void thresholds(syntax::Fields& f, HealthCheck& out) {
  constexpr std::int64_t kMost = 1'000'000;
  f.ranged("SuccessBeforePassing", out.success_before_passing, 0, kMost);
  f.ranged("FailuresBeforeCritical", out.failures_before_critical, 0, kMost);
  out.failures_before_warning = out.failures_before_critical;
  if (f.ranged("FailuresBeforeWarning", out.failures_before_warning, 0, kMost) &&
      out.failures_before_warning > out.failures_before_critical)
    f.error("FailuresBeforeWarning", "must not be above FailuresBeforeCritical");
}

void http(syntax::Fields& f, HealthCheck& out) {
  f.get("Method", out.method);
  if (out.method.empty()) out.method = "GET";
  if (out.method.size() > 32 || !std::all_of(out.method.begin(), out.method.end(), [](char c) {
        return ascii::is_letter(c) || c == '-';
      }))
    f.wrong("Method", "a method of HTTP such as GET");
  f.get("Header", out.header);
  if (out.header.size() > kMaxHeaders) f.error("Header", "expected at most 64 headers");
  for (const auto& [key, values] : out.header)
    if (key.empty() || has_control(key) || std::any_of(values.begin(), values.end(), has_control))
      f.error("Header", "a header without a name, or with control characters");
  f.get("Body", out.body);
  if (out.body.size() > kMaxBodyBytes) f.error("Body", "expected at most 64 KiB");
  bool disable = false;
  f.get("DisableRedirects", disable);
  out.follow_redirects = !disable;
}

}  // namespace

std::string_view to_string(CheckKind kind) {
  switch (kind) {
    case CheckKind::Ttl:
      return "ttl";
    case CheckKind::Tcp:
      return "tcp";
    case CheckKind::Http:
      return "http";
    case CheckKind::Grpc:
      return "grpc";
  }
  return "ttl";
}

std::string_view to_string(CheckStatus status) {
  switch (status) {
    case CheckStatus::Passing:
      return "passing";
    case CheckStatus::Warning:
      return "warning";
    case CheckStatus::Critical:
      return "critical";
  }
  return "critical";
}

std::array<syntax::Word<CheckStatus>, 4> decode_words(CheckStatus) {
  return {{{"passing", CheckStatus::Passing},
           {"warning", CheckStatus::Warning},
           {"critical", CheckStatus::Critical},
           {"", CheckStatus::Critical}}};
}

void decode_fields(syntax::Fields& f, HealthCheck& out) {
  f.get("ID", out.id, {"CheckID", "check_id"});
  if (out.id.size() > 255 || has_control(out.id))
    f.wrong("ID", "a string of at most 255 bytes without control characters");
  f.get("Name", out.name);
  f.get("Notes", out.notes);
  if (out.name.size() > 255 || has_control(out.name))
    f.wrong("Name", "a string of at most 255 bytes without control characters");
  if (out.notes.size() > 4096) f.error("Notes", "expected at most 4096 bytes");
  f.ignore("ServiceID", {"service_id"});
  f.ignore("Token");
  f.ignore("OutputMaxSize");
  f.ignore("Type");
  refuse_other_kinds(f);
  const bool known = kind(f, out);
  target(f, out);
  http(f, out);
  bool use_tls = false;
  f.get("GRPCUseTLS", use_tls);
  if (out.kind == CheckKind::Grpc) out.tls = use_tls;
  bool tcp_tls = false;
  f.get("TCPUseTLS", tcp_tls);
  if (out.kind == CheckKind::Tcp) out.tls = tcp_tls;
  f.get("TLSSkipVerify", out.tls_skip_verify);
  f.get("TLSServerName", out.tls_server_name);
  if (out.tls_server_name.size() > 253 || has_control(out.tls_server_name))
    f.wrong("TLSServerName", "a name of at most 253 bytes");
  timing(f, known, out);
  thresholds(f, out);
  f.get("Status", out.initial);
}

void name_checks(syntax::Fields& service, std::string_view service_id,
                 std::string_view service_name, std::vector<HealthCheck>& checks) {
  std::set<std::string_view> ids;
  for (std::size_t i = 0; i < checks.size(); ++i) {
    auto& check = checks[i];
    if (check.id.empty())
      check.id = checks.size() == 1 ? fmt::format("service:{}", service_id)
                                    : fmt::format("service:{}:{}", service_id, i + 1);
    if (check.name.empty()) check.name = fmt::format("Service '{}' check", service_name);
    if (!ids.insert(check.id).second)
      service.error(fmt::format("two checks with the id \"{}\"", syntax::printable(check.id)));
  }
}

}  // namespace mesh::catalog
