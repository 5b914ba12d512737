// SPDX-License-Identifier: Apache-2.0
// Many connections: memory per idle one, and nothing left behind by many short ones.
#include <sys/resource.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "tests/unit/relay/fixture.h"

namespace mesh::relay::test {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kMemoryIsMeaningful = false;  // redzones, quarantine, shadow
#else
constexpr bool kMemoryIsMeaningful = true;
#endif

std::size_t resident_bytes() {
  std::ifstream statm("/proc/self/statm");
  std::size_t total = 0;
  std::size_t resident = 0;
  statm >> total >> resident;
  return resident * static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
}

std::size_t open_descriptors() {
  std::size_t count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/fd"))
    ++count;
  return count;
}

void need_descriptors(rlim_t count) {
  rlimit limit{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &limit), 0);
  if (limit.rlim_cur >= count) return;
  limit.rlim_cur = count;
  ASSERT_LE(count, limit.rlim_max) << "the test needs more descriptors than it may have";
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &limit), 0);
}

using ScaleTest = RelayTest;

TEST_F(ScaleTest, TwoThousandConnectionsAtOnce) {
  constexpr std::size_t kCount = 2000;
  need_descriptors(4 * kCount + 100);
  start();
  std::vector<Pair> pairs;
  pairs.reserve(kCount);
  for (int i = 0; i < 50; ++i) pairs.push_back(connect_pair());  // warm up the allocators
  const std::size_t before = resident_bytes();
  while (pairs.size() < kCount) pairs.push_back(connect_pair());
  for (const Pair& pair : pairs) {
    ASSERT_TRUE(send_all(pair.client, "ping"));
    ASSERT_EQ(receive(pair.server, 4), "ping");
    ASSERT_TRUE(send_all(pair.server, "pong"));
    ASSERT_EQ(receive(pair.client, 4), "pong");
  }
  EXPECT_EQ(pool_->active(), kCount);
  auto rows = pool_->connections();
  ASSERT_TRUE(rows);
  EXPECT_EQ(rows->size(), kCount);
  rows->clear();
  rows->shrink_to_fit();
  const std::size_t each = (resident_bytes() - before) / (kCount - 50);
  RecordProperty("resident_bytes_per_connection", std::to_string(each));
  if (kMemoryIsMeaningful) {
    EXPECT_LE(each, 10u * 1024);
  }
  pairs.clear();
  EXPECT_TRUE(eventually([&] { return pool_->active() == 0; }));
}

TEST_F(ScaleTest, ManyShortConnectionsLeakNothing) {
  constexpr int kThreads = 4;
  start();
  std::thread echo([&] {
    for (;;) {
      UniqueFd fd(::accept4(backend_.get(), nullptr, nullptr, SOCK_CLOEXEC));
      if (!fd) return;
      char bytes[16];
      const ssize_t n = ::recv(fd.get(), bytes, sizeof(bytes), 0);
      if (n > 0) (void)::send(fd.get(), bytes, static_cast<std::size_t>(n), MSG_NOSIGNAL);
    }
  });
  std::atomic<int> failures{0};
  const auto run = [&](int count) {
    std::vector<std::thread> clients;
    for (int t = 0; t < kThreads; ++t)
      clients.emplace_back([&, count] {
        for (int i = 0; i < count / kThreads; ++i) {
          const UniqueFd fd = client_socket();
          if (connect_to(fd, port_) != 0 || !send_all(fd, "x") || receive(fd, 2) != "x") ++failures;
        }
      });
    for (auto& client : clients) client.join();
    EXPECT_TRUE(eventually([&] { return pool_->active() == 0; }));
  };
  run(2000);
  const std::size_t descriptors = open_descriptors();
  const std::size_t resident = resident_bytes();
  run(18'000);
  EXPECT_EQ(failures.load(), 0);
  EXPECT_EQ(pool_->counters().accepted.get(), 20'000u);
  EXPECT_EQ(pool_->counters().completed.get(), 20'000u);
  EXPECT_EQ(open_descriptors(), descriptors);
  if (kMemoryIsMeaningful) {
    EXPECT_LT(resident_bytes(), resident + (2u << 20));
  }
  auto rows = pool_->connections();
  ASSERT_TRUE(rows);
  EXPECT_TRUE(rows->empty());
  ASSERT_EQ(::shutdown(backend_.get(), SHUT_RDWR), 0);
  echo.join();
}

}  // namespace
}  // namespace mesh::relay::test
