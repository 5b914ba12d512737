// SPDX-License-Identifier: Apache-2.0
#include "agent/base/listen_fds.h"

#include <gtest/gtest.h>

#include <string>

namespace mesh {
namespace {

TEST(ListenFds, AreNamedInTheirOrder) {
  const auto none = parse_listen_fds(nullptr, nullptr, nullptr, 7);
  ASSERT_TRUE(none);
  EXPECT_TRUE(none->empty());
  const auto two = parse_listen_fds("7", "2", "a:b", 7);
  ASSERT_TRUE(two) << two.error().what;
  EXPECT_EQ(*two, (std::vector<std::string>{"a", "b"}));
  const auto unnamed = parse_listen_fds("7", "2", nullptr, 7);
  ASSERT_TRUE(unnamed);
  EXPECT_EQ(unnamed->size(), 2u);
  const auto empty_name = parse_listen_fds("7", "1", "", 7);
  ASSERT_TRUE(empty_name);
  EXPECT_EQ(*empty_name, std::vector<std::string>{""});
}

TEST(ListenFds, OfAnotherProcessAreNotOurs) {
  const auto other = parse_listen_fds("8", "2", "a:b", 7);
  ASSERT_TRUE(other);
  EXPECT_TRUE(other->empty());
}

TEST(ListenFds, ThatContradictThemselvesAreRefused) {
  for (const char* pid : {"", "x", "-7", "7 ", "99999999999999999999"})
    EXPECT_FALSE(parse_listen_fds(pid, "1", "a", 7)) << pid;
  for (const char* count : {"", "-1", "x", "1x", "65537", "99999999999999999999"})
    EXPECT_FALSE(parse_listen_fds("7", count, "a", 7)) << count;
  EXPECT_FALSE(parse_listen_fds("7", "2", "a", 7));
  EXPECT_FALSE(parse_listen_fds("7", "2", "a:b:c", 7));
  const std::string many(1 << 20, ':');
  EXPECT_FALSE(parse_listen_fds("7", "2", many.c_str(), 7));
}

}  // namespace
}  // namespace mesh
