// SPDX-License-Identifier: Apache-2.0
// A pod whose sk_lookup program is taken away and cannot be had back, because others have taken all
// places: it is cut off from the mesh, not open to everybody, until there is room again.
#include <bpf/bpf.h>

#include <csignal>

#include "mesh/abi.h"
#include "tests/netns/foreign_programs.h"
#include "tests/netns/full_map.h"
#include "tests/netns/intentions.h"
#include "tests/netns/mesh_test.h"
#include "tests/support/must.h"

namespace mesh::test {
namespace {

using ::testing::HasSubstr;

class FullHook : public PodPair {
 protected:
  void SetUp() override {
    PodPair::SetUp();
    if (!node_) return;
    other_ = &node().add_pod("other");
    outside_ = &node().add_outside("o");
    for (const Pod* pod : {server_, other_})
      for (const char* port : {"8080", "8081"})
        servers_.push_back(start_server(*pod, {"echo-server", "--port", port}));
    apply({{"caller", {{client_->addr4, 1}}},
           {"web", {{server_->addr4, 8080}}},
           {"relayed", {{server_->addr4, 8081}}, "tcp", kTwoleg},
           {"other", {{other_->addr4, 8080}}}});
    for (const Pod* pod : {client_, server_, other_}) wait_enrolled(*pod);
  }
  void TearDown() override {
    if (agent_) ::kill(agent().pid(), SIGCONT);
    servers_.clear();
    PodPair::TearDown();
  }

  void detach_inbound(const Pod& pod) {
    const auto cookie = must(pod.netns().cookie(), "cookie");
    const std::string path =
        fmt::format("{}/v{}/links/netns-{}", node().pin_dir(), MESH_ABI_VERSION, cookie);
    const UniqueFd link(::bpf_obj_get(path.c_str()));
    ASSERT_TRUE(link) << path;
    ASSERT_EQ(::bpf_link_detach(link.get()), 0);
  }
  double degraded() { return agent().metrics().value("mesh_degraded", {{"feature", "hooks"}}); }
  std::string failure(const Place& from, const std::string& to, std::uint16_t port) {
    return run_client(from, to, port, {"--timeout", "2000"}).value("errno", "none");
  }
  // Connections that the server's two listeners have taken.
  std::size_t accepted() {
    std::size_t count = 0;
    for (std::size_t i = 0; i < 2; ++i)
      for (const auto& line : json_lines(servers_[i].out()))
        if (line["event"] == "accept") ++count;
    return count;
  }

  Pod* other_ = nullptr;
  Outside* outside_ = nullptr;
  std::vector<Process> servers_;
};

TEST_F(FullHook, APodWithoutItsProgramIsReachedByNobody) {
  ASSERT_EQ(failure(*outside_, server_->addr4, 8080), "ECONNREFUSED");
  InteractiveClient local(*client_, vip4("web"), 80);
  InteractiveClient relayed(*client_, vip4("relayed"), 80);
  ASSERT_EQ(local.say("before")["reply"], "before");
  ASSERT_EQ(relayed.say("before")["reply"], "before");

  // While the agent stands still: it would be back before all places are taken.
  ASSERT_EQ(::kill(agent().pid(), SIGSTOP), 0);
  detach_inbound(*server_);
  std::optional<ForeignPrograms> others(
      must(ForeignPrograms::fill_lookup(server_->netns()), "fill the hook"));
  ASSERT_EQ(must(lookup_programs(server_->netns()), "programs").size(), 64u);
  ASSERT_EQ(::kill(agent().pid(), SIGCONT), 0);

  ASSERT_TRUE(eventually(
      kSettle, [&] { return degraded() == 1; }, "it says that the program cannot be had back"));
  EXPECT_TRUE(eventually(
      kSettle,
      [&] {
        const auto log = agent().log();
        const auto at = log.find("programs have been detached, and pods are without them");
        return at != std::string::npos &&
               log.find("Argument list too long", at) != std::string::npos;
      },
      "and why"));
  const auto ready = agent().get("/readyz");
  EXPECT_EQ(ready.status, 503);
  EXPECT_THAT(ready.body, HasSubstr("hooks are missing"));

  const auto before = accepted();
  EXPECT_NE(failure(*outside_, server_->addr4, 8080), "none");
  EXPECT_NE(failure(*outside_, server_->addr6, 8080), "none");
  EXPECT_GT(denied("inbound_unclassified"), 0);
  EXPECT_EQ(failure(*client_, server_->addr4, 8080), "ECONNREFUSED");
  EXPECT_EQ(failure(*client_, vip4("web"), 80), "ECONNREFUSED");
  EXPECT_EQ(failure(*client_, vip4("relayed"), 80), "ECONNREFUSED");
  EXPECT_EQ(failure(*server_, vip4("other"), 80), "ECONNREFUSED");
  EXPECT_EQ(accepted(), before) << "nobody has come in";
  // What is open: no hook of the pod's is asked about it, but the relay lets go.
  EXPECT_EQ(local.say("still")["reply"], "still");
  EXPECT_NE(relayed.say("still").value("errno", "none"), "none");
  EXPECT_EQ(failure(*client_, vip4("other"), 80), "none") << "others are as before";
  EXPECT_EQ(agent().metrics().value("mesh_bpf_programs_reattached_total", {}), 0);

  others.reset();
  EXPECT_TRUE(eventually(
      kSettle, [&] { return degraded() == 0; }, "there is room again"));
  EXPECT_EQ(agent().metrics().value("mesh_bpf_programs_reattached_total", {}), 1);
  for (const char* service : {"web", "relayed"})
    EXPECT_TRUE(eventually(
        kSettle, [&] { return failure(*client_, vip4(service), 80) == "none"; }, service));
  EXPECT_EQ(failure(*server_, vip4("other"), 80), "none");
  EXPECT_EQ(failure(*outside_, server_->addr4, 8080), "ECONNREFUSED");
  EXPECT_EQ(agent().get("/readyz").status, 200);
}

// Also while the maps cannot be brought up to date for another reason.
TEST_F(FullHook, APodWithoutItsProgramIsReachedByNobodyThoughTheMapsAreBehind) {
  std::optional<FullMap> full(must(FullMap::fill(node().pin_dir(), "mesh_intentions"), "fill"));
  write_intentions(node(), {{"other", "relayed", "deny"}});
  ASSERT_TRUE(eventually(
      kSettle, [&] { return agent().get("/readyz").body.find("intentions") != std::string::npos; },
      "the intentions do not fit"));
  ASSERT_EQ(failure(*outside_, server_->addr4, 8080), "ECONNREFUSED");

  ASSERT_EQ(::kill(agent().pid(), SIGSTOP), 0);
  detach_inbound(*server_);
  std::optional<ForeignPrograms> others(
      must(ForeignPrograms::fill_lookup(server_->netns()), "fill the hook"));
  ASSERT_EQ(::kill(agent().pid(), SIGCONT), 0);
  ASSERT_TRUE(eventually(
      kSettle, [&] { return degraded() == 1; }, "it says that the program cannot be had back"));

  const auto before = accepted();
  EXPECT_NE(failure(*outside_, server_->addr4, 8080), "none");
  EXPECT_NE(failure(*outside_, server_->addr6, 8080), "none");
  EXPECT_EQ(failure(*client_, server_->addr4, 8080), "ECONNREFUSED");
  EXPECT_EQ(failure(*server_, other_->addr4, 8080), "ECONNREFUSED");
  EXPECT_EQ(accepted(), before) << "nobody has come in";

  full.reset();
  others.reset();
  EXPECT_TRUE(eventually(
      kSettle, [&] { return agent().get("/readyz").status == 200; }, "there is room again"));
  EXPECT_EQ(failure(*client_, vip4("web"), 80), "none");
  EXPECT_EQ(failure(*outside_, server_->addr4, 8080), "ECONNREFUSED");
}

}  // namespace
}  // namespace mesh::test
