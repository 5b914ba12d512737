// SPDX-License-Identifier: Apache-2.0
// service-defaults, proxy-defaults and mesh.
#include <gmock/gmock.h>

#include "tests/unit/config/reading.h"

namespace mesh::config {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

Reading defaults(std::string_view fields) {
  return read(R"({"Kind":"service-defaults","Name":"web",)" + std::string(fields) + "}");
}
Reading proxy(std::string_view fields) {
  return read(R"({"Kind":"proxy-defaults","Name":"global",)" + std::string(fields) + "}");
}
Reading mesh_entry(std::string_view fields) {
  return read(R"({"Kind":"mesh",)" + std::string(fields) + "}");
}

TEST(ServiceDefaultsFields, EverythingIsKeptOrToldToHaveNoEffect) {
  const auto reading = defaults(R"(
    "Protocol": "http", "Mode": "transparent",
    "TransparentProxy": {"OutboundListenerPort": 15001, "DialedDirectly": false},
    "MutualTLSMode": "strict", "MeshGateway": {"Mode": "local"},
    "Expose": {"Checks": false, "Paths": [{"Path": "/health", "ListenerPort": 21500,
       "LocalPathPort": 8080, "Protocol": "http"}]},
    "ExternalSNI": "",
    "UpstreamConfig": {
      "Defaults": {"Protocol": "", "ConnectTimeoutMs": 5000,
        "Limits": {"MaxConnections": 0, "MaxConcurrentRequests": 7},
        "PassiveHealthCheck": {"Interval": "10s", "MaxFailures": 5, "EnforcingConsecutive5xx": 100,
          "MaxEjectionPercent": 10, "BaseEjectionTime": "30s"},
        "MeshGateway": {"Mode": ""}, "BalanceOutboundConnections": ""},
      "Overrides": [{"Name": "db", "ConnectTimeoutMs": 3000, "EnvoyClusterJSON": "{}"}]},
    "MaxInboundConnections": 0, "LocalConnectTimeoutMs": 5000, "LocalRequestTimeoutMs": 15000,
    "BalanceInboundConnections": "exact_balance",
    "RateLimits": {"InstanceLevel": {"RequestsPerSecond": 0, "Routes": [
       {"PathPrefix": "/x", "RequestsPerSecond": 10, "RequestsMaxBurst": 20}]}},
    "EnvoyExtensions": [{"Name": "builtin/lua", "Required": false, "Arguments": {"a": 1}}])");
  EXPECT_THAT(reading.errors, IsEmpty());
  EXPECT_THAT(
      reading.warnings,
      ElementsAre(HasSubstr("MeshGateway.Mode: has no effect"), HasSubstr("Expose: has no effect"),
                  HasSubstr("UpstreamConfig: has no effect"),
                  HasSubstr("Overrides[0].EnvoyClusterJSON: has no effect"),
                  HasSubstr("LocalConnectTimeoutMs: has no effect"),
                  HasSubstr("LocalRequestTimeoutMs: has no effect"),
                  HasSubstr("BalanceInboundConnections: has no effect"),
                  HasSubstr("RateLimits: has no effect"),
                  HasSubstr("EnvoyExtensions[0].Name: has no effect")));
  const auto& entry = reading.only<ServiceDefaults>();
  EXPECT_EQ(entry.protocol, Protocol::Http);
  EXPECT_EQ(entry.mutual_tls, MutualTlsMode::Strict);
  ASSERT_TRUE(entry.upstream_defaults);
  EXPECT_FALSE(entry.upstream_defaults->protocol);
  EXPECT_EQ(entry.upstream_defaults->connect_timeout_ms, 5000u);
  ASSERT_TRUE(entry.upstream_defaults->limits);
  EXPECT_EQ(entry.upstream_defaults->limits->max_connections, 0u);
  EXPECT_FALSE(entry.upstream_defaults->limits->max_pending_requests);
  EXPECT_EQ(entry.upstream_defaults->passive_health_check->enforcing_consecutive_5xx, 100u);
  ASSERT_THAT(entry.upstream_overrides, SizeIs(1));
  EXPECT_EQ(entry.upstream_overrides[0].name, "db");
  EXPECT_FALSE(entry.upstream_overrides[0].limits);
  EXPECT_EQ(entry.local_connect_timeout_ms, 5000u);
}

TEST(ServiceDefaultsFields, SnakeCaseIsTheSame) {
  const auto reading = read(R"({"kind":"service-defaults","name":"web","protocol":"grpc",
    "mutual_tls_mode":"permissive","external_sni":"", "upstream_config":{"overrides":
    {"name":"db","passive_health_check":{"enforcing_consecutive_5xx":"0"},
     "envoy_listener_json":""}}})");
  EXPECT_THAT(reading.errors, IsEmpty());
  const auto& entry = reading.only<ServiceDefaults>();
  EXPECT_EQ(entry.mutual_tls, MutualTlsMode::Permissive);
  EXPECT_EQ(entry.upstream_overrides.at(0).passive_health_check->enforcing_consecutive_5xx, 0u);
}

TEST(ServiceDefaultsFields, WhatIsRefused) {
  const auto errors = [](std::string_view fields) { return defaults(fields).errors; };
  EXPECT_THAT(
      errors(R"("Protocol":"udp")"),
      ElementsAre(HasSubstr("Protocol: expected \"tcp\", \"http\", \"http2\" or \"grpc\"")));
  EXPECT_THAT(errors(R"("Protocol":"")"), IsEmpty());
  EXPECT_THAT(errors(R"("Mode":"opaque")"), SizeIs(1));
  EXPECT_THAT(errors(R"("MutualTLSMode":"loose")"), SizeIs(1));
  EXPECT_THAT(errors(R"("MeshGateway":{"Mode":"far"})"), SizeIs(1));
  EXPECT_THAT(errors(R"("Expose":{"Paths":[{"Path":"x"}]})"), SizeIs(1));
  EXPECT_THAT(errors(R"("MaxInboundConnections":-1)"), SizeIs(1));
  EXPECT_THAT(errors(R"("LocalConnectTimeoutMs":-1)"), SizeIs(1));
  EXPECT_THAT(errors(R"("LocalRequestTimeoutMs":-1)"), SizeIs(1));
  EXPECT_THAT(errors(R"("BalanceInboundConnections":"fair")"), SizeIs(1));
  EXPECT_THAT(errors(R"("UpstreamConfig":{"Defaults":{"Name":"db"}})"),
              ElementsAre(HasSubstr("Defaults: are for every upstream, so they have no Name")));
  EXPECT_THAT(errors(R"("UpstreamConfig":{"Defaults":{"Peer":"p"}})"), SizeIs(1));
  EXPECT_THAT(errors(R"("UpstreamConfig":{"Overrides":[{"ConnectTimeoutMs":1}]})"),
              ElementsAre(HasSubstr("Overrides: each needs the Name of a service")));
  EXPECT_THAT(errors(R"("UpstreamConfig":{"Overrides":[{"Name":"*"}]})"), SizeIs(1));
  EXPECT_THAT(
      errors(R"("UpstreamConfig":{"Defaults":{"PassiveHealthCheck":{"MaxEjectionPercent":101}}})"),
      SizeIs(1));
  EXPECT_THAT(errors(R"("Destination":{"Addresses":["db.example.com","10.1.2.3"],"Port":5432})"),
              IsEmpty());
  EXPECT_THAT(errors(R"("Destination":{"Addresses":[],"Port":5432})"), SizeIs(1));
  EXPECT_THAT(errors(R"("Destination":{"Addresses":["a b"],"Port":5432})"), SizeIs(1));
  EXPECT_THAT(errors(R"("Destination":{"Addresses":["a"]})"), SizeIs(1));
  EXPECT_THAT(errors(R"("Destination":{"Addresses":["a"],"Port":65536})"), SizeIs(1));
  EXPECT_THAT(errors(R"("Destination":{"Addresses":["a"],"Port":1},
                        "UpstreamConfig":{"Defaults":{"ConnectTimeoutMs":1}})"),
              ElementsAre(HasSubstr("Destination: cannot be given together with UpstreamConfig")));
  EXPECT_THAT(errors(R"("RateLimits":{"InstanceLevel":{"Routes":[{"RequestsPerSecond":1}]}})"),
              SizeIs(1));
  EXPECT_THAT(errors(R"("RateLimits":{"InstanceLevel":{"Routes":[{"PathExact":"/"}]}})"),
              SizeIs(1));
}

TEST(ServiceDefaultsFields, ExtensionsThatGuardAreRefused) {
  EXPECT_THAT(defaults(R"("EnvoyExtensions":[{"Name":"builtin/ext-authz"}])").errors,
              ElementsAre(HasSubstr("external authorization is not enforced")));
  EXPECT_THAT(defaults(R"("EnvoyExtensions":[{"Name":"builtin/lua","Required":true}])").errors,
              ElementsAre(HasSubstr("none can be required")));
}

TEST(ProxyDefaultsFields, ConfigIsFree) {
  const auto reading = proxy(R"("Config": {"protocol": "http", "local_connect_timeout_ms": "1000",
      "connect_timeout_ms": 7, "envoy_prometheus_bind_addr": "0.0.0.0:9102", "empty": ""},
    "AccessLogs": {"Enabled": true, "Type": "stdout"}, "Mode": "direct")");
  EXPECT_THAT(reading.errors, IsEmpty());
  EXPECT_THAT(
      reading.warnings,
      ElementsAre(HasSubstr("Config.local_connect_timeout_ms: has no effect"),
                  HasSubstr("Config.connect_timeout_ms: has no effect"),
                  HasSubstr("Config.envoy_prometheus_bind_addr: has no effect"),
                  HasSubstr("AccessLogs: has no effect"), HasSubstr("Mode: has no effect")));
  const auto& entry = reading.only<ProxyDefaults>();
  EXPECT_EQ(entry.protocol, Protocol::Http);
  EXPECT_EQ(entry.local_connect_timeout_ms, 1000u);
  EXPECT_EQ(entry.connect_timeout_ms, 7u);
}

TEST(ProxyDefaultsFields, WhatIsRefused) {
  EXPECT_THAT(read(R"({"Kind":"proxy-defaults","Name":"web"})").errors,
              ElementsAre(HasSubstr("Name: expected \"global\", the only name there is")));
  EXPECT_THAT(read(R"({"Kind":"proxy-defaults"})").errors, SizeIs(1));
  EXPECT_THAT(proxy(R"("Config":{"protocol":"udp"})").errors, SizeIs(1));
  EXPECT_THAT(proxy(R"("EnvoyExtensions":[{"Name":"builtin/ext-authz"}])").errors, SizeIs(1));
  EXPECT_THAT(proxy(R"("Protocol":"http")").errors, ElementsAre(HasSubstr("unknown key")));
}

TEST(MeshFields, EverythingIsKept) {
  const auto reading =
      mesh_entry(R"("Name":"mesh", "TransparentProxy":{"MeshDestinationsOnly":false},
    "AllowEnablingPermissiveMutualTLS": true,
    "TLS": {"Incoming": {"TLSMinVersion": "TLSv1_2", "TLSMaxVersion": "TLSv1_3",
      "CipherSuites": ["a"]}, "Outgoing": {"tls_max_version": "TLSv1_2"}},
    "HTTP": {"SanitizeXForwardedClientCert": true, "Incoming": {"RequestNormalization": {
      "InsecureDisablePathNormalization": true, "MergeSlashes": true,
      "PathWithEscapedSlashesAction": "REJECT_REQUEST",
      "HeadersWithUnderscoresAction": "DROP_HEADER"}}},
    "Peering": {"PeerThroughMeshGateways": true}, "ValidateClusters": true)");
  EXPECT_THAT(reading.errors, IsEmpty());
  EXPECT_THAT(reading.warnings,
              ElementsAre(HasSubstr("TLS.Incoming.CipherSuites: has no effect"),
                          HasSubstr("TLS.Outgoing.tls_max_version: has no effect"),
                          HasSubstr("SanitizeXForwardedClientCert: has no effect"),
                          HasSubstr("RequestNormalization: has no effect"),
                          HasSubstr("PeerThroughMeshGateways: has no effect"),
                          HasSubstr("ValidateClusters: has no effect")));
  const auto& entry = reading.only<Mesh>();
  EXPECT_TRUE(entry.allow_enabling_permissive_mutual_tls);
  EXPECT_TRUE(entry.sanitize_x_forwarded_client_cert);
  EXPECT_TRUE(entry.normalization.disable_path_normalization);
  EXPECT_TRUE(entry.normalization.merge_slashes);
  EXPECT_EQ(entry.normalization.escaped_slashes, EscapedSlashes::Reject);
  EXPECT_EQ(entry.normalization.header_underscores, HeaderUnderscores::Drop);
  EXPECT_TRUE(entry.validate_clusters);
}

TEST(MeshFields, WhatIsRefused) {
  EXPECT_THAT(mesh_entry(R"("Name":"web")").errors, SizeIs(1));
  EXPECT_THAT(mesh_entry(R"("TransparentProxy":{"MeshDestinationsOnly":true})").errors,
              ElementsAre(HasSubstr("MeshDestinationsOnly: connections to what is outside")));
  EXPECT_THAT(mesh_entry(R"("TLS":{"Incoming":{"TLSMinVersion":"TLSv1_4"}})").errors, SizeIs(1));
  EXPECT_THAT(mesh_entry(R"("TLS":{"Incoming":{"TLSMinVersion":"TLSv1_3",
                             "TLSMaxVersion":"TLSv1_2"}})")
                  .errors,
              ElementsAre(HasSubstr("TLSMaxVersion: is below TLSMinVersion")));
  EXPECT_THAT(mesh_entry(R"("HTTP":{"Incoming":{"RequestNormalization":
                            {"PathWithEscapedSlashesAction":"DROP"}}})")
                  .errors,
              SizeIs(1));
}

}  // namespace
}  // namespace mesh::config
