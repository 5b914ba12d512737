// SPDX-License-Identifier: Apache-2.0
// Service definitions in the forms that people have them: HCL, YAML, weak typing, Consul's other
// fields, and what is said of those that do nothing here.
#include <gtest/gtest.h>

#include <fmt/format.h>

#include "agent/catalog/service_definition.h"
#include "agent/syntax/read.h"

namespace mesh::catalog {
namespace {

using std::chrono::seconds;

struct Read {
  std::vector<ServiceDefinition> services;
  std::vector<std::string> errors;
  std::vector<std::string> warnings;
};

Read read(std::string file, std::string_view text) {
  Read result;
  auto documents = syntax::read_documents(*syntax::format_of(file), text);
  if (!documents) {
    result.errors.push_back(documents.error().what);
    return result;
  }
  syntax::ErrorList errors;
  syntax::ErrorList warnings;
  syntax::Decoder decoder(std::move(file), errors, warnings);
  Definitions definitions;
  for (const auto& document : *documents) read_service_definitions(document, decoder, definitions);
  result.services = std::move(definitions.services);
  for (const auto& error : errors.take()) result.errors.push_back(error.to_string());
  for (const auto& warning : warnings.take()) result.warnings.push_back(warning.to_string());
  return result;
}

constexpr std::string_view kStart = "name = \"web\"\naddress = \"10.0.0.7\"\nport = 8080\n";

// One good service in HCL with more in it, from line 5 on.
Read with(std::string_view members) {
  return read("f.hcl", fmt::format("service {{\n{}{}\n}}\n", kStart, members));
}

Instance instance_with(std::string_view members) {
  auto result = with(members);
  EXPECT_EQ(result.errors, std::vector<std::string>{}) << members;
  EXPECT_EQ(result.services.size(), 1U);
  return result.services.empty() ? Instance() : result.services.front().instance;
}

std::string error_with(std::string_view members) {
  auto result = with(members);
  EXPECT_TRUE(result.services.empty()) << members;
  return result.errors.size() == 1 ? result.errors.front()
                                   : fmt::format("{} errors", result.errors.size());
}

std::string warning_with(std::string_view members) {
  auto result = with(members);
  EXPECT_EQ(result.errors, std::vector<std::string>{}) << members;
  return result.warnings.size() == 1 ? result.warnings.front()
                                     : fmt::format("{} warnings", result.warnings.size());
}

TEST(ServiceForms, EverySyntaxSaysTheSame) {
  const auto json = read("f.json", R"({"service": {"name": "web", "id": "w1", "address": "10.0.0.7",
    "port": 8080, "tags": ["a"], "meta": {"v": "1"}, "weights": {"passing": 5, "warning": 0},
    "check": {"tcp": "10.0.0.7:8080", "interval": "10s"}}})");
  const auto hcl = read("f.hcl", R"(
    service {
      name = "web", id = "w1"
      address = "10.0.0.7"
      port = 8080
      tags = ["a"]
      meta { v = "1" }
      weights { passing = 5 warning = 0 }
      check { tcp = "10.0.0.7:8080" interval = "10s" }
    })");
  const auto camel = read("f.hcl", R"(
    Services = [{ Name = "web", ID = "w1", Address = "10.0.0.7", Port = "8080", Tags = "a",
                  Meta = { v = 1 }, Weights = [{ Passing = 5.0, Warning = "0" }],
                  Checks = [{ TCP = "10.0.0.7:8080", Interval = 10000000000 }] }])");
  const auto yaml = read("f.yaml", R"(
service:
  name: web
  id: w1
  address: 10.0.0.7
  port: 8080
  tags: [a]
  meta: {v: 1}
  weights: {passing: 5, warning: 0}
  check:
    tcp: 10.0.0.7:8080
    interval: 10s
)");
  for (const auto* form : {&json, &hcl, &camel, &yaml}) {
    ASSERT_EQ(form->errors, std::vector<std::string>{});
    EXPECT_EQ(form->warnings, std::vector<std::string>{});
    ASSERT_EQ(form->services.size(), 1U);
    EXPECT_EQ(form->services[0].name, "web");
    EXPECT_EQ(form->services[0].instance, json.services[0].instance);
  }
  EXPECT_EQ(json.services[0].instance.weights, (Weights{5, 0}));
}

TEST(ServiceForms, BlocksListsAndDocumentsAddUp) {
  auto hcl = read("f.hcl", fmt::format("service {{ {0} id = 1 }}\nservice {{ {0} id = 2 }}\n"
                                       "services = [{{ {0} id = 3 }}]\nservices {{ {0} id = 4 }}",
                                       "name = \"w\" address = \"10.0.0.1\" port = 1"));
  EXPECT_EQ(
      hcl.errors,
      (std::vector<std::string>{"f.hcl:4:1: services: given twice, first at line 3 column 1"}));
  EXPECT_EQ(hcl.services.size(), 3U);
  EXPECT_EQ(hcl.services.at(1).key, "service[1]");
  auto yaml = read("f.yml",
                   "service: {name: a, address: 10.0.0.1, port: 1}\n---\n"
                   "services:\n- {name: b, address: 10.0.0.2, port: 2}\n");
  EXPECT_EQ(yaml.errors, std::vector<std::string>{});
  EXPECT_EQ(yaml.services.size(), 2U);
  EXPECT_EQ(read("f.yaml", "# nothing\n").errors,
            std::vector<std::string>{"there is nothing in the file"});
  EXPECT_EQ(read("f.hcl", "service \"web\" { port = 1 }").errors.back(),
            "f.hcl:1:9: service.web: unknown key");
}

TEST(ServiceForms, WeakTyping) {
  EXPECT_EQ(instance_with("id = 7").id, "7");
  EXPECT_EQ(instance_with("id = \"\"").id, "web");
  EXPECT_EQ(instance_with("tags = \"one\"").details->tags, std::vector<std::string>{"one"});
  EXPECT_EQ(instance_with("meta { a = 1 b = true c = 1.5 }").details->meta,
            (std::map<std::string, std::string>{{"a", "1"}, {"b", "1"}, {"c", "1.5"}}));
  EXPECT_EQ(instance_with("meta { a = 1 }\nmeta { b = 2 }").details->meta.size(), 2U);
  EXPECT_EQ(error_with("meta { a = 1 }\nmeta { a = 2 }"),
            "f.hcl:6:8: service.meta.a: given twice, first at line 5 column 8");
}

TEST(ServiceForms, WeightsAndTaggedAddresses) {
  EXPECT_EQ(instance_with("").weights, (Weights{1, 1}));
  EXPECT_EQ(instance_with("weights { warning = 3 }").weights, (Weights{1, 3}));
  EXPECT_EQ(error_with("weights { passing = 0 }"),
            "f.hcl:5:21: service.weights.passing: expected an integer from 1 to 65535, got 0");
  EXPECT_EQ(error_with("weights { warning = 65536 }"),
            "f.hcl:5:21: service.weights.warning: expected an integer from 0 to 65535, got 65536");
  EXPECT_EQ(error_with("tagged_addresses { lan = { port = 1 } }"),
            "f.hcl:5:18: service.tagged_addresses: \"lan\": expected a name and an address of 1 to "
            "255 bytes without control characters");
}

TEST(ServiceForms, TaggedAddressesOfSeveralBlocks) {
  auto tagged = instance_with(
                    "tagged_addresses \"lan\" { address = \"10.0.0.7\" port = 1 }\n"
                    "tagged_addresses \"wan\" { Address = \"192.0.2.1\" }")
                    .details->tagged_addresses;
  EXPECT_EQ(tagged, (std::map<std::string, TaggedAddress>{{"lan", {"10.0.0.7", 1}},
                                                          {"wan", {"192.0.2.1", 0}}}));
}

TEST(ServiceForms, FieldsWithoutEffectWarn) {
  EXPECT_EQ(warning_with("enable_tag_override = true"), "0 warnings");
  EXPECT_EQ(warning_with("namespace = \"default\" partition = \"\""), "0 warnings");
  EXPECT_EQ(warning_with("connect { sidecar_service {} }"),
            "f.hcl:5:9: service.connect: has no effect: every workload of a service is in the "
            "mesh, without a sidecar");
  EXPECT_EQ(warning_with("connect {}"), "0 warnings");
  EXPECT_EQ(warning_with("Connect { Native = true }").substr(0, 30),
            "f.hcl:5:9: service.Connect: ha");
  EXPECT_EQ(warning_with("proxy { mode = \"transparent\" }"),
            "f.hcl:5:7: service.proxy: has no effect: there are no sidecars");
  EXPECT_EQ(warning_with("token = \"x\""),
            "f.hcl:5:9: service.token: has no effect: there are no ACL tokens");
  EXPECT_EQ(error_with("namespace = \"team\"").substr(0, 50),
            "f.hcl:5:13: service.namespace: expected \"default\" ");
  EXPECT_EQ(error_with("ports = [{ name = \"a\" port = 1 }]").substr(0, 42),
            "f.hcl:5:1: service.ports: several ports of");
  EXPECT_EQ(error_with("socket_path = \"/x\"").substr(0, 46),
            "f.hcl:5:1: service.socket_path: sockets in the");
}

TEST(ServiceForms, SidecarsAreLeftOutAndGatewaysRefused) {
  auto result = read("f.hcl",
                     "service { kind = \"connect-proxy\" name = \"web-proxy\" port = 20000\n"
                     "proxy { destination_service_name = \"web\" } }");
  EXPECT_TRUE(result.services.empty() && result.errors.empty());
  EXPECT_EQ(result.warnings,
            std::vector<std::string>{
                "f.hcl:1:18: service.kind: this definition is left out: the mesh needs no "
                "sidecars"});
  EXPECT_EQ(error_with("kind = \"mesh-gateway\""),
            "f.hcl:5:8: service.kind: gateways are not supported");
  EXPECT_EQ(instance_with("kind = \"\"").id, "web");
  EXPECT_EQ(error_with("kind = \"typical\"").substr(0, 30), "f.hcl:5:8: service.kind: expec");
}

TEST(ServiceForms, EveryFieldOfAnHttpCheck) {
  const auto checks = instance_with(R"(check {
    id = "api", name = "the api", notes = "n", http = "https://10.0.0.7:8080/health?x=1"
    method = "POST", header { x-a = ["1", "2"] Host = "h" }, body = "{}", disable_redirects = true
    tls_skip_verify = true, tls_server_name = "api.example", interval = "5s", timeout = "2s"
    status = "passing", success_before_passing = 2, failures_before_warning = 1
    failures_before_critical = 3, deregister_critical_service_after = "90m"
  })")
                          .details->checks;
  HealthCheck wanted;
  wanted.id = "api";
  wanted.name = "the api";
  wanted.notes = "n";
  wanted.kind = CheckKind::Http;
  wanted.target = "https://10.0.0.7:8080/health?x=1";
  wanted.method = "POST";
  wanted.header = {{"x-a", {"1", "2"}}, {"Host", {"h"}}};
  wanted.body = "{}";
  wanted.follow_redirects = false;
  wanted.tls = wanted.tls_skip_verify = true;
  wanted.tls_server_name = "api.example";
  wanted.interval = seconds(5);
  wanted.timeout = seconds(2);
  wanted.initial = CheckStatus::Passing;
  wanted.success_before_passing = 2;
  wanted.failures_before_warning = 1;
  wanted.failures_before_critical = 3;
  wanted.deregister_after = seconds(5400);
  EXPECT_EQ(checks, std::vector<HealthCheck>{wanted});
}

TEST(ServiceForms, DefaultsOfChecks) {
  const auto checks = instance_with(R"(id = "w1"
    check { http = "http://10.0.0.7/" interval = "10s" failures_before_critical = 4 }
    checks = [ { GRPC = "10.0.0.7:50051/svc" GRPCUseTLS = true Interval = "100ms" },
               { TTL = "30s" }, { tcp = "[fd00::1]:80", interval = "1s", CheckID = "t" } ])")
                          .details->checks;
  ASSERT_EQ(checks.size(), 4U);
  EXPECT_EQ(checks[0].id, "service:w1:1");
  EXPECT_EQ(checks[0].name, "Service 'web' check");
  EXPECT_EQ(checks[0].method, "GET");
  EXPECT_EQ(checks[0].timeout, seconds(10));
  EXPECT_EQ(checks[0].failures_before_warning, 4U);
  EXPECT_EQ(checks[0].initial, CheckStatus::Critical);
  EXPECT_TRUE(checks[0].follow_redirects && !checks[0].tls);
  EXPECT_EQ(checks[1].kind, CheckKind::Grpc);
  EXPECT_TRUE(checks[1].tls);
  EXPECT_EQ(checks[1].interval, seconds(1));  // the shortest
  EXPECT_EQ(checks[2].kind, CheckKind::Ttl);
  EXPECT_EQ(checks[2].ttl, seconds(30));
  EXPECT_EQ(checks[3].id, "t");
  EXPECT_EQ(checks[3].target, "[fd00::1]:80");
  EXPECT_EQ(instance_with("check { ttl = \"5s\" }").details->checks.at(0).id, "service:web");
}

TEST(ServiceForms, ChecksThatAreRefused) {
  const std::pair<std::string_view, std::string_view> table[] = {
      {"check { interval = \"1s\" }",
       "f.hcl:5:7: service.check: a check needs one of http, tcp, grpc and ttl"},
      {"check { tcp = \"a:1\" http = \"http://a\" interval = \"1s\" }",
       "f.hcl:5:28: service.check.http: a check does one thing: TCP is given as well"},
      {"check { args = [\"/bin/x\"] interval = \"1s\" }",
       "f.hcl:5:9: service.check.args: checks that run a program are not supported"},
      {"check { script_args = [\"x\"] interval = \"1s\" }",
       "f.hcl:5:9: service.check.script_args: checks that run a program"},
      {"check { docker_container_id = \"x\" interval = \"1s\" }",
       "f.hcl:5:9: service.check.docker_container_id: checks that run a program"},
      {"check { alias_service = \"db\" interval = \"1s\" }",
       "f.hcl:5:9: service.check.alias_service: checks that repeat"},
      {"check { udp = \"a:1\" interval = \"1s\" }",
       "f.hcl:5:9: service.check.udp: udp checks are not"},
      {"check { h2ping = \"a:1\" interval = \"1s\" }",
       "f.hcl:5:9: service.check.h2ping: h2ping checks are not"},
      {"check { os_service = \"x\" interval = \"1s\" }",
       "f.hcl:5:9: service.check.os_service: checks of the node's"},
      {"check { tcp = \"a:1\" }",
       "f.hcl:5:7: service.check.Interval: a check that is not ttl needs an interval"},
      {"check { ttl = \"1s\" interval = \"1s\" }",
       "f.hcl:5:31: service.check.interval: a ttl check has no interval"},
      {"check { ttl = \"-1s\" }",
       "f.hcl:5:15: service.check.ttl: expected a duration above zero, got \"-1s\""},
      {"check { tcp = \"a\" interval = \"1s\" }",
       "f.hcl:5:15: service.check.tcp: expected host:port, got \"a\""},
      {"check { grpc = \"a/b\" interval = \"1s\" }",
       "f.hcl:5:16: service.check.grpc: expected host:port"},
      {"check { http = \"ftp://a\" interval = \"1s\" }",
       "f.hcl:5:16: service.check.http: expected a URL that begins with http"},
      {"check { http = \"http://a\\n\" interval = \"1s\" }",
       "f.hcl:5:16: service.check.http: expected at most 2048 bytes without control"},
      {"check { tcp = \"a:1\" interval = \"x\" timeout = \"1s\" ttl = \"\" }",
       "f.hcl:5:32: service.check.interval: expected a duration"},
      {"check { tcp = \"a:1\" interval = \"1s\" method = \"A B\" }",
       "f.hcl:5:46: service.check.method: expected a method"},
      {"check { tcp = \"a:1\" interval = \"1s\" status = \"fine\" }",
       "f.hcl:5:46: service.check.status: expected \"passing\", \"warning\", \"critical\" or \"\", "
       "got \"fine\""},
      {"check { tcp = \"a:1\" interval = \"1s\" failures_before_warning = 2 "
       "failures_before_critical = 1 }",
       "f.hcl:5:63: service.check.failures_before_warning: must not be above"},
      {"check { tcp = \"a:1\" interval = \"1s\" intervl = 1 }",
       "f.hcl:5:37: service.check.intervl: unknown key: did you mean Interval?"},
      {"check { tcp = \"a:1\" interval = \"1s\" header { \"\" = \"x\" } }",
       "f.hcl:5:44: service.check.header: a header without a name"},
      {"checks = [{ ttl = \"1s\" id = \"a\" }, { ttl = \"1s\" id = \"a\" }]",
       "f.hcl:1:9: service: two checks with the id \"a\""},
  };
  for (const auto& [text, error] : table)
    EXPECT_TRUE(error_with(text).starts_with(error)) << text << "\n" << error_with(text);
  EXPECT_EQ(read("f.hcl", fmt::format("service {{ {} }}\ncheck {{ ttl = \"1s\" }}", kStart)).errors,
            std::vector<std::string>{
                "f.hcl:5:1: check: checks stand inside of the service that they are about"});
  std::string many;
  for (int i = 0; i < 65; ++i) many += "check { ttl = \"1s\" }\n";
  EXPECT_TRUE(error_with(many).find("expected at most 64 checks") != std::string::npos);
}

}  // namespace
}  // namespace mesh::catalog
