// SPDX-License-Identifier: Apache-2.0
// Waiting without bare sleeps, and the guard that keeps root tests from being skipped unseen.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <string_view>
#include <thread>

namespace mesh::test {

// Calls `condition` (returning bool or ::testing::AssertionResult) until it holds or the time is
// up. Use as EXPECT_TRUE(eventually(5s, [&] { ... }, "what is awaited")). The last failure's text
// is kept.
template <typename Fn>
::testing::AssertionResult eventually(std::chrono::milliseconds limit, Fn&& condition,
                                      std::string_view awaited) {
  const auto start = std::chrono::steady_clock::now();
  while (true) {
    ::testing::AssertionResult last(condition());
    if (last) return last;
    const auto waited = std::chrono::steady_clock::now() - start;
    if (waited >= limit) {
      return ::testing::AssertionFailure()
             << "not within " << limit.count() << " ms: " << awaited << " " << last.message();
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
}

// Root tests need CAP_NET_ADMIN, CAP_SYS_ADMIN and CAP_BPF; uid 0 stands for all of them.
inline bool have_root() { return ::geteuid() == 0; }
inline bool root_required() {
  const char* value = std::getenv("MESH_REQUIRE_ROOT");
  return value != nullptr && std::string_view(value) == "1";
}

}  // namespace mesh::test

// First line of SetUp() of every netns fixture.
#define MESH_NEED_ROOT()                                                            \
  do {                                                                              \
    if (!::mesh::test::have_root()) {                                               \
      if (::mesh::test::root_required())                                            \
        FAIL() << "MESH_REQUIRE_ROOT=1 and this process is not root";               \
      GTEST_SKIP() << "needs root; set MESH_REQUIRE_ROOT=1 to make this a failure"; \
    }                                                                               \
  } while (false)
