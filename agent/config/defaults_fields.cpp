// SPDX-License-Identifier: Apache-2.0
// service-defaults and proxy-defaults.
#include <fmt/format.h>

#include <algorithm>

#include "agent/base/address.h"
#include "agent/base/ascii.h"
#include "agent/config/defaults.h"
#include "agent/config/entry_fields.h"

namespace mesh::config {
namespace {

using syntax::Fields;
using syntax::printable;

// What is read only to find out whether it is right.
struct TransparentProxyFields {};
struct MeshGatewayFields {};
struct ExposePathFields {};
struct ExposeFields {};
struct RateRouteFields {};
struct RateInstanceFields {};
struct RateLimitsFields {};
struct ExtensionFields {};
struct DestinationFields {};
struct UpstreamFields {
  std::optional<UpstreamConfig> defaults;
  std::vector<UpstreamConfig> overrides;
};

void one_of(Fields& f, std::string_view key, std::initializer_list<std::string_view> words,
            std::string& out) {
  if (!f.get(key, out) || std::find(words.begin(), words.end(), out) != words.end()) return;
  f.wrong(key, fmt::format("one of \"{}\"", fmt::join(words, "\", \"")));
}

void decode_fields(Fields& f, TransparentProxyFields&) {
  std::uint16_t port = 0;
  bool direct = false;
  f.get("OutboundListenerPort", port);
  // Instances can be reached by their own addresses with and without it.
  f.get("DialedDirectly", direct);
  if (port != 0 && port != defaults::kOutboundListenerPort)
    f.warn("OutboundListenerPort", "has no effect: the agent's port in a pod is 15001");
}

void decode_fields(Fields& f, MeshGatewayFields&) {
  std::string mode;
  one_of(f, "Mode", {"", "none", "local", "remote"}, mode);
  if (mode == "local" || mode == "remote") f.warn("Mode", std::string(kNoGateways));
}

void decode_fields(Fields& f, ExposePathFields&) {
  std::string path;
  std::string protocol;
  std::uint16_t listener = 0;
  std::uint16_t local = 0;
  f.get("Path", path);
  f.ranged("ListenerPort", listener, 0, 65535);
  f.ranged("LocalPathPort", local, 0, 65535);
  one_of(f, "Protocol", {"", "http", "http2"}, protocol);
  if (!path.empty() && path.front() != '/') f.wrong("Path", "a path that begins with '/'");
}

void decode_fields(Fields& f, ExposeFields&) {
  bool checks = false;
  std::vector<ExposePathFields> paths;
  f.get("Checks", checks);
  f.get("Paths", paths);
}

void decode_fields(Fields& f, RateRouteFields&) {
  HttpMatch match;
  std::uint32_t rate = 0;
  std::uint32_t burst = 0;
  read_path(f, match);
  f.get("RequestsPerSecond", rate);
  f.get("RequestsMaxBurst", burst);
  if (match.path_by == PathBy::Any)
    f.error("expected exactly one of PathExact, PathPrefix and PathRegex");
  if (rate == 0) f.error("RequestsPerSecond", "expected a number above 0");
}

void decode_fields(Fields& f, RateInstanceFields&) {
  std::uint32_t rate = 0;
  std::uint32_t burst = 0;
  std::vector<RateRouteFields> routes;
  f.get("RequestsPerSecond", rate);
  f.get("RequestsMaxBurst", burst);
  f.get("Routes", routes);
}

void decode_fields(Fields& f, RateLimitsFields&) {
  RateInstanceFields instance;
  f.get("InstanceLevel", instance);
}

void decode_fields(Fields& f, ExtensionFields&) {
  std::string name;
  bool required = false;
  f.required("Name", name);
  f.get("Required", required);
  f.ignore("Arguments");
  f.ignore("ConsulVersion");
  f.ignore("EnvoyVersion");
  // Without it requests would pass that somebody meant to be stopped.
  if (name == "builtin/ext-authz")
    f.error("Name", "external authorization is not enforced by this agent, so it is refused");
  else if (required)
    f.error("Required", "extensions of Envoy do not run here, so none can be required");
  else
    f.warn("Name", std::string(kEnvoyOnly));
}

void read_extensions(Fields& f) {
  std::vector<ExtensionFields> extensions;
  f.get("EnvoyExtensions", extensions);
}

bool is_host_name(std::string_view name) {
  const auto good = [](char c) {
    return ascii::is_alnum(c) || c == '-' || c == '_' || c == '.' || c == '*';
  };
  return !name.empty() && name.size() <= 253 && name.front() != '.' && name.front() != '-' &&
         std::all_of(name.begin(), name.end(), good);
}

void decode_fields(Fields& f, DestinationFields&) {
  std::vector<std::string> addresses;
  std::uint16_t port = 0;
  f.get("Addresses", addresses);
  if (addresses.empty()) f.error("Addresses", "expected at least one address");
  for (const auto& address : addresses)
    if (!Address::parse(address) && !is_host_name(address))
      f.error("Addresses",
              fmt::format("\"{}\" is neither an IP address nor a host name", printable(address)));
  f.ranged("Port", port, 1, 65535);
  if (port == 0 && !f.given("Port")) f.missing("Port");
}

// What both kinds of defaults have.
void read_common(Fields& f, MutualTlsMode& mutual_tls) {
  std::string mode;
  one_of(f, "Mode", {"", "direct", "transparent"}, mode);
  if (mode == "direct") f.warn("Mode", "has no effect: traffic of pods is always captured");
  f.get("MutualTLSMode", mutual_tls);
  TransparentProxyFields proxy;
  f.get("TransparentProxy", proxy);
  MeshGatewayFields gateway;
  f.get("MeshGateway", gateway);
  ExposeFields expose;
  f.get("Expose", expose);
  inert(f, {"Expose"}, "has no effect: probes of the node reach pods as they are");
  read_extensions(f);
}

}  // namespace

void decode_fields(Fields& f, UpstreamLimits& out) {
  f.get("MaxConnections", out.max_connections);
  f.get("MaxPendingRequests", out.max_pending_requests);
  f.get("MaxConcurrentRequests", out.max_concurrent_requests);
}

void decode_fields(Fields& f, PassiveHealthCheck& out) {
  get_timeout(f, "Interval", out.interval);
  f.get("MaxFailures", out.max_failures);
  f.ranged("EnforcingConsecutive5xx", out.enforcing_consecutive_5xx, 0, 100,
           {"enforcing_consecutive_5xx"});
  f.ranged("MaxEjectionPercent", out.max_ejection_percent, 0, 100);
  f.get("BaseEjectionTime", out.base_ejection_time);
  if (out.base_ejection_time && *out.base_ejection_time < Duration::zero())
    f.wrong("BaseEjectionTime", "a duration that is not negative");
}

void decode_fields(Fields& f, UpstreamConfig& out) {
  get_service(f, "Name", out.name);
  own_tenancy(f);
  std::string peer;
  f.get("Peer", peer);
  inert(f, {"Peer"}, "there are no peers here: these settings are for nobody");
  if (!peer.empty() && out.name.empty()) f.error("Peer", "needs a Name beside it");
  const auto* protocol = f.value("Protocol");
  if (protocol != nullptr && !syntax::is_zero(*protocol)) f.get("Protocol", out.protocol);
  f.get("ConnectTimeoutMs", out.connect_timeout_ms);
  f.get("Limits", out.limits);
  f.get("PassiveHealthCheck", out.passive_health_check);
  MeshGatewayFields gateway;
  f.get("MeshGateway", gateway);
  std::string balance;
  one_of(f, "BalanceOutboundConnections", {"", "exact_balance"}, balance);
  inert(f, {"BalanceOutboundConnections"}, kEnvoyOnly);
  f.no_effect("EnvoyListenerJSON", kEnvoyOnly);
  f.no_effect("EnvoyClusterJSON", kEnvoyOnly);
}

namespace {

void decode_fields(Fields& f, UpstreamFields& out) {
  f.get("Defaults", out.defaults);
  f.get("Overrides", out.overrides);
  if (out.defaults && !out.defaults->name.empty())
    f.error("Defaults", "are for every upstream, so they have no Name");
  for (const auto& upstream : out.overrides)
    if (upstream.name.empty()) f.error("Overrides", "each needs the Name of a service");
}

}  // namespace

void read_fields(Fields& f, ServiceDefaults& out) {
  const auto* protocol = f.value("Protocol");
  if (protocol != nullptr && !syntax::is_zero(*protocol)) f.get("Protocol", out.protocol);
  read_common(f, out.mutual_tls);
  f.no_effect("ExternalSNI", "has no effect: there are no terminating gateways here");

  UpstreamFields upstreams;
  f.get("UpstreamConfig", upstreams);
  out.upstream_defaults = std::move(upstreams.defaults);
  out.upstream_overrides = std::move(upstreams.overrides);
  inert(f, {"UpstreamConfig"}, kNotYet);

  DestinationFields destination;
  f.get("Destination", destination);
  const auto set = [&](std::string_view key) {
    const auto* value = f.value(key);
    return value != nullptr && !syntax::is_zero(*value);
  };
  if (set("Destination") && set("UpstreamConfig"))
    f.error("Destination", "cannot be given together with UpstreamConfig");
  inert(f, {"Destination"},
        "has no effect: what is outside of the mesh is reached as without it, there is no "
        "terminating gateway");

  f.get("MaxInboundConnections", out.max_inbound_connections);
  f.get("LocalConnectTimeoutMs", out.local_connect_timeout_ms);
  f.get("LocalRequestTimeoutMs", out.local_request_timeout_ms);
  inert(f, {"MaxInboundConnections", "LocalConnectTimeoutMs"}, kNotYet);
  inert(f, {"LocalRequestTimeoutMs"}, kNoRequests);
  std::string balance;
  one_of(f, "BalanceInboundConnections", {"", "exact_balance"}, balance);
  inert(f, {"BalanceInboundConnections"}, kEnvoyOnly);
  RateLimitsFields limits;
  f.get("RateLimits", limits);
  inert(f, {"RateLimits"}, "has no effect: rate limits are of Consul Enterprise");
  f.no_effect("MaxRequestHeadersKB", kEnvoyOnly, {"max_request_headers_kb"});
}

void read_fields(Fields& f, ProxyDefaults& out) {
  read_common(f, out.mutual_tls);
  f.no_effect("AccessLogs", "has no effect: there are no access logs here");
  f.no_effect("FailoverPolicy", "has no effect: localities are not known here");
  f.no_effect("PrioritizeByLocality", "has no effect: localities are not known here");

  // Any key may be there: each proxy takes the ones that it knows.
  std::map<std::string, syntax::Value, std::less<>> config;
  f.get("Config", config);
  const syntax::Path path = f.path() / "Config";
  auto& decoder = f.decoder();
  for (const auto& [key, value] : config) {
    const auto at = path / key;
    if (syntax::same_key("protocol", key)) {
      if (!syntax::is_zero(value)) decoder.decode(value, at, out.protocol);
      continue;
    }
    const std::pair<std::string_view, std::optional<std::uint32_t>*> known[] = {
        {"connect_timeout_ms", &out.connect_timeout_ms},
        {"local_connect_timeout_ms", &out.local_connect_timeout_ms},
        {"local_request_timeout_ms", &out.local_request_timeout_ms}};
    const auto it = std::find_if(std::begin(known), std::end(known),
                                 [&key = key](const auto& entry) { return key == entry.first; });
    if (it != std::end(known)) decoder.decode(value, at, *it->second);
    if (!syntax::is_zero(value))
      decoder.warn(value.at, at.to_string(),
                   std::string(it != std::end(known) ? kNotYet : kEnvoyOnly));
  }
}

}  // namespace mesh::config
