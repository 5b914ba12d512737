// SPDX-License-Identifier: Apache-2.0
// Config entries in the shapes that people write them, in HCL and in JSON: the same trees.
#include <gtest/gtest.h>

#include <string_view>

#include "agent/syntax/hcl.h"
#include "agent/syntax/json.h"
#include "tests/unit/syntax/dump.h"

namespace mesh::syntax {
namespace {

void expect_same(std::string_view hcl, std::string_view json) {
  const auto from_hcl = read_hcl(hcl);
  const auto from_json = read_json(json);
  ASSERT_TRUE(from_hcl) << from_hcl.error().at.line << ": " << from_hcl.error().what;
  ASSERT_TRUE(from_json) << from_json.error().what;
  EXPECT_EQ(dump(*from_hcl), dump(*from_json));
}

TEST(HclSamples, Router) {
  expect_same(R"(
Kind = "service-router"
Name = "web"
Routes = [
  {
    Match { HTTP {
      PathPrefix = "/admin"            # at most one of three
      CaseInsensitive = false
      Header     = [ { Name = "x-debug", Exact = "1" } ]
      QueryParam = [ { Name = "x-debug" Present = true } ]
      Methods    = ["GET","PUT"]
    } }
    Destination {
      Service        = "admin"
      Namespace = "" , Partition = ""
      NumRetries     = 3
      RetryOn        = ["5xx","reset"]
      RetryOnStatusCodes = [503]
      RequestHeaders  { Add = { k = "v" }  Set = { "x-k" = "v" }  Remove = ["x-internal"] }
      ResponseHeaders { Add = {}  Set = {}  Remove = [] }
    }
  }
]
)",
              R"({"Kind": "service-router", "Name": "web", "Routes": [{
    "Match": {"HTTP": {"PathPrefix": "/admin", "CaseInsensitive": false,
      "Header": [{"Name": "x-debug", "Exact": "1"}],
      "QueryParam": [{"Name": "x-debug", "Present": true}], "Methods": ["GET", "PUT"]}},
    "Destination": {"Service": "admin", "Namespace": "", "Partition": "", "NumRetries": 3,
      "RetryOn": ["5xx", "reset"], "RetryOnStatusCodes": [503],
      "RequestHeaders": {"Add": {"k": "v"}, "Set": {"x-k": "v"}, "Remove": ["x-internal"]},
      "ResponseHeaders": {"Add": {}, "Set": {}, "Remove": []}}}]})");
}

TEST(HclSamples, SplitterInBlocks) {
  expect_same(R"(
kind = "service-splitter"
name = "web"
splits { weight = 90.5 service_subset = "v1" request_headers { set = { "x-split" = "v1" } } }
splits { weight = 9.5, service = "web-next" }
)",
              R"({"kind": "service-splitter", "name": "web", "splits": [
    {"weight": 90.5, "service_subset": "v1", "request_headers": {"set": {"x-split": "v1"}}},
    {"weight": 9.5, "service": "web-next"}]})");
}

TEST(HclSamples, Resolver) {
  expect_same(R"(
Kind = "service-resolver"
Name = "web"
DefaultSubset  = "v1"
ConnectTimeout = "15s"
Subsets = {
  "v1" = { Filter = "Service.Meta.version == v1"  OnlyPassing = false }
  v2   = { Filter = <<-EOT
    "x" in Service.Tags
    EOT
  }
}
Failover = {
  "*"  = { Targets = [ { Datacenter="dc2" }, { Service="web-backup" ServiceSubset="v1" } ]
           Policy { Mode = "" Regions = [] } }
}
LoadBalancer {
  Policy = "ring_hash"
  RingHashConfig { MinimumRingSize = 1024  MaximumRingSize = 0x800000 }
  HashPolicies = [ { Field="header" FieldValue="x-user" Terminal=false },
                   { Field="cookie" FieldValue="s" CookieConfig { TTL="30s" Path="/" } },
                   { SourceIP = true } ]
}
)",
              R"({"Kind": "service-resolver", "Name": "web", "DefaultSubset": "v1",
  "ConnectTimeout": "15s",
  "Subsets": {"v1": {"Filter": "Service.Meta.version == v1", "OnlyPassing": false},
              "v2": {"Filter": "\"x\" in Service.Tags\n"}},
  "Failover": {"*": {"Targets": [{"Datacenter": "dc2"},
                                 {"Service": "web-backup", "ServiceSubset": "v1"}],
                     "Policy": {"Mode": "", "Regions": []}}},
  "LoadBalancer": {"Policy": "ring_hash",
    "RingHashConfig": {"MinimumRingSize": 1024, "MaximumRingSize": 8388608},
    "HashPolicies": [{"Field": "header", "FieldValue": "x-user", "Terminal": false},
      {"Field": "cookie", "FieldValue": "s", "CookieConfig": {"TTL": "30s", "Path": "/"}},
      {"SourceIP": true}]}})");
}

TEST(HclSamples, Intentions) {
  expect_same(R"(
Kind = "service-intentions"
Name = "web"
Sources = [
  { Name = "db-admin", Action = "deny" },
  { Name = "api"
    Permissions = [
      { Action = "deny", HTTP { PathExact = "/admin" Methods = ["POST"] } },
      { Action = "allow", HTTP { PathPrefix = "/" } },
    ] },
]
JWT { Providers = [ { Name = "okta" } ] }
)",
              R"({"Kind": "service-intentions", "Name": "web", "Sources": [
    {"Name": "db-admin", "Action": "deny"},
    {"Name": "api", "Permissions": [
      {"Action": "deny", "HTTP": {"PathExact": "/admin", "Methods": ["POST"]}},
      {"Action": "allow", "HTTP": {"PathPrefix": "/"}}]}],
    "JWT": {"Providers": [{"Name": "okta"}]}})");
}

TEST(HclSamples, Defaults) {
  expect_same(R"(
/* three in one place,
   as a bootstrap list */
config_entries {
  bootstrap = [
    { kind = "service-defaults" name = "web" protocol = "http"
      upstream_config { defaults { connect_timeout_ms = 5000
          limits { max_connections = 0 } passive_health_check { interval = "10s" } }
        overrides = [ { name = "db" connect_timeout_ms = 3000 } ] }
      envoy_extensions = [ { name = "builtin/lua" arguments = { script = "a\n\tb" } } ]
    },
    { kind = "proxy-defaults" name = "global" config { protocol = "http" x { y = 1.5 } }
      access_logs = { enabled = true } },
    { kind = "mesh", tls { incoming { tls_min_version = "TLSv1_2"
                                      cipher_suites = [] } } },
  ]
}
)",
              R"({"config_entries": {"bootstrap": [
    {"kind": "service-defaults", "name": "web", "protocol": "http",
     "upstream_config": {"defaults": {"connect_timeout_ms": 5000,
       "limits": {"max_connections": 0}, "passive_health_check": {"interval": "10s"}},
       "overrides": [{"name": "db", "connect_timeout_ms": 3000}]},
     "envoy_extensions": [{"name": "builtin/lua", "arguments": {"script": "a\n\tb"}}]},
    {"kind": "proxy-defaults", "name": "global",
     "config": {"protocol": "http", "x": {"y": 1.5}}, "access_logs": {"enabled": true}},
    {"kind": "mesh", "tls": {"incoming": {"tls_min_version": "TLSv1_2",
                                          "cipher_suites": []}}}]}})");
}

}  // namespace
}  // namespace mesh::syntax
