// SPDX-License-Identifier: Apache-2.0
// Pins, links and generations: one agent at a time, adoption in place, nothing left behind, and the
// programs of others untouched.
#include <bpf/bpf.h>
#include <gmock/gmock.h>

#include <set>

#include "agent/bpf/datapath.h"
#include "agent/catalog/model.h"
#include "mesh.skel.h"
#include "tests/bpf/scratch.h"

namespace mesh::test {
namespace {

using testing::HasSubstr;
namespace fs = std::filesystem;

class PinsTest : public MeshRun {
 protected:
  std::size_t attached(bpf_attach_type type) {
    UniqueFd cgroup(::open(cgroup_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    __u32 ids[64], count = 64;
    EXPECT_EQ(bpf_prog_query(cgroup.get(), type, 0, nullptr, ids, &count), 0);
    return count;
  }
  std::vector<std::size_t> all_attached() {
    std::vector<std::size_t> counts;
    for (auto type :
         {BPF_CGROUP_INET4_CONNECT, BPF_CGROUP_INET6_CONNECT, BPF_CGROUP_SOCK_OPS,
          BPF_CGROUP_INET_INGRESS, BPF_CGROUP_INET4_GETPEERNAME, BPF_CGROUP_INET6_GETSOCKNAME})
      counts.push_back(attached(type));
    return counts;
  }
  std::set<std::string> pinned() const {
    std::set<std::string> files;
    for (const auto& entry : fs::recursive_directory_iterator(pins_))
      if (!entry.is_directory()) files.insert(entry.path());
    return files;
  }
  // A connect4 program of somebody else, attached the way that allows others beside it.
  UniqueFd attach_foreign() {
    const bpf_insn pass[] = {
        {.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 0, .src_reg = 0, .off = 0, .imm = 1},
        {.code = BPF_JMP | BPF_EXIT, .dst_reg = 0, .src_reg = 0, .off = 0, .imm = 0}};
    LIBBPF_OPTS(bpf_prog_load_opts, opts);
    opts.expected_attach_type = BPF_CGROUP_INET4_CONNECT;
    UniqueFd prog(bpf_prog_load(BPF_PROG_TYPE_CGROUP_SOCK_ADDR, "foreign", "GPL", pass, 2, &opts));
    UniqueFd cgroup(::open(cgroup_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    EXPECT_EQ(
        bpf_prog_attach(prog.get(), cgroup.get(), BPF_CGROUP_INET4_CONNECT, BPF_F_ALLOW_MULTI), 0);
    return prog;
  }
};

TEST_F(PinsTest, FreshThenAdoptedInPlace) {
  std::uint64_t generation = 0;
  std::vector<std::size_t> counts;
  {
    auto first = open();
    ASSERT_TRUE(first) << first.error().what;
    EXPECT_FALSE(first->adopted());
    generation = first->generation();
    counts = all_attached();
    EXPECT_EQ(counts, std::vector<std::size_t>(counts.size(), 1));
    bpf::Datapath datapath(std::move(*first));
    ASSERT_TRUE(datapath.heartbeat());  // writes the generation
    ASSERT_TRUE(datapath.vips.put({{1, 2, 3, 4}}, 99));
  }
  EXPECT_EQ(all_attached(), counts);  // the links are pinned
  auto second = open();
  ASSERT_TRUE(second) << second.error().what;
  EXPECT_TRUE(second->adopted());
  EXPECT_EQ(second->generation(), generation + 1);
  EXPECT_EQ(all_attached(), counts);
  bpf::Datapath datapath(std::move(*second));
  EXPECT_EQ(datapath.vips.content().size(), 1u);
}

TEST_F(PinsTest, MapsHoldTheLargestCatalog) {
  auto programs = open();
  ASSERT_TRUE(programs) << programs.error().what;
  const auto& maps = programs->skeleton().maps;
  const auto room = [](const bpf_map* map) { return std::size_t{bpf_map__max_entries(map)}; };
  EXPECT_GE(room(maps.mesh_vips), 2 * catalog::kMaxServices);
  EXPECT_GE(room(maps.mesh_services), catalog::kMaxServices);
  EXPECT_GE(room(maps.mesh_names), catalog::kMaxServices);
  // Every instance at an address of its own.
  EXPECT_GE(room(maps.mesh_addrs), catalog::kMaxInstances);
  EXPECT_GE(room(maps.mesh_ports), catalog::kMaxInstances);
  // Families mixed at worst (9/7), and a service with all of them in two generations.
  EXPECT_GE(room(maps.mesh_endpoints), 2 * catalog::kMaxInstances * 9 / 7);
  EXPECT_GE(room(maps.mesh_cidrs), catalog::kMaxNodeCidrs);
}

// Somebody else has written to the maps, or an agent died between two steps.
TEST_F(PinsTest, MendsServicesAndWritesAgainWhatIsNotWhole) {
  const auto endpoint = [](std::uint32_t number) {
    mesh_endpoint one{};
    one.addr4.w[3] = number;
    one.port = 80;
    return one;
  };
  const std::vector<mesh_endpoint> wanted{endpoint(1), endpoint(2), endpoint(3)};
  UniqueFd services, endpoints;
  const auto read = [&](std::uint32_t label) {
    mesh_service service{};
    std::vector<mesh_endpoint> all;
    EXPECT_EQ(bpf_map_lookup_elem(services.get(), &label, &service), 0);
    for (std::uint32_t i = 0; i < service.endpoints; ++i) {
      const mesh_endpoint_key key{label, service.generation, i};
      EXPECT_EQ(bpf_map_lookup_elem(endpoints.get(), &key, &all.emplace_back()), 0);
    }
    return all;
  };
  const auto same = [](const auto& a, const auto& b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof a[0]) == 0;
  };
  {
    auto first = open();
    ASSERT_TRUE(first) << first.error().what;
    bpf::Datapath datapath(std::move(*first));
    const auto map = [&](const char* name) {
      return UniqueFd(
          bpf_obj_get((pins_ + "/v" + std::to_string(MESH_ABI_VERSION) + "/maps/" + name).c_str()));
    };
    services = map("mesh_services");
    endpoints = map("mesh_endpoints");
    ASSERT_TRUE(services && endpoints);
    ASSERT_TRUE(datapath.set_service(20, 0, wanted));
    ASSERT_TRUE(datapath.set_service(21, 0, wanted));
    EXPECT_EQ(datapath.repair_services().value_or(1), 0u);

    // Round robin is the hooks' own.
    std::uint32_t label = 20;
    mesh_service service{};
    ASSERT_EQ(bpf_map_lookup_elem(services.get(), &label, &service), 0);
    service.next += 7;
    ASSERT_EQ(bpf_map_update_elem(services.get(), &label, &service, BPF_ANY), 0);
    EXPECT_EQ(datapath.repair_services().value_or(1), 0u);

    const mesh_endpoint_key second{20, service.generation, 1};
    const mesh_endpoint other = endpoint(99);
    ASSERT_EQ(bpf_map_update_elem(endpoints.get(), &second, &other, BPF_ANY), 0);
    EXPECT_EQ(datapath.repair_services().value_or(0), 1u);
    EXPECT_TRUE(same(read(20), wanted));
    EXPECT_TRUE(same(read(21), wanted));

    label = 21;
    ASSERT_EQ(bpf_map_delete_elem(services.get(), &label), 0);
    label = 77;
    ASSERT_EQ(bpf_map_update_elem(services.get(), &label, &service, BPF_ANY), 0);
    EXPECT_EQ(datapath.repair_services().value_or(0), 2u);
    EXPECT_TRUE(same(read(21), wanted));
    EXPECT_NE(bpf_map_lookup_elem(services.get(), &label, &service), 0);

    label = 20;
    ASSERT_EQ(bpf_map_lookup_elem(services.get(), &label, &service), 0);
    const mesh_endpoint_key last{20, service.generation, 2};
    ASSERT_EQ(bpf_map_delete_elem(endpoints.get(), &last), 0);
  }
  auto next = open();
  ASSERT_TRUE(next) << next.error().what;
  bpf::Datapath datapath(std::move(*next));
  ASSERT_TRUE(datapath.set_service(20, 0, wanted));
  EXPECT_TRUE(same(read(20), wanted)) << "one was missing";
}

// A successor beside the agent that runs: it may fail, and the first has what it had.
TEST_F(PinsTest, ASuccessorTakesTheLockAndTheLinksOrGivesThemBack) {
  auto first = open();
  ASSERT_TRUE(first) << first.error().what;
  const auto generation = first->generation();
  const auto counts = all_attached();
  bpf::Datapath datapath(std::move(*first));
  ASSERT_TRUE(datapath.heartbeat());
  const auto former = [&](std::uint64_t next) {
    return bpf::FormerAgent{UniqueFd(::fcntl(datapath.programs().lock(), F_DUPFD_CLOEXEC, 0)),
                            next};
  };
  const auto ids = [&] {
    UniqueFd cgroup(::open(cgroup_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    __u32 id = 0, count = 1;
    EXPECT_EQ(bpf_prog_query(cgroup.get(), BPF_CGROUP_INET4_CONNECT, 0, nullptr, &id, &count), 0);
    return id;
  };
  const auto mine = ids();
  {
    auto second = bpf::Programs::open({pins_, cgroup_, disable_tracing_}, former(generation + 1));
    ASSERT_TRUE(second) << second.error().what;
    EXPECT_TRUE(second->adopted());
    EXPECT_EQ(all_attached(), counts);
    EXPECT_NE(ids(), mine);
    EXPECT_EQ(second->generation(), generation + 1);
  }  // and dies
  ASSERT_TRUE(datapath.programs().reclaim());
  EXPECT_EQ(ids(), mine);
  EXPECT_EQ(all_attached(), counts);
  // What it wrote before it died is seen.
  {
    auto second = bpf::Programs::open({pins_, cgroup_, disable_tracing_}, former(generation + 2));
    ASSERT_TRUE(second) << second.error().what;
    bpf::Datapath other(std::move(*second));
    ASSERT_TRUE(other.vips.put({{9, 9, 9, 9}}, 5));
    EXPECT_TRUE(datapath.vips.content().empty());
    datapath.reread();
    EXPECT_EQ(datapath.vips.content().size(), 1u);
    ASSERT_TRUE(other.take_over());
    EXPECT_EQ(all_attached(), counts);
  }
  // The lock is held as long as one of them holds it.
  auto third = open();
  ASSERT_FALSE(third);
  EXPECT_THAT(third.error().what, HasSubstr("another mesh-agent"));
}

TEST_F(PinsTest, ASuccessorOfOtherPinsOrAnotherCgroupIsRefused) {
  auto first = open();
  ASSERT_TRUE(first) << first.error().what;
  const auto lock = [&] {
    return bpf::FormerAgent{UniqueFd(::fcntl(first->lock(), F_DUPFD_CLOEXEC, 0)), 9};
  };
  const fs::path elsewhere = pins_ + "-other";
  ASSERT_TRUE(fs::create_directory(elsewhere));
  auto other = bpf::Programs::open({elsewhere, cgroup_, disable_tracing_}, lock());
  EXPECT_FALSE(other);
  EXPECT_THAT(other.error().what, HasSubstr("--pin-dir"));
  EXPECT_TRUE(fs::is_empty(elsewhere));
  ASSERT_TRUE(fs::remove(elsewhere));
  const std::string cgroup = cgroup_ + "/other";
  ASSERT_TRUE(fs::create_directory(cgroup));
  auto moved = bpf::Programs::open({pins_, cgroup, disable_tracing_}, lock());
  EXPECT_FALSE(moved);
  EXPECT_THAT(moved.error().what, HasSubstr("--cgroup-root"));
  ASSERT_EQ(::rmdir(cgroup.c_str()), 0);
  ASSERT_TRUE(first->reclaim());
}

TEST_F(PinsTest, ASecondAgentIsRefused) {
  auto first = open();
  ASSERT_TRUE(first) << first.error().what;
  auto second = open();
  ASSERT_FALSE(second);
  EXPECT_THAT(second.error().what, HasSubstr("another mesh-agent is running"));
  auto cleanup = bpf::Pins::cleanup(pins_);
  ASSERT_FALSE(cleanup);
  EXPECT_THAT(cleanup.error().what, HasSubstr("another mesh-agent is running"));
  EXPECT_EQ(attached(BPF_CGROUP_INET4_CONNECT), 1u);
}

TEST_F(PinsTest, AnotherAbiIsRefusedWithInstructions) {
  fs::create_directories(pins_ + "/v99");
  auto programs = open();
  ASSERT_FALSE(programs);
  EXPECT_THAT(programs.error().what, HasSubstr("mesh-agent cleanup --pin-dir " + pins_));
  EXPECT_EQ(attached(BPF_CGROUP_INET4_CONNECT), 0u);
}

TEST_F(PinsTest, OnlyABpfFileSystemWillDo) {
  pins_ = "/tmp/mt-not-bpffs";
  auto programs = open();
  ASSERT_FALSE(programs);
  EXPECT_THAT(programs.error().what, HasSubstr("mount -t bpf"));
  EXPECT_FALSE(fs::exists(pins_));
}

TEST_F(PinsTest, CleanupRefusesADirectoryThatIsNotItsOwn) {
  const std::string dir = "/tmp/mt-precious-" + std::to_string(::getpid());
  fs::create_directories(dir + "/v1");
  EXPECT_FALSE(bpf::Pins::cleanup(dir));
  EXPECT_TRUE(fs::exists(dir + "/v1"));
  fs::remove_all(dir);

  fs::create_directories(pins_ + "/cilium");
  auto removed = bpf::Pins::cleanup(pins_);
  ASSERT_FALSE(removed);
  EXPECT_THAT(removed.error().what, HasSubstr("'cilium', which no mesh-agent made"));
  EXPECT_EQ(::rmdir((pins_ + "/cilium").c_str()), 0);
}

TEST_F(PinsTest, CleanupRemovesAllAndOnlyOurs) {
  auto foreign = attach_foreign();
  {
    auto programs = open();
    ASSERT_TRUE(programs) << programs.error().what;
    EXPECT_EQ(attached(BPF_CGROUP_INET4_CONNECT), 2u);
  }
  { ASSERT_TRUE(open()); }
  EXPECT_EQ(attached(BPF_CGROUP_INET4_CONNECT), 2u);
  auto removed = bpf::Pins::cleanup(pins_);
  ASSERT_TRUE(removed) << removed.error().what;
  EXPECT_GT(removed->size(), 20u);
  // The kernel lets a link go a grace period after the last name for it.
  for (int tries = 0; tries < 500 && attached(BPF_CGROUP_INET4_CONNECT) > 1; ++tries)
    ::usleep(10'000);
  EXPECT_EQ(attached(BPF_CGROUP_INET4_CONNECT), 1u);
  EXPECT_EQ(attached(BPF_CGROUP_SOCK_OPS), 0u);
  EXPECT_FALSE(fs::exists(pins_));
}

TEST_F(PinsTest, NothingIsLeftOfAnOpenThatFailed) {
  const std::string good = std::exchange(cgroup_, "/tmp");  // a directory, but no cgroup
  auto programs = open();
  cgroup_ = good;
  ASSERT_FALSE(programs);
  EXPECT_THAT(programs.error().what, HasSubstr("/tmp"));
  EXPECT_FALSE(fs::exists(pins_));
  EXPECT_EQ(attached(BPF_CGROUP_INET4_CONNECT), 0u);
}

TEST_F(PinsTest, DeletedPinsAreMadeAgain) {
  std::set<std::string> before;
  {
    auto programs = open();
    ASSERT_TRUE(programs) << programs.error().what;
    bpf::Datapath datapath(std::move(*programs));
    ASSERT_TRUE(datapath.vips.put({{1, 2, 3, 4}}, 99));
    before = pinned();
    datapath.keep_pins();
    EXPECT_EQ(datapath.restored_pins(), 0u);

    fs::remove_all(pins_);
    datapath.keep_pins();
    EXPECT_EQ(datapath.lost_pins(), "");
    EXPECT_EQ(pinned(), before);
    EXPECT_EQ(datapath.restored_pins(), before.size());

    fs::remove(*before.begin());
    datapath.keep_pins();
    EXPECT_EQ(pinned(), before);
    EXPECT_EQ(datapath.restored_pins(), before.size() + 1);

    auto second = open();
    ASSERT_FALSE(second);
    EXPECT_THAT(second.error().what, HasSubstr("another mesh-agent is running"));
  }
  EXPECT_EQ(all_attached(), std::vector<std::size_t>(all_attached().size(), 1));
  auto next = open();
  ASSERT_TRUE(next) << next.error().what;
  EXPECT_TRUE(next->adopted());
  EXPECT_EQ(all_attached(), std::vector<std::size_t>(all_attached().size(), 1));
  EXPECT_EQ(bpf::Datapath(std::move(*next)).vips.content().size(), 1u);
}

TEST_F(PinsTest, WhatSomebodyDetachedIsAttachedAgain) {
  auto programs = open();
  ASSERT_TRUE(programs) << programs.error().what;
  auto datapath = std::make_unique<bpf::Datapath>(std::move(*programs));
  const auto counts = all_attached();
  const auto pins = pinned();
  datapath->keep_attached();
  EXPECT_EQ(datapath->reattached(), 0u);

  std::size_t links = 0;
  for (const auto& path : pins) {
    if (path.find("/links/") == std::string::npos) continue;
    UniqueFd link(bpf_obj_get(path.c_str()));
    if (bpf_link_detach(link.get()) == 0) ++links;  // a tracing link cannot be
  }
  EXPECT_GE(links, 12u);
  EXPECT_EQ(all_attached(), std::vector<std::size_t>(counts.size(), 0));
  datapath->keep_attached();
  EXPECT_EQ(datapath->lost_hooks(), "");
  EXPECT_EQ(datapath->reattached(), links);
  EXPECT_EQ(all_attached(), counts);
  EXPECT_EQ(pinned(), pins);
  datapath->keep_attached();
  EXPECT_EQ(datapath->reattached(), links);

  // As if nothing had been, for the next agent.
  datapath.reset();
  auto next = open();
  ASSERT_TRUE(next) << next.error().what;
  EXPECT_TRUE(next->adopted());
  EXPECT_EQ(all_attached(), counts);
  EXPECT_EQ(pinned(), pins);
}

// The kernel takes 64 programs at a hook.
TEST_F(PinsTest, AHookThatCannotBeHadBackIsSaid) {
  auto programs = open();
  ASSERT_TRUE(programs) << programs.error().what;
  bpf::Datapath datapath(std::move(*programs));
  UniqueFd link(
      bpf_obj_get(fmt::format("{}/v{}/links/mesh_connect4", pins_, MESH_ABI_VERSION).c_str()));
  ASSERT_TRUE(link);
  ASSERT_EQ(bpf_link_detach(link.get()), 0);
  link.reset(
      bpf_obj_get(fmt::format("{}/v{}/links/mesh_sockops", pins_, MESH_ABI_VERSION).c_str()));
  ASSERT_TRUE(link);
  ASSERT_EQ(bpf_link_detach(link.get()), 0);
  link.reset();
  std::vector<UniqueFd> others;
  for (int i = 0; i < 64; ++i) others.push_back(attach_foreign());
  for (int i = 0; i < 2; ++i) {
    datapath.keep_attached();
    EXPECT_THAT(datapath.lost_hooks(), HasSubstr("mesh_connect4"));
    EXPECT_EQ(attached(BPF_CGROUP_SOCK_OPS), 1u) << "what can be had back is";
  }
  UniqueFd cgroup(::open(cgroup_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  for (const auto& other : others)
    EXPECT_EQ(bpf_prog_detach2(other.get(), cgroup.get(), BPF_CGROUP_INET4_CONNECT), 0);
  datapath.keep_attached();
  EXPECT_EQ(datapath.lost_hooks(), "");
  EXPECT_EQ(datapath.reattached(), 2u);
  EXPECT_EQ(attached(BPF_CGROUP_INET4_CONNECT), 1u);
}

TEST_F(PinsTest, WhatTheAgentTookOutStaysOut) {
  auto programs = open();
  ASSERT_TRUE(programs) << programs.error().what;
  const auto without = pinned();
  ASSERT_TRUE(programs->attach_sniffer());
  EXPECT_EQ(pinned().size(), without.size() + 1);
  ASSERT_TRUE(programs->detach_sniffer());
  EXPECT_EQ(programs->restore_pins(), 0u);
  EXPECT_EQ(pinned(), without);
}

TEST_F(PinsTest, PinsThatAnotherAgentMadeMeanwhileAreLeftAlone) {
  auto first = open();
  ASSERT_TRUE(first) << first.error().what;
  bpf::Datapath datapath(std::move(*first));
  fs::remove_all(pins_);
  {
    auto second = open();
    ASSERT_TRUE(second) << second.error().what;
    datapath.keep_pins();
    EXPECT_THAT(datapath.lost_pins(), HasSubstr("another mesh-agent is running"));
  }
  const auto theirs = pinned();
  datapath.keep_pins();
  EXPECT_THAT(datapath.lost_pins(), HasSubstr("restart mesh-agent"));
  EXPECT_EQ(datapath.restored_pins(), 0u);
  EXPECT_EQ(pinned(), theirs);
  ASSERT_TRUE(bpf::Pins::cleanup(pins_));
  datapath.keep_pins();
  EXPECT_EQ(datapath.lost_pins(), "");
  EXPECT_EQ(pinned(), theirs);
}

TEST_F(PinsTest, WithoutTracingTheReasonIsGiven) {
  auto programs = open();
  ASSERT_TRUE(programs) << programs.error().what;
  ASSERT_EQ(programs->degraded().size(), 1u);
  EXPECT_EQ(programs->degraded()[0].feature, "sockmap");
  EXPECT_FALSE(fs::exists(pins_ + "/v" + std::to_string(MESH_ABI_VERSION) + "/links/mesh_recv"));
}

}  // namespace
}  // namespace mesh::test
