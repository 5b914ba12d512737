// SPDX-License-Identifier: Apache-2.0
// Maps that somebody else has changed under a running agent: it reads them in turn and mends them.
#include <bpf/bpf.h>

#include <array>
#include <csignal>
#include <map>

#include "agent/base/unique_fd.h"
#include "mesh/abi.h"
#include "mesh/balance.h"
#include "mesh/identity.h"
#include "tests/netns/mesh_test.h"
#include "tests/support/must.h"

namespace mesh::test {
namespace {

using namespace std::chrono_literals;

class Repair : public MeshTest {
 protected:
  UniqueFd map(const std::string& name) {
    const std::string path =
        fmt::format("{}/v{}/maps/{}", node().pin_dir(), MESH_ABI_VERSION, name);
    return UniqueFd(::bpf_obj_get(path.c_str()));
  }
};

TEST_F(Repair, WhatSomebodyTookOutOfTheMapsComesBack) {
  Pod& client = node().add_pod("client");
  Pod& server = node().add_pod("server");
  Process echo = start_server(server, {"echo-server", "--port", "8080"});
  apply({{"client", {{client.addr4, 1}}}, {"web", {{server.addr4, 8080}}}});
  const auto vip = vip4("web");
  ASSERT_TRUE(run_client(client, vip, 80)["ok"]);

  const UniqueFd vips = map("mesh_vips");
  const UniqueFd services = map("mesh_services");
  ASSERT_TRUE(vips && services) << errno;
  mesh_addr address{};
  while (::bpf_map_get_next_key(vips.get(), nullptr, &address) == 0)
    ASSERT_EQ(::bpf_map_delete_elem(vips.get(), &address), 0);
  std::uint32_t label = 0;
  while (::bpf_map_get_next_key(services.get(), nullptr, &label) == 0)
    ASSERT_EQ(::bpf_map_delete_elem(services.get(), &label), 0);
  EXPECT_EQ(run_client(client, vip, 80)["errno"], "ECONNREFUSED") << "and nothing goes out";

  // Seven parts, one every five seconds.
  EXPECT_TRUE(eventually(
      60s, [&] { return run_client(client, vip, 80).value("ok", false); }, "it is served again"));
  // Two services with a VIP of each family, and the two themselves.
  EXPECT_TRUE(eventually(
      10s, [&] { return agent().metrics().value("mesh_bpf_entries_repaired_total", {}) == 6; },
      "six entries are counted"));
}

// The one table of a mesh in which one service looks at its clients' addresses.
class RepairTables : public Repair {
 protected:
  using Cells = std::array<std::uint16_t, MESH_TABLE_CHUNK>;
  struct Table {
    std::map<std::uint32_t, Cells> chunks;
    std::set<std::pair<std::uint32_t, std::uint32_t>> of;  // label, generation
  };

  void TearDown() override {
    if (agent_) ::kill(agent().pid(), SIGCONT);
    Repair::TearDown();
  }
  void balance_by_source(const std::string& service) {
    nlohmann::json entry{{"Kind", "service-resolver"}, {"Name", service}};
    entry["LoadBalancer"] = {{"Policy", "maglev"}, {"HashPolicies", {{{"SourceIP", true}}}}};
    node().write_config(
        "resolver.json",
        nlohmann::json{{"config_entries", {{"bootstrap", nlohmann::json::array({entry})}}}}.dump());
  }
  Table table() {
    const UniqueFd tables = map("mesh_tables");
    Table found;
    mesh_table_key key{}, next{};
    for (const mesh_table_key* from = nullptr;
         ::bpf_map_get_next_key(tables.get(), from, &next) == 0; from = &key) {
      key = next;
      mesh_table_chunk value{};
      if (::bpf_map_lookup_elem(tables.get(), &key, &value) != 0) continue;  // gone meanwhile
      std::copy(std::begin(value.endpoint), std::end(value.endpoint),
                found.chunks[key.chunk].begin());
      found.of.emplace(key.service, key.generation);
    }
    return found;
  }
  // Gives the key of one of them.
  mesh_table_key take_out_all() {
    const UniqueFd tables = map("mesh_tables");
    mesh_table_key key{};
    while (::bpf_map_get_next_key(tables.get(), nullptr, &key) == 0)
      EXPECT_EQ(::bpf_map_delete_elem(tables.get(), &key), 0);
    return key;
  }
};

TEST_F(RepairTables, TheyComeBackAsTheyWere) {
  Pod& client = node().add_pod("client");
  Pod& one = node().add_pod("one");
  Pod& two = node().add_pod("two");
  Process servers[] = {start_server(one, {"echo-server", "--port", "8080"}),
                       start_server(two, {"echo-server", "--port", "8080"})};
  balance_by_source("web");
  apply({{"client", {{client.addr4, 1}}}, {"web", {{one.addr4, 8080}, {two.addr4, 8080}}}});
  const auto vip = vip4("web");
  const auto is_whole = [&](const Table& before) {
    return eventually(
        60s,
        [&] {
          const auto now = table();
          return now.of.size() == 1 && now.chunks == before.chunks &&
                 run_client(client, vip, 80).value("ok", false);
        },
        "the table is as it was, with nothing beside it");
  };
  Table before;
  ASSERT_TRUE(eventually(
      kSettle, [&] { return (before = table()).chunks.size() == 32; }, "there is a table"));
  ASSERT_EQ(before.of.size(), 1u);
  ASSERT_TRUE(run_client(client, vip, 80)["ok"]);

  // While the agent stands still, so that it finds all of it at once.
  ASSERT_EQ(::kill(agent().pid(), SIGSTOP), 0);
  mesh_table_key key = take_out_all();
  const UniqueFd tables = map("mesh_tables");
  mesh_table_chunk wrong{};
  std::fill(std::begin(wrong.endpoint), std::end(wrong.endpoint), std::uint16_t{1});
  EXPECT_EQ(::bpf_map_update_elem(tables.get(), &key, &wrong, BPF_ANY), 0);
  const mesh_table_key nobodys{key.service + 1000, 1, 0};
  EXPECT_EQ(::bpf_map_update_elem(tables.get(), &nobodys, &wrong, BPF_ANY), 0);
  ASSERT_EQ(::kill(agent().pid(), SIGCONT), 0);
  EXPECT_TRUE(is_whole(before));
  EXPECT_TRUE(eventually(
      10s, [&] { return agent().metrics().value("mesh_bpf_entries_repaired_total", {}) == 2; },
      "a service and an entry that was nobody's are counted"));

  // All chunks are there, and one is not what was written.
  const auto now = *table().of.begin();
  const mesh_table_key changed{now.first, now.second, 7};
  EXPECT_EQ(::bpf_map_update_elem(tables.get(), &changed, &wrong, BPF_EXIST), 0);
  EXPECT_TRUE(is_whole(before));
  EXPECT_TRUE(eventually(
      10s, [&] { return agent().metrics().value("mesh_bpf_entries_repaired_total", {}) == 3; },
      "the service again"));

  // The next agent writes what is not whole.
  agent().kill9();
  (void)take_out_all();
  agent().start();
  EXPECT_TRUE(is_whole(before));
}

}  // namespace
}  // namespace mesh::test
