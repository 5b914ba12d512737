// SPDX-License-Identifier: Apache-2.0
// What the tests of a running agent share: services in JSON, the fixture, and how refusals are
// counted.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "tests/support/agent.h"
#include "tests/support/eventually.h"
#include "tests/support/node.h"
#include "tests/support/peer.h"

namespace mesh::test {

struct ServiceInstance {
  std::string address;
  std::uint16_t port = 0;
};

struct TestService {
  std::string name;
  std::vector<ServiceInstance> instances = {};
  std::string protocol = "tcp";
  std::map<std::string, std::string> meta = {};
};

// {"services":[...]}, one definition an instance.
std::string services_json(const std::vector<TestService>& services);

inline const std::map<std::string, std::string> kTwoleg{{"mesh-path", "twoleg"}};

// Where a promise says "within 1 s": what a loaded machine may add is allowed for.
inline const std::chrono::milliseconds kWithinOneSecond{std::getenv("MESH_VM") != nullptr ? 20000
                                                                                          : 4000};
constexpr std::chrono::milliseconds kSettle{30000};

class MeshTest : public ::testing::Test {
 protected:
  void SetUp() override;
  void TearDown() override;  // prints the agent's log if the test failed

  // Writes the services, starts the agent if it does not run, and waits until all of it is in
  // force.
  void apply(const std::vector<TestService>& services);
  void wait_enrolled(const Pod& pod, std::chrono::milliseconds limit = kSettle);
  // The VIP of a service, "4" or "6", as `status` shows it.
  std::string vip4(const std::string& service);
  std::string vip6(const std::string& service);

  double denied(const std::string& reason);
  // Runs `action`; then `reason` has risen by `count` and no other reason has risen.
  void expect_denied(const std::string& reason, const std::function<void()>& action,
                     unsigned count = 1);
  // Runs `action`; then no reason has risen.
  void expect_not_denied(const std::function<void()>& action);
  // Waits until the sum over the labels is `wanted`.
  void expect_metric(const std::string& name, const Labels& labels, double wanted);

  Node& node() { return *node_; }
  Agent& agent() { return *agent_; }

  std::optional<Node> node_;
  std::optional<Agent> agent_;

 private:
  std::map<std::string, double> denials();
  std::string vip(const std::string& service, const std::string& key);
};

// The same with a pod that calls and one that is called.
class PodPair : public MeshTest {
 protected:
  void SetUp() override;

  Pod* client_ = nullptr;
  Pod* server_ = nullptr;
};

// "a.b.c.d:p" or "[v6]:p" without the port.
std::string host_of(const std::string& name);
std::string port_of(const std::string& name);
// "[::ffff:a.b.c.d]:p" of a dual-stack listener -> "a.b.c.d:p".
std::string unmapped(const std::string& name);

}  // namespace mesh::test
