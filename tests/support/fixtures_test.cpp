// SPDX-License-Identifier: Apache-2.0
// The fixtures themselves, without any agent: what they make exists, works and is gone afterwards.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>

#include "tests/support/eventually.h"
#include "tests/support/must.h"
#include "tests/support/node.h"
#include "tests/support/peer.h"

namespace mesh::test {
namespace {

using namespace std::chrono_literals;
namespace fs = std::filesystem;
using ::testing::HasSubstr;

class Fixtures : public ::testing::Test {
 protected:
  void SetUp() override { MESH_NEED_ROOT(); }
};

// Everything on this machine whose name carries this process' scratch prefix.
std::vector<std::string> scratch_things() {
  std::vector<std::string> found;
  for (const std::string& directory : {std::string("/run/netns"), std::string("/run"),
                                       std::string("/sys/fs/bpf"), must(cgroup2_mount(), "test")}) {
    std::error_code none;  // a directory that is not there holds nothing
    for (const auto& entry : fs::directory_iterator(directory, none))
      if (entry.path().filename().string().starts_with(scratch_name("")))
        found.push_back(entry.path());
  }
  return found;
}

TEST_F(Fixtures, PodsReachEachOtherOnBothFamilies) {
  Node node("a");
  Pod& client = node.add_pod("client");
  Pod& server = node.add_pod("server");
  Process echo = start_server(server, {"echo-server", "--port", "8080"});

  const auto v4 = run_client(client, server.addr4, 8080);
  ASSERT_TRUE(v4.value("ok", false)) << v4;
  EXPECT_EQ(v4["reply"], "hello");
  EXPECT_EQ(v4["getpeername"], server.addr4 + ":8080");
  EXPECT_THAT(v4["getsockname"].get<std::string>(), HasSubstr(client.addr4 + ":"));

  const auto v6 = run_client(client, server.addr6, 8080);
  ASSERT_TRUE(v6.value("ok", false)) << v6;
  EXPECT_EQ(v6["getpeername"], "[" + server.addr6 + "]:8080");

  const auto accepted = wait_events(echo, "accept", 2);
  EXPECT_EQ(accepted[0]["accept"],
            "[::ffff:" + client.addr4 +
                "]:" + v4["getsockname"].get<std::string>().substr(client.addr4.size() + 1));
  EXPECT_EQ(accepted[1]["getpeername"], v6["getsockname"]);
}

TEST_F(Fixtures, HostReachesPodsAndPodsReachTheHost) {
  Node node("a");
  Pod& pod = node.add_pod("p");
  Process in_pod = start_server(pod, {"echo-server", "--port", "80"});
  Process in_host = start_server(node.host(), {"echo-server", "--port", "81"});
  EXPECT_TRUE(run_client(node.host(), pod.addr4, 80)["ok"]);
  EXPECT_TRUE(run_client(node.host(), pod.addr6, 80)["ok"]);
  EXPECT_TRUE(run_client(pod, node.gateway4(), 81)["ok"]);
  EXPECT_TRUE(run_client(pod, node.gateway6(), 81)["ok"]);
}

TEST_F(Fixtures, OutsideIsRoutedAndCanBeMasqueraded) {
  Node node("a");
  Pod& pod = node.add_pod("p");
  Outside& outside = node.add_outside("o");
  Process echo = start_server(pod, {"echo-server", "--port", "80"});
  ASSERT_TRUE(run_client(outside, pod.addr4, 80)["ok"]);
  ASSERT_TRUE(run_client(outside, pod.addr6, 80)["ok"]);
  auto accepted = wait_events(echo, "accept", 2);
  EXPECT_THAT(accepted[0]["accept"].get<std::string>(), HasSubstr(outside.addr4));
  EXPECT_THAT(accepted[1]["accept"].get<std::string>(), HasSubstr(outside.addr6));

  node.masquerade_outside();
  ASSERT_TRUE(run_client(outside, pod.addr4, 80)["ok"]);
  ASSERT_TRUE(run_client(outside, pod.addr6, 80)["ok"]);
  accepted = wait_events(echo, "accept", 4);
  EXPECT_THAT(accepted[2]["accept"].get<std::string>(), HasSubstr(node.gateway4()));
  EXPECT_THAT(accepted[3]["accept"].get<std::string>(), HasSubstr(node.gateway6()));
}

TEST_F(Fixtures, LinkedNodesReachEachOthersPods) {
  Node a("a");
  Node b("b");
  ASSERT_NE(a.cidr4(), b.cidr4());
  link_nodes(a, b);
  Pod& client = a.add_pod("client");
  Pod& server = b.add_pod("server");
  for (const Place* place : std::initializer_list<const Place*>{&a.host(), &b.host(), &client})
    EXPECT_EQ(place->run({"ip", "-6", "-o", "addr", "show", "tentative"}).out, "")
        << "nobody is waited for who might have the same address";
  Process echo = start_server(server, {"echo-server", "--port", "80"});
  EXPECT_TRUE(run_client(client, server.addr4, 80)["ok"]);
  EXPECT_TRUE(run_client(client, server.addr6, 80)["ok"]);
  const auto accepted = wait_events(echo, "accept", 2);
  EXPECT_THAT(accepted[0]["accept"].get<std::string>(), HasSubstr(client.addr4));

  // A third one has a cable to each.
  Node c("c");
  link_nodes(a, c);
  link_nodes(c, b);
  EXPECT_EQ(cable_address4(a, b), "172.31.0.1");
  EXPECT_EQ(cable_address4(b, a), "172.31.0.2");
  for (const Node* near : {&a, &b}) {
    const std::string device = cable_device(c);
    EXPECT_THAT(near->host().run({"ip", "addr", "show", "dev", device}).out,
                HasSubstr(cable_address4(*near, c) + "/30"));
    EXPECT_THAT(near->host().run({"ip", "route", "get", c.address4(10)}).out, HasSubstr(device));
  }
  Pod& third = c.add_pod("third");
  EXPECT_TRUE(run_client(third, server.addr4, 80)["ok"]);
  EXPECT_TRUE(run_client(third, server.addr6, 80)["ok"]);
  EXPECT_THAT(wait_events(echo, "accept", 4)[3]["accept"].get<std::string>(),
              HasSubstr(third.addr6));
  Process far = start_server(third, {"echo-server", "--port", "80"});
  EXPECT_TRUE(run_client(client, third.addr4, 80)["ok"]);
}

TEST_F(Fixtures, ProcessesAreInTheirCgroupAndNamespace) {
  Node node("a");
  Pod& pod = node.add_pod("p");
  Outside& outside = node.add_outside("o");
  const std::string mount = must(cgroup2_mount(), "test");
  const auto cgroup_of = [&](const Place& place) {
    // The line of cgroup v2: "0::/mt-1-a/pod-p"
    const RunResult result = place.run({"grep", "^0::", "/proc/self/cgroup"});
    return mount + result.out.substr(3, result.out.size() - 4);
  };
  EXPECT_EQ(cgroup_of(pod), pod.cgroup());
  EXPECT_TRUE(pod.cgroup().starts_with(node.cgroup_root() + "/"));
  EXPECT_EQ(cgroup_of(node.host()), node.host().cgroup());
  EXPECT_THAT(cgroup_of(outside), ::testing::Not(HasSubstr(node.cgroup_root())));

  EXPECT_THAT(pod.run({"ip", "addr"}).out, HasSubstr(pod.addr4));
  // A forked function sits in the same place and has no descriptor of the test.
  Process child = pod.fork_function([] { return ::open("/proc/self/net/dev", 0) == 3 ? 7 : 8; });
  const auto status = child.wait(10s);
  ASSERT_TRUE(status) << status.error().what;
  EXPECT_EQ(status->code, 7);
}

TEST_F(Fixtures, AnonymousNamespaceHasNoMount) {
  Node node("a");
  Pod& server = node.add_pod("named");
  Pod& client = node.add_pod("anon", node.address4(50), node.address6(50), PodKind::Anonymous);
  EXPECT_FALSE(fs::exists("/run/netns/" + client.netns().name()));
  EXPECT_TRUE(fs::exists("/run/netns/" + server.netns().name()));
  Process echo = start_server(server, {"echo-server", "--port", "80"});
  EXPECT_TRUE(run_client(client, server.addr4, 80)["ok"]);
  EXPECT_NE(must(server.netns().cookie(), "cookie"), must(client.netns().cookie(), "cookie"));
  const std::string veth = client.host_veth;
  node.remove_pod("anon");
  EXPECT_TRUE(eventually(
      5s, [&] { return !node.host().netns().has_link(veth); }, "veth is gone"));
}

TEST_F(Fixtures, PodCanBeMadeAgainWithItsAddress) {
  Node node("a");
  Pod& first = node.add_pod("p");
  const std::string addr4 = first.addr4, addr6 = first.addr6, veth = first.host_veth;
  const auto cookie = must(first.netns().cookie(), "cookie");
  Process echo = start_server(first, {"echo-server", "--port", "80"});
  node.remove_pod("p");
  EXPECT_FALSE(echo.running());
  EXPECT_TRUE(eventually(
      5s, [&] { return !node.host().netns().has_link(veth); }, "veth is gone"));
  Pod& second = node.add_pod("p", addr4, addr6);
  EXPECT_NE(must(second.netns().cookie(), "cookie"), cookie);
  Process again = start_server(second, {"echo-server", "--port", "80"});
  EXPECT_TRUE(run_client(node.host(), addr4, 80)["ok"]);
}

TEST_F(Fixtures, NothingStaysBehind) {
  pid_t daemon = 0;
  {
    Node node("gone");
    Pod& pod = node.add_pod("p");
    node.add_outside("o");
    node.write_config("services.json", "{}");
    EXPECT_EQ(must(read_file(node.config_dir() + "/services.json"), "test"), "{}");
    must(make_directory(node.pin_dir() + "/v1"), "pin dir");
    // It leaves its process group, as a daemon does: the cgroup still has it.
    Process process = pod.spawn({"setsid", "sh", "-c", "echo $$; exec sleep 600"});
    ASSERT_TRUE(process.wait_lines(1, 5s));
    daemon = std::stoi(process.out());
    EXPECT_GE(scratch_things().size(), 4u);
    EXPECT_EQ(::kill(daemon, 0), 0);
  }
  EXPECT_THAT(scratch_things(), ::testing::IsEmpty());
  // Killed; whoever inherited it may not have reaped it yet.
  const auto status = read_file(fmt::format("/proc/{}/status", daemon));
  EXPECT_TRUE(!status || status->find("State:\tZ") != std::string::npos) << *status;
}

TEST_F(Fixtures, FailedSetupThrowsAndLeavesNothing) {
  {
    Node node("bad");
    EXPECT_THROW(node.add_pod("p", "not-an-address", ""), SetupFailed);
    EXPECT_THROW((void)node.pod("p"), SetupFailed);
    EXPECT_THROW(node.host().spawn({"/does/not/exist"}), SetupFailed);
  }
  EXPECT_THAT(scratch_things(), ::testing::IsEmpty());
}

// A test process that dies without unwinding; the next one removes what it left.
TEST_F(Fixtures, LeftoversOfACrashedTestAreSwept) {
  const std::string mount = must(cgroup2_mount(), "test");
  const pid_t crashed = ::fork();
  ASSERT_GE(crashed, 0);
  if (crashed == 0) {
    auto cgroup = ScratchCgroup::create("crash");
    auto netns = Netns::create("crash");
    ::_exit(cgroup && netns ? 0 : 1);  // no destructor runs
  }
  int status = 0;
  ASSERT_EQ(::waitpid(crashed, &status, 0), crashed);
  ASSERT_EQ(status, 0);
  const std::string left = fmt::format("mt-{}-crash", crashed);
  ASSERT_TRUE(fs::exists("/run/netns/" + left));
  ASSERT_TRUE(fs::exists(mount + "/" + left));
  sweep_leftovers();
  EXPECT_FALSE(fs::exists("/run/netns/" + left));
  EXPECT_FALSE(fs::exists(mount + "/" + left));
}

TEST_F(Fixtures, OutputIsBoundedAndDeadlinesHold) {
  SpawnOptions options;
  options.max_output = 1000;
  auto loud = run({"head", "-c", "50000", "/dev/zero"}, options, 10s);
  ASSERT_TRUE(loud) << loud.error().what;
  EXPECT_TRUE(loud->ok());
  EXPECT_EQ(loud->out.size(), 1000u);

  auto slow = run({"sleep", "60"}, {}, 50ms);
  ASSERT_TRUE(slow) << slow.error().what;
  EXPECT_TRUE(slow->timed_out);
  EXPECT_EQ(slow->status.signal, SIGKILL);

  auto failing = run({"sh", "-c", "echo o; echo e >&2; exit 3"}, {}, 10s);
  ASSERT_TRUE(failing) << failing.error().what;
  EXPECT_EQ(failing->status.code, 3);
  EXPECT_EQ(failing->out, "o\n");
  EXPECT_EQ(failing->err, "e\n");
}

TEST(Eventually, SaysWhatWasAwaited) {
  const auto result = eventually(
      20ms, [] { return ::testing::AssertionFailure() << "saw 1 of 2"; }, "two pods");
  EXPECT_FALSE(result);
  EXPECT_THAT(result.message(), HasSubstr("two pods"));
  EXPECT_THAT(result.message(), HasSubstr("saw 1 of 2"));
}

}  // namespace
}  // namespace mesh::test
