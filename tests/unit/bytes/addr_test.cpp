// SPDX-License-Identifier: Apache-2.0
// bpf/lib/addr.h against the agent's own idea of addresses.
#include "lib/addr.h"

#include <gtest/gtest.h>

#include "agent/bpf/abi_convert.h"

namespace {

mesh_addr addr(const char* text) { return mesh::bpf::to_abi(*mesh::Address::parse(text)); }

struct Row {
  const char* text;
  bool v4, zero, local;
};

TEST(BpfAddr, Table) {
  const Row rows[] = {
      {"0.0.0.0", true, false, true},
      {"127.0.0.1", true, false, true},
      {"127.255.255.254", true, false, true},
      {"126.255.255.255", true, false, false},
      {"128.0.0.1", true, false, false},
      {"10.0.0.1", true, false, false},
      {"255.255.255.255", true, false, false},
      {"::", false, true, true},
      {"::1", false, false, true},
      {"::2", false, false, false},
      {"::1:0", false, false, false},
      {"::fffe:7f00:1", false, false, false},
      {"fd00::1", false, false, false},
      {"fd00::127.0.0.1", false, false, false},
      {"0:1::", false, false, false},
  };
  for (const auto& row : rows) {
    const mesh_addr a = addr(row.text);
    EXPECT_EQ(mesh_addr_is_v4(&a) != 0, row.v4) << row.text;
    EXPECT_EQ(mesh_addr_is_zero(&a) != 0, row.zero) << row.text;
    EXPECT_EQ(mesh_addr_is_local(&a) != 0, row.local) << row.text;
  }
}

TEST(BpfAddr, MapsIpv4AsTheAgentDoes) {
  const mesh_addr expected = addr("10.1.2.3"), a = mesh_addr_v4(htonl(0x0a010203));
  EXPECT_TRUE(mesh_addr_equal(&a, &expected));
}

TEST(BpfAddr, EveryWordCounts) {
  const mesh_addr a = addr("fd00:1:2:3:4:5:6:7");
  for (auto& word : {0, 1, 2, 3}) {
    mesh_addr b = a;
    EXPECT_TRUE(mesh_addr_equal(&a, &b));
    b.w[word] ^= 1;
    EXPECT_FALSE(mesh_addr_equal(&a, &b)) << word;
  }
}

TEST(BpfAddr, SwapIsTheOtherEnd) {
  const mesh_tuple t{addr("10.0.0.1"), addr("fd00::2"), 40000, 80};
  const mesh_tuple s = mesh_tuple_swap(&t), back = mesh_tuple_swap(&s);
  EXPECT_TRUE(mesh_addr_equal(&s.local, &t.remote));
  EXPECT_EQ(s.local_port, 80);
  EXPECT_EQ(s.remote_port, 40000);
  EXPECT_EQ(std::memcmp(&back, &t, sizeof t), 0);
}

}  // namespace
