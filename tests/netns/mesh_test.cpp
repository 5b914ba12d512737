// SPDX-License-Identifier: Apache-2.0
#include "tests/netns/mesh_test.h"

#include <algorithm>

#include "tests/support/must.h"

namespace mesh::test {

namespace {

// A fixture that is not set up ends its test.
void require(const ::testing::AssertionResult& result) {
  if (!result) throw SetupFailed(result.message());
}

}  // namespace

std::string services_json(const std::vector<TestService>& services) {
  nlohmann::json all = nlohmann::json::array();
  for (const auto& service : services) {
    for (std::size_t i = 0; i < service.instances.size(); ++i) {
      nlohmann::json one{{"id", fmt::format("{}-{}", service.name, i + 1)},
                         {"name", service.name},
                         {"address", service.instances[i].address},
                         {"port", service.instances[i].port},
                         {"protocol", service.protocol}};
      if (!service.meta.empty()) one["meta"] = service.meta;
      all.push_back(std::move(one));
    }
  }
  return nlohmann::json{{"services", all}}.dump(2);
}

void MeshTest::SetUp() {
  MESH_NEED_ROOT();
  node_.emplace("n");
}

void MeshTest::TearDown() {
  if (HasFailure() && agent_)
    std::fprintf(stderr, "--- mesh-agent's log\n%s\n", agent_->log().c_str());
  agent_.reset();
  node_.reset();
}

void MeshTest::apply(const std::vector<TestService>& services) {
  node().write_config("services.json", services_json(services));
  if (!agent_) agent_.emplace(node());
  // The catalog is in force once status shows exactly these instances; enrolment of pods is awaited
  // by instance, for those that are pods of this node.
  require(eventually(
      kSettle,
      [&]() -> ::testing::AssertionResult {
        const auto status = agent().status_json();
        std::vector<std::string> wanted, shown;
        for (const auto& service : services)
          for (const auto& instance : service.instances)
            wanted.push_back(
                fmt::format("{} {} {}", service.name, instance.address, instance.port));
        for (const auto& service : status["services"]) {
          for (const auto& instance : service["instances"]) {
            const std::string at = instance["address"];
            shown.push_back(fmt::format("{} {} {}", service["name"].get<std::string>(), host_of(at),
                                        port_of(at)));
          }
        }
        std::sort(wanted.begin(), wanted.end());
        std::sort(shown.begin(), shown.end());
        if (wanted != shown) return ::testing::AssertionFailure() << status["services"];
        return ::testing::AssertionSuccess();
      },
      "the services are shown"));
}

void MeshTest::wait_enrolled(const Pod& pod, std::chrono::milliseconds limit) {
  const auto cookie = must(pod.netns().cookie(), "cookie");
  require(eventually(
      limit,
      [&] {
        const auto status = agent().status_json();
        for (const auto& workload : status["workloads"])
          if (workload["netns_cookie"].get<std::uint64_t>() == cookie) return true;
        return false;
      },
      pod.name + " is enrolled"));
}

std::string MeshTest::vip(const std::string& service, const std::string& key) {
  const auto status = agent().status_json();
  for (const auto& one : status["services"])
    if (one["name"] == service) return one[key];
  throw SetupFailed("status shows no service " + service);
}

std::string MeshTest::vip4(const std::string& service) { return vip(service, "vip4"); }
std::string MeshTest::vip6(const std::string& service) { return vip(service, "vip6"); }

double MeshTest::denied(const std::string& reason) {
  return agent().metrics().value("mesh_denied_total", {{"reason", reason}});
}

std::map<std::string, double> MeshTest::denials() {
  std::map<std::string, double> all;
  for (const auto& sample : agent().metrics().find("mesh_denied_total"))
    all[sample.labels.at("reason")] += sample.value;
  return all;
}

void MeshTest::expect_denied(const std::string& reason, const std::function<void()>& action,
                             unsigned count) {
  auto expected = denials();
  ASSERT_TRUE(expected.contains(reason)) << "no such reason: " << reason;
  expected[reason] += count;
  action();
  auto seen = denials();
  // A SYN whose RST is lost while the way back is being resolved is sent, and refused, again.
  if (reason == "plaintext_outside" && seen[reason] > expected[reason])
    seen[reason] = expected[reason];
  EXPECT_EQ(seen, expected);
}

void MeshTest::expect_not_denied(const std::function<void()>& action) {
  const auto before = denials();
  action();
  EXPECT_EQ(denials(), before);
}

void MeshTest::expect_metric(const std::string& name, const Labels& labels, double wanted) {
  std::string text;
  for (const auto& [label, value] : labels) text += fmt::format("{}={} ", label, value);
  EXPECT_TRUE(eventually(
      kSettle,
      [&]() -> ::testing::AssertionResult {
        const Metrics metrics = agent().metrics();
        if (metrics.value(name, labels) == wanted) return ::testing::AssertionSuccess();
        return ::testing::AssertionFailure() << "\n" << metrics.dump(name);
      },
      fmt::format("{}{{{}}} is {}", name, text, wanted)));
}

void PodPair::SetUp() {
  MeshTest::SetUp();
  if (!node_) return;
  client_ = &node().add_pod("client");
  server_ = &node().add_pod("server");
}

std::string host_of(const std::string& name) {
  std::string host = name.substr(0, name.rfind(':'));
  if (host.starts_with('[')) host = host.substr(1, host.size() - 2);
  return host;
}

std::string port_of(const std::string& name) { return name.substr(name.rfind(':') + 1); }

std::string unmapped(const std::string& name) {
  constexpr std::string_view kMapped = "[::ffff:";
  if (!name.starts_with(kMapped)) return name;
  std::string rest = name.substr(kMapped.size());
  rest.erase(rest.find(']'), 1);
  return rest;
}

}  // namespace mesh::test
