// SPDX-License-Identifier: Apache-2.0
// What reaches an application that mesh legs reach too: plaintext from outside only if its service
// says so, and probes of its own node.
#include <thread>

#include "tests/netns/mesh_programs.h"

namespace mesh::test {
namespace {

class MeshInbound : public MeshPrograms {
 protected:
  static constexpr std::uint16_t kGrpc = 50051;

  std::vector<TestService> more_services() override {
    return {{"open", {{server_->addr4, 8082}}, "tcp", {{"mesh-inbound", "permissive"}}},
            {"health", {{server_->addr4, kGrpc}, {server_->addr6, kGrpc}}, "grpc"}};
  }
};

TEST_F(MeshInbound, StrictPermissiveAndProbes) {
  cable_.reset();  // what the permissive service is sent may be seen
  Outside& outside = b_->add_outside("o");
  Process nginx = start_nginx();
  Process open = start_server(*server_, {"echo-server", "--port", "8082"});
  const auto get = [&](const Place& from, bool h2c) {
    std::vector<std::string> argv{
        "curl", "-sS", "--max-time", "10", "-o", "/dev/null", "-w", "%{http_code} %{http_version}"};
    if (h2c) argv.push_back("--http2-prior-knowledge");
    argv.push_back(fmt::format("http://{}:{}/page", server_->addr4, h2c ? 81 : 80));
    return from.run(argv).out;
  };
  const std::string http = "200 1.1";
  const std::string http2 = "200 2";
  // The mesh is in use from here on.
  EXPECT_EQ(get(*client_, false), http);
  EXPECT_EQ(get(*client_, true), http2);
  InteractiveClient mesh(*client_, server_->addr4, 8082);
  EXPECT_EQ(mesh.say("by the mesh")["reply"], "by the mesh");

  // The kubelet of the node: HTTP/1, HTTP/2 and TCP.
  const Labels outside_reason{{"reason", "plaintext_outside"}};
  const double refused_before = metric(*agent_b_, "mesh_denied_total", outside_reason);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(get(b_->host(), false), http);
    EXPECT_EQ(get(b_->host(), true), http2);
    EXPECT_TRUE(b_->host().run({"nc", "-z", "-w", "5", server_->addr4, "80"}).ok());
  }
  EXPECT_EQ(metric(*agent_b_, "mesh_denied_total", outside_reason), refused_before);

  // Others: a machine beside the node, and the other node itself, which is no workload.
  double refused = refused_before;
  for (const Place* from : {static_cast<const Place*>(&outside), &a_->host()}) {
    for (const std::uint16_t port : {80, 81}) {
      const auto seen = run_client(*from, server_->addr4, port);
      EXPECT_EQ(seen["errno"], "ECONNREFUSED") << seen;
    }
    const double now = metric(*agent_b_, "mesh_denied_total", outside_reason);
    // A RST that is lost while the way back is being resolved makes for a second SYN.
    EXPECT_GE(now, refused + 2);
    refused = now;
    const auto seen = run_client(*from, server_->addr4, 8082, {"--text", "in clear"});
    EXPECT_EQ(seen["reply"], "in clear") << seen;
  }
  EXPECT_EQ(mesh.say("still there")["reply"], "still there");
  EXPECT_EQ(get(*client_, false), http);
}

TEST_F(MeshInbound, WhatAPermissiveServiceLetInEndsWhenItIsStrict) {
  cable_.reset();  // what the permissive service is sent may be seen
  Outside& outside = b_->add_outside("o");
  Process open = start_server(*server_, {"echo-server", "--port", "8082"});
  InteractiveClient mesh(*client_, server_->addr4, 8082);
  InteractiveClient probe(b_->host(), server_->addr4, 8082);
  InteractiveClient plain(outside, server_->addr4, 8082);
  for (auto* one : {&mesh, &probe, &plain}) ASSERT_EQ(one->say("before")["reply"], "before");

  auto services = more_services();
  services[0].meta.clear();
  services.push_back({"caller", {{client_->addr4, 1}, {client_->addr6, 1}}});
  const auto since = std::chrono::steady_clock::now();
  write_catalog(services);
  const auto closed = wait_events(open, "close", 1, kSettle);
  EXPECT_LE(std::chrono::steady_clock::now() - since, kWithinOneSecond);
  EXPECT_EQ(closed[0]["end"], "ECONNABORTED") << closed[0];
  EXPECT_NE(plain.say("in clear").value("errno", "none"), "none");
  EXPECT_EQ(run_client(outside, server_->addr4, 8082)["errno"], "ECONNREFUSED");
  expect_metric(*agent_b_, "mesh_revoked_connections_total",
                {{"reason", "strict"}, {"path", "passthrough"}}, 1);
  EXPECT_EQ(mesh.say("after")["reply"], "after");
  EXPECT_EQ(probe.say("after")["reply"], "after");
}

// Whoever takes an instance out of the catalog to drain it means new connections.
TEST_F(MeshInbound, AnInstanceThatLeavesTheCatalogKeepsWhatIsOpen) {
  cable_.reset();
  Outside& outside = b_->add_outside("o");
  Process open = start_server(*server_, {"echo-server", "--port", "8082"});
  InteractiveClient plain(outside, server_->addr4, 8082);
  ASSERT_EQ(plain.say("before")["reply"], "before");
  auto services = more_services();
  services.erase(services.begin());
  services.push_back({"caller", {{client_->addr4, 1}, {client_->addr6, 1}}});
  write_catalog(services);
  ASSERT_TRUE(eventually(
      kSettle,
      [&] {
        return run_client(outside, server_->addr4, 8082).value("errno", "") == "ECONNREFUSED";
      },
      "nobody new comes in"));
  std::this_thread::sleep_for(std::chrono::seconds(1));  // a walk would be over
  EXPECT_EQ(plain.say("after")["reply"], "after");
  // It comes back, and no plaintext is for it.
  services.push_back({"open", {{server_->addr4, 8082}}});
  write_catalog(services);
  EXPECT_TRUE(eventually(
      kSettle, [&] { return plain.say("more").value("errno", "none") != "none"; }, "it is ended"));
}

// A gRPC client and server of their own kind, with the calls of a kubelet's gRPC probe.
TEST_F(MeshInbound, GrpcProbesSucceedFromTheNodeOnly) {
  cable_.reset();  // the calls are too few for what it wants to see
  Outside& outside = b_->add_outside("o");
  Process health = server_->spawn({MESH_GRPC_PROBE, "serve", std::to_string(kGrpc)});
  ASSERT_TRUE(health.wait_output("listening", kSettle)) << health.err();
  const auto check = [&](const Place& from, const std::string& address) {
    return from.run({MESH_GRPC_PROBE, "check", address, std::to_string(kGrpc)}, 2 * kRunLimit).out;
  };
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(check(b_->host(), server_->addr4), "SERVING\n");
    EXPECT_EQ(check(b_->host(), server_->addr6), "SERVING\n");
  }
  EXPECT_EQ(check(*client_, server_->addr4), "SERVING\n") << "by the mesh";
  EXPECT_EQ(check(*client_, vip4("health")), "SERVING\n") << "by its VIP";
  EXPECT_EQ(check(outside, server_->addr4), "UNAVAILABLE\n");
  EXPECT_EQ(check(a_->host(), server_->addr4), "UNAVAILABLE\n");
  // The mesh in use makes no difference to the node.
  EXPECT_EQ(check(b_->host(), server_->addr4), "SERVING\n");
}

}  // namespace
}  // namespace mesh::test
