// SPDX-License-Identifier: Apache-2.0
#include "agent/health/runner.h"

#include <gtest/gtest.h>

#include "tests/support/eventually.h"
#include "tests/unit/health/server.h"

namespace mesh::health {
namespace {

using namespace std::chrono_literals;
using catalog::CheckKind;
using mesh::test::eventually;
using test::Server;

Task task(const std::string& instance, const std::string& id, CheckKind kind,
          const std::string& target) {
  Task t;
  t.instance = instance;
  t.netns = 1;
  t.check.id = id;
  t.check.kind = kind;
  t.check.target = target;
  t.check.interval = 50ms;
  t.check.timeout = 5s;
  if (kind == CheckKind::Ttl) t.check.ttl = 300ms;
  t.make_socket = test::plain_socket;
  return t;
}

class HealthRunner : public ::testing::Test {
 protected:
  void becomes(const std::string& instance, CheckStatus wanted) {
    EXPECT_TRUE(eventually(
        10s, [&] { return table_.status_of(instance) == wanted; },
        instance + " becomes " + std::string(catalog::to_string(wanted))));
  }

  Table table_;
  std::atomic<unsigned> changes_{0};
  Runner runner_{table_, [this] { ++changes_; }};
};

TEST_F(HealthRunner, TheWorstCheckIsTheInstances) {
  std::atomic<bool> sick{false};
  Server server([&](const std::string&) {
    return sick ? std::string("HTTP/1.1 500 E\r\nContent-Length: 0\r\n\r\n")
                : std::string("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
  });
  std::vector<Task> tasks;
  tasks.push_back(task("a", "a:1", CheckKind::Http, "http://" + server.at()));
  tasks.push_back(task("a", "a:2", CheckKind::Tcp, server.at()));
  runner_.set(tasks);
  EXPECT_EQ(table_.status_of("somebody else"), CheckStatus::Passing);
  becomes("a", CheckStatus::Passing);
  sick = true;
  becomes("a", CheckStatus::Critical);
  EXPECT_FALSE(table_.usable("a"));
  EXPECT_EQ(runner_.rows().size(), 2u);
  sick = false;
  becomes("a", CheckStatus::Passing);
  EXPECT_GE(changes_, 3u);
  // The same checks again go on where they were.
  const auto before = changes_.load();
  runner_.set(tasks);
  EXPECT_EQ(table_.status_of("a"), CheckStatus::Passing);
  EXPECT_EQ(changes_, before);
  // In another namespace it is another workload's check.
  for (auto& t : tasks) t.netns = 2;
  runner_.set(tasks);
  EXPECT_GT(changes_, before);
  runner_.set({});
  EXPECT_TRUE(runner_.rows().empty());
  EXPECT_EQ(table_.status_of("a"), CheckStatus::Passing) << "no checks, no objection";
}

TEST_F(HealthRunner, TtlChecksLiveOfWhatIsHeard) {
  runner_.set({task("b", "b:ttl", CheckKind::Ttl, "")});
  becomes("b", CheckStatus::Critical);
  ASSERT_TRUE(runner_.heard("b:ttl", CheckStatus::Warning, "half well"));
  becomes("b", CheckStatus::Warning);
  EXPECT_TRUE(table_.usable("b"));
  EXPECT_EQ(runner_.rows().front().output, "half well");
  becomes("b", CheckStatus::Critical);
  EXPECT_FALSE(runner_.heard("b:other", CheckStatus::Passing, ""));
}

TEST_F(HealthRunner, ProbesAreBoundedAndEndWithTheirTask) {
  Server silent([](const std::string&) { return std::string(); });
  std::vector<Task> tasks;
  for (std::size_t i = 0; i < Runner::kMaxProbes + 50; ++i)
    tasks.push_back(task("i" + std::to_string(i), "c" + std::to_string(i), CheckKind::Http,
                         "http://" + silent.at()));
  std::atomic<std::size_t> sockets{0};
  for (auto& t : tasks)
    t.make_socket = [&](const Endpoint& to) {
      ++sockets;
      return test::plain_socket(to);
    };
  runner_.set(tasks);
  EXPECT_TRUE(eventually(
      10s, [&] { return sockets == Runner::kMaxProbes; }, "probes"));
  std::this_thread::sleep_for(200ms);
  EXPECT_EQ(sockets, Runner::kMaxProbes);
  runner_.set({});
  Server server([](const std::string&) { return std::string("x"); });
  runner_.set({task("z", "z", CheckKind::Tcp, server.at())});
  becomes("z", CheckStatus::Passing);
}

}  // namespace
}  // namespace mesh::health
