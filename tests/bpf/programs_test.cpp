// SPDX-License-Identifier: Apache-2.0
// What the inbound programs decide, the switches that reach the maps, and what the verifier spends.
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <gmock/gmock.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/utsname.h>

#include <thread>

#include "agent/admin/switches.h"
#include "agent/base/netns.h"
#include "agent/bpf/abi_convert.h"
#include "mesh.skel.h"
#include "mesh/http1.h"
#include "tests/bpf/loaded.h"

namespace mesh::test {
namespace {

Address addr(const char* text) { return *Address::parse(text); }

class ProgramsTest : public LoadedRun {
 protected:
  std::uint64_t denied(mesh_denial reason) { return datapath_->denied()[reason].second; }
  std::uint64_t event(mesh_event which) { return datapath_->events()[which].second; }

  // The verdict of mesh_inbound about a SYN.
  int inbound(const Endpoint& from, const Endpoint& to, std::uint32_t protocol = IPPROTO_TCP) {
    bpf_sk_lookup ctx{};
    ctx.family = to.address.is_v4() ? AF_INET : AF_INET6;
    ctx.protocol = protocol;
    const mesh_addr a = bpf::to_abi(from.address), b = bpf::to_abi(to.address);
    if (to.address.is_v4()) {
      ctx.remote_ip4 = a.w[3];
      ctx.local_ip4 = b.w[3];
    } else {
      std::memcpy(ctx.remote_ip6, &a, sizeof a);
      std::memcpy(ctx.local_ip6, &b, sizeof b);
    }
    ctx.remote_port = htons(from.port);
    ctx.local_port = to.port;
    LIBBPF_OPTS(bpf_test_run_opts, opts);
    opts.ctx_in = &ctx;
    opts.ctx_size_in = sizeof ctx;
    const int fd = bpf_program__fd(datapath_->programs().skeleton().progs.mesh_inbound);
    EXPECT_EQ(bpf_prog_test_run_opts(fd, &opts), 0) << errno;
    return static_cast<int>(opts.retval);
  }
  void admit(const Endpoint& client, const Endpoint& server) {
    const mesh_tuple t{bpf::to_abi(client.address), bpf::to_abi(server.address), client.port,
                       server.port};
    const mesh_admit a{1, 2, 0, 16, MESH_PATH_LOCAL, 0, 0};
    bpf::Map<mesh_tuple, mesh_admit> admits(datapath_->programs().skeleton().maps.mesh_admits);
    ASSERT_TRUE(admits.put(t, a));
  }
};

TEST_F(ProgramsTest, InboundAdmitsWhatIsRecordedAndNothingElse) {
  for (const char* pod : {"10.99.0.1", "fd99::1"}) {
    const Endpoint client{addr(*pod == 'f' ? "fd99::2" : "10.99.0.2"), 40000};
    const Endpoint server{addr(pod), 80};
    EXPECT_EQ(inbound(client, server), SK_PASS) << "no mesh address yet";
    ASSERT_TRUE(datapath_->addrs.put(bpf::to_abi(server.address),
                                     mesh_addr_owner{7, MESH_ADDR_WORKLOAD, 16}));
    const auto before = denied(MESH_DENY_PLAINTEXT_OUTSIDE);
    EXPECT_EQ(inbound(client, server), SK_DROP);
    EXPECT_EQ(denied(MESH_DENY_PLAINTEXT_OUTSIDE), before + 1);
    EXPECT_EQ(inbound(client, server, IPPROTO_UDP), SK_PASS);
    admit(client, server);
    EXPECT_EQ(inbound(client, server), SK_PASS);
    EXPECT_EQ(inbound({client.address, 40001}, server), SK_DROP);
    EXPECT_EQ(inbound(client, {server.address, 81}), SK_DROP);
    EXPECT_EQ(inbound(server, client), SK_PASS);  // not an address of the mesh
    EXPECT_EQ(denied(MESH_DENY_PLAINTEXT_OUTSIDE), before + 3);
  }
}

// Every interface has such an address, which no record, port or intention is about.
TEST_F(ProgramsTest, InboundLetsNobodyInByALinkLocalAddress) {
  const Endpoint server{addr("fe80::1"), 80}, mesh{server.address, MESH_PORT_MESH};
  auto expected = denied(MESH_DENY_PLAINTEXT_OUTSIDE);
  for (const char* from : {"fe80::2", "fd99::2", "2001:db8::2"}) {
    EXPECT_EQ(inbound({addr(from), 40000}, server), SK_DROP) << from;
    EXPECT_EQ(inbound({addr(from), 40000}, mesh), SK_DROP) << from;
    EXPECT_EQ(denied(MESH_DENY_PLAINTEXT_OUTSIDE), expected += 2) << from;
    EXPECT_EQ(inbound({addr(from), 40000}, server, IPPROTO_UDP), SK_PASS) << from;
  }
  EXPECT_EQ(inbound({addr("fe80::2"), 40000}, {addr("febf::1"), 80}), SK_DROP);
  ++expected;
  // The workload itself. Nobody else has ::1 (ipv6_rcv() drops it on every other interface).
  EXPECT_EQ(inbound({server.address, 40000}, server), SK_PASS);
  EXPECT_EQ(inbound({addr("::1"), 40000}, server), SK_PASS);
  // Beside fe80::/10.
  EXPECT_EQ(inbound({addr("fe80::2"), 40000}, {addr("fec0::1"), 80}), SK_PASS);
  EXPECT_EQ(inbound({addr("fe80::2"), 40000}, {addr("fe7f::1"), 80}), SK_PASS);
  EXPECT_EQ(denied(MESH_DENY_PLAINTEXT_OUTSIDE), expected);
}

// The record says who opened it (source 16 in namespace 2); intentions are asked at the SYN.
TEST_F(ProgramsTest, InboundAsksIntentions) {
  const Endpoint client{addr("10.99.0.2"), 40000}, server{addr("10.99.0.1"), 80};
  const Endpoint unclaimed{server.address, 81};
  const mesh_addr at = bpf::to_abi(server.address);
  ASSERT_TRUE(datapath_->addrs.put(at, mesh_addr_owner{7, MESH_ADDR_WORKLOAD, 20}));
  ASSERT_TRUE(datapath_->ports.put(mesh_port_key{at, 80, 0}, mesh_port{21, 0}));
  admit(client, server);
  admit(client, unclaimed);
  const auto expect = [&](const bpf::PolicyTable& table, int claimed, int other) {
    ASSERT_TRUE(datapath_->policy.set(table));
    const auto before = denied(MESH_DENY_POLICY);
    EXPECT_EQ(inbound(client, server), claimed);
    EXPECT_EQ(inbound(client, unclaimed), other);
    EXPECT_EQ(denied(MESH_DENY_POLICY), before + (claimed == SK_DROP) + (other == SK_DROP));
  };
  constexpr std::uint32_t kAny = MESH_POLICY_ANY;
  expect({true, {}}, SK_PASS, SK_PASS);
  expect({false, {}}, SK_DROP, SK_DROP);
  expect({true, {{{21, 16}, false}}}, SK_DROP, SK_PASS);
  expect({false, {{{21, 16}, true}}}, SK_PASS, SK_DROP);
  expect({false, {{{20, kAny}, true}}}, SK_DROP, SK_PASS);
  expect({true, {{{kAny, 16}, false}, {{21, kAny}, true}}}, SK_PASS, SK_DROP);
  expect({true, {{{kAny, kAny}, false}, {{kAny, 16}, true}}}, SK_PASS, SK_PASS);
  expect({true, {{{kAny, kAny}, false}, {{kAny, 17}, true}}}, SK_DROP, SK_DROP);
  // The workload has two services: at other ports both have to agree.
  ASSERT_TRUE(datapath_->residents.put(at, mesh_residents{2, {20, 21}}));
  expect({true, {{{21, 16}, false}}}, SK_DROP, SK_DROP);
  expect({false, {{{20, 16}, true}}}, SK_DROP, SK_DROP);
  expect({false, {{{20, 16}, true}, {{21, 16}, true}}}, SK_PASS, SK_PASS);
  // More than fit.
  ASSERT_TRUE(datapath_->residents.put(at, mesh_residents{MESH_RESIDENTS + 1, {20, 21}}));
  expect({true, {}}, SK_PASS, SK_PASS);
  expect({true, {{{99, 99}, false}}}, SK_PASS, SK_DROP);
  // Its own workload is never refused.
  ASSERT_TRUE(datapath_->addrs.put(at, mesh_addr_owner{2, MESH_ADDR_WORKLOAD, 20}));
  expect({false, {}}, SK_PASS, SK_PASS);
}

TEST_F(ProgramsTest, InboundPassesALegAndAPermissivePort) {
  const Endpoint client{addr("10.99.0.2"), 40000}, server{addr("10.99.0.1"), 80};
  ASSERT_TRUE(datapath_->addrs.put(bpf::to_abi(server.address),
                                   mesh_addr_owner{7, MESH_ADDR_WORKLOAD, 16}));
  const Endpoint relay{addr("127.0.0.1"), 40000};  // legs come from the loopback
  const mesh_tuple leg{bpf::to_abi(relay.address), bpf::to_abi(server.address), 40000, 80};
  bpf::Map<mesh_tuple, mesh_leg> legs(datapath_->programs().skeleton().maps.mesh_legs);
  ASSERT_TRUE(legs.put(leg, mesh_leg{}));
  EXPECT_EQ(inbound(relay, server), SK_PASS);
  ASSERT_TRUE(legs.erase(leg));
  EXPECT_EQ(inbound(relay, server), SK_DROP);
  const mesh_port_key port{bpf::to_abi(server.address), 80, 0};
  ASSERT_TRUE(datapath_->ports.put(port, mesh_port{16, MESH_SVC_HTTP}));
  EXPECT_EQ(inbound(client, server), SK_DROP);
  ASSERT_TRUE(datapath_->ports.put(port, mesh_port{16, MESH_SVC_HTTP | MESH_SVC_PERMISSIVE}));
  EXPECT_EQ(inbound(client, server), SK_PASS);
  EXPECT_EQ(inbound(client, {server.address, 81}), SK_DROP);
}

// A namespace that nobody has enrolled, with a listener in the cgroup at an address of the node.
TEST_F(ProgramsTest, ListenersOfUnclassifiedNamespacesAreNotReached) {
  ASSERT_TRUE(datapath_->cidrs.put(bpf::to_abi(*Cidr::parse("10.99.0.0/24")), MESH_CIDR_NODE));
  std::string problem;
  std::thread inside([&] {
    const auto run = [&]() -> std::string {
      if (::unshare(CLONE_NEWNET) != 0) return "unshare";
      if (std::system("ip link set lo up && ip addr add 10.99.0.1/32 dev lo && "
                      "ip addr add 10.98.0.1/32 dev lo") != 0)
        return "ip";
      const auto enter = [](const std::string& cgroup) {
        std::ofstream(cgroup + "/cgroup.procs") << ::getpid() << std::flush;
      };
      const auto listener = [&](const char* at, std::uint16_t port = 8080, int protocol = 0) {
        UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, protocol));
        const SockAddr a({addr(at), port});
        if (::bind(fd.get(), a.get(), a.length) != 0 || ::listen(fd.get(), 8) != 0) fd.reset();
        return fd;
      };
      // A SYN that is dropped gets no answer at all.
      const auto reaches = [&](const char* at, std::uint16_t port = 8080, int protocol = 0) {
        UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, protocol));
        const timeval limit{0, 300'000};
        ::setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
        const SockAddr a({addr(at), port});
        return ::connect(fd.get(), a.get(), a.length) == 0;
      };
      enter(cgroup_);
      auto mesh = listener("10.99.0.1"), beside = listener("10.98.0.1");
      UniqueFd udp(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
      const auto other = event(MESH_EVENT_OTHER_PROTOCOL);
      const SockAddr target({addr("10.99.0.1"), 53});
      const bool udp_passes = ::connect(udp.get(), target.get(), target.length) == 0;
      auto mptcp = listener("10.99.0.1", 8081, IPPROTO_MPTCP);
      const bool has_sctp = UniqueFd(::socket(AF_INET, SOCK_STREAM, IPPROTO_SCTP)).valid();
      auto sctp = has_sctp ? listener("10.99.0.1", 8082, IPPROTO_SCTP) : UniqueFd();
      if (has_sctp ? !sctp : std::getenv("MESH_VM") != nullptr) return "listen, SCTP";
      enter(mount_);  // the clients' sockets are outside: nothing stops them on their way
      if (!mesh || !beside) return "listen";
      if (!udp_passes || event(MESH_EVENT_OTHER_PROTOCOL) != other + 1) return "UDP not counted";
      auto cookie = netns_cookie(mesh.get());
      if (!cookie) return "cookie";

      auto before = denied(MESH_DENY_INBOUND_UNCLASSIFIED);
      if (reaches("10.99.0.1")) return "reached while unclassified";
      if (denied(MESH_DENY_INBOUND_UNCLASSIFIED) <= before) return "not counted";
      if (mptcp && (reaches("10.99.0.1", 8081) || reaches("10.99.0.1", 8081, IPPROTO_MPTCP)))
        return "MPTCP reached while unclassified";
      before = denied(MESH_DENY_INBOUND_UNCLASSIFIED);
      if (has_sctp && !reaches("10.99.0.1", 8082, IPPROTO_SCTP)) return "SCTP is not reached";
      if (denied(MESH_DENY_INBOUND_UNCLASSIFIED) != before) return "SCTP is counted";
      // What is left on the socket of a client of HTTP that listens now.
      auto& loaded = datapath_->programs().skeleton();
      const bpf::Map<int, mesh_http1_sock> sniffers(loaded.maps.mesh_http1s);
      if (!sniffers.put(mesh.get(), mesh_http1_sock{})) return "no sniffer";
      loaded.bss->mesh_sniffs = 1;
      if (reaches("10.99.0.1")) return "reached with the sniffer of a client";
      if (!sniffers.erase(mesh.get())) return "the sniffer is gone";
      loaded.bss->mesh_sniffs = 0;
      before = denied(MESH_DENY_INBOUND_UNCLASSIFIED);
      if (!reaches("10.98.0.1")) return "an address beside the mesh is not reached";
      const mesh_addr at = bpf::to_abi(addr("10.99.0.1"));
      (void)datapath_->addrs.put(at, mesh_addr_owner{*cookie + 1, MESH_ADDR_WORKLOAD, 0});
      if (reaches("10.99.0.1")) return "reached with the address of another namespace";
      (void)datapath_->addrs.put(at, mesh_addr_owner{*cookie, MESH_ADDR_WORKLOAD, 0});
      before = denied(MESH_DENY_INBOUND_UNCLASSIFIED);
      if (!reaches("10.99.0.1")) return "not reached once enrolled";
      (void)datapath_->addrs.erase(at);
      // As with the boot guard only: the node's own namespace is known, its addresses are not.
      (void)datapath_->netns.put(*cookie, mesh_netns{MESH_NETNS_HOST, MESH_LABEL_NODE, {}, {}});
      if (!reaches("10.99.0.1")) return "the node's own listener is not reached";
      if (denied(MESH_DENY_INBOUND_UNCLASSIFIED) != before) return "counted what passed";
      return "";
    };
    problem = run();
  });
  inside.join();
  EXPECT_EQ(problem, "");
}

TEST_F(ProgramsTest, SwitchesReachTheMapOrNothingChanges) {
  const auto set = [&](nlohmann::json values) {
    return admin::set_switches(*datapath_, {{"set", std::move(values)}});
  };
  auto done = set({"accel=off", "accel-budget=4096", "accel-max-write=1", "metrics=off"});
  ASSERT_TRUE(done) << done.error().what;
  EXPECT_EQ((*done)["accel_budget_bytes"], 4096);
  bpf::Map<std::uint32_t, mesh_runtime> map(datapath_->programs().skeleton().maps.mesh_runtime);
  auto runtime = **map.get(0);
  EXPECT_EQ(runtime.accel_enabled, 0u);
  EXPECT_EQ(runtime.accel_budget, 4096u);
  EXPECT_EQ(runtime.accel_max_write, 1u);
  EXPECT_EQ(runtime.metrics_enabled, 0u);
  for (const char* wrong : {"accel", "accel=", "accel=yes", "metrics=1", "accel-budget=0",
                            "accel-budget=-1", "accel-budget=4294967296", "accel-budget=1k",
                            "nonsense=on", "psk=on", "mesh-idle-legs=0", "", "="}) {
    auto refused = set({"accel=on", wrong});
    EXPECT_FALSE(refused) << wrong;
    EXPECT_EQ((**map.get(0)).accel_enabled, 0u) << wrong;
  }
  EXPECT_FALSE(admin::set_switches(*datapath_, {{"set", 7}}));
  EXPECT_FALSE(admin::set_switches(*datapath_, {{"set", {7}}}));
  EXPECT_FALSE(admin::set_switches(*datapath_, nlohmann::json::object()));
}

TEST_F(ProgramsTest, AnAddressThatChangedHandsLeavesEveryService) {
  mesh_endpoint one{}, two{};
  one.addr4 = bpf::to_abi(addr("10.99.0.1"));
  two.addr6 = bpf::to_abi(addr("fd99::2"));
  const mesh_endpoint both[] = {one, two};
  ASSERT_TRUE(datapath_->set_service(16, MESH_SVC_HTTP, both));
  ASSERT_TRUE(datapath_->drop_endpoints(one.addr4));
  bpf::Map<std::uint32_t, mesh_service> services(
      datapath_->programs().skeleton().maps.mesh_services);
  bpf::Map<mesh_endpoint_key, mesh_endpoint> endpoints(
      datapath_->programs().skeleton().maps.mesh_endpoints);
  auto service = **services.get(16);
  EXPECT_EQ(service.endpoints, 1u);
  EXPECT_EQ(service.flags, MESH_SVC_HTTP);
  const mesh_endpoint left = **endpoints.get({16, service.generation, 0});
  EXPECT_EQ(std::memcmp(&left.addr6, &two.addr6, sizeof two.addr6), 0);
  EXPECT_EQ(endpoints.keys().size(), 1u);  // none of the old generation is left
}

TEST_F(ProgramsTest, TheVerifierSpendsNoMoreThanRecorded) {
  utsname kernel{};
  ::uname(&kernel);
  std::ifstream file(MESH_VERIFIED_INSNS);
  std::map<std::string, std::uint32_t> ceilings;
  for (std::string line; std::getline(file, line);) {
    std::string name;
    std::uint32_t ceiling = 0;
    if (!line.empty() && line[0] != '#' && (std::istringstream(line) >> name >> ceiling))
      ceilings[name] = ceiling;
  }
  std::size_t checked = 0;
  for (const auto& program : datapath_->programs().verified()) {
    std::printf("%s %-20s %u\n", kernel.release, program.name.c_str(),
                program.verified_instructions);
    ASSERT_TRUE(ceilings.count(program.name)) << program.name << " has no ceiling";
    EXPECT_GT(program.verified_instructions, 0u) << program.name;
    EXPECT_LE(program.verified_instructions, ceilings[program.name]) << program.name;
    ++checked;
  }
  EXPECT_GE(checked, 12u);
}

}  // namespace
}  // namespace mesh::test
