// SPDX-License-Identifier: Apache-2.0
// Maps that somebody else has changed under a running agent: it reads them in turn and mends them.
#include <bpf/bpf.h>

#include "agent/base/unique_fd.h"
#include "mesh/abi.h"
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

}  // namespace
}  // namespace mesh::test
