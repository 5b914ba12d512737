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
  auto ttl = task("b", "b:ttl", CheckKind::Ttl, "");
  ttl.check.ttl = 2s;  // what is heard must be seen within it
  runner_.set({ttl});
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

TEST_F(HealthRunner, WithoutAWorkloadItIsCriticalAndNothingIsTried) {
  auto http = task("a", "a:http", CheckKind::Http, "http://localhost:1");
  auto ttl = task("b", "b:ttl", CheckKind::Ttl, "");
  for (auto* t : {&http, &ttl}) {
    t->absent = "no workload of this node has 10.0.0.9";
    t->check.initial = CheckStatus::Passing;
    t->make_socket = nullptr;
  }
  runner_.set({http, ttl});
  EXPECT_EQ(table_.status_of("a"), CheckStatus::Critical);
  EXPECT_EQ(table_.own().at("a").output, http.absent);
  EXPECT_EQ(runner_.rows().front().output, http.absent);
  const auto told = runner_.heard("b:ttl", CheckStatus::Passing, "");
  ASSERT_FALSE(told);
  EXPECT_EQ(told.error().what, ttl.absent);
  std::this_thread::sleep_for(700ms);
  EXPECT_EQ(runner_.counters().critical, 0u);
  // The workload comes: the check begins as it says.
  Server server([](const std::string&) { return std::string("x"); });
  runner_.set({task("a", "a:http", CheckKind::Tcp, server.at())});
  EXPECT_EQ(table_.status_of("a"), CheckStatus::Critical);
  becomes("a", CheckStatus::Passing);
}

TEST_F(HealthRunner, ANewCheckGoesOnFromWhatAnEarlierAgentSaid) {
  auto silent = task("a", "a:ttl", CheckKind::Ttl, "");
  silent.check.ttl = 60s;
  silent.carried = CheckStatus::Passing;
  runner_.set({silent});
  EXPECT_EQ(table_.status_of("a"), CheckStatus::Passing);
  // It is not another check when nobody carries any more.
  silent.carried.reset();
  runner_.set({silent});
  EXPECT_EQ(table_.status_of("a"), CheckStatus::Passing);
  ASSERT_TRUE(runner_.heard("a:ttl", CheckStatus::Critical, ""));
  EXPECT_EQ(table_.status_of("a"), CheckStatus::Critical);
}

TEST(HealthRunnerLimit, WhatIsNotRunIsPassingAndSaysSo) {
  Table table;
  Runner runner(table, [] {});
  std::vector<Task> tasks;
  for (std::size_t i = 0; i < Runner::kMaxChecks + 1; ++i) {
    tasks.push_back(task("i" + std::to_string(i), "c", CheckKind::Ttl, ""));
    tasks.back().check.ttl = 1h;
  }
  runner.set(std::move(tasks));
  const auto own = table.own();
  EXPECT_EQ(own.size(), Runner::kMaxChecks + 1);
  const auto last = own.find("i" + std::to_string(Runner::kMaxChecks));
  ASSERT_NE(last, own.end());
  EXPECT_EQ(last->second.status, CheckStatus::Passing);
  EXPECT_EQ(last->second.output, "its checks are not run");
  EXPECT_EQ(runner.counters().over_limit, 1u);
}

// DeregisterCriticalServiceAfter, by a clock that the test moves.
class HealthWithdrawal : public ::testing::Test {
 protected:
  void set(std::vector<Task> tasks) {
    for (auto& t : tasks) t.check.ttl = 1h;
    runner_.set(std::move(tasks));
  }
  bool withdrawn(const std::string& instance) {
    const auto own = table_.own();
    const auto it = own.find(instance);
    return it != own.end() && it->second.withdrawn;
  }
  void becomes(const std::string& instance, bool wanted) {
    EXPECT_TRUE(eventually(
        10s, [&] { return withdrawn(instance) == wanted; }, "withdrawn"));
  }
  // Long enough for what would be noticed.
  void stays(const std::string& instance, bool wanted) {
    std::this_thread::sleep_for(1500ms);
    EXPECT_EQ(withdrawn(instance), wanted);
  }
  static Task ttl(const std::string& instance, const std::string& id, std::chrono::seconds after) {
    auto t = task(instance, id, CheckKind::Ttl, "");
    t.check.deregister_after = after;
    return t;
  }

  Table table_;
  std::atomic<Clock::rep> now_{0};
  std::atomic<unsigned> changes_{0};
  Runner runner_{table_, [this] { ++changes_; },
                 [this] { return Clock::time_point(Clock::duration(now_.load())); }};
  void pass(std::chrono::seconds time) { now_ += Clock::duration(time).count(); }
};

TEST_F(HealthWithdrawal, TakesAMinuteAtLeastAndComesBackWhenNothingIsCritical) {
  set({ttl("a", "one", 5s), ttl("a", "two", 0s), ttl("b", "three", 300s), ttl("c", "four", 0s)});
  for (const char* check : {"one", "two", "three"})
    ASSERT_TRUE(runner_.heard(check, CheckStatus::Passing, ""));
  pass(1000s);
  stays("a", false);  // nothing is critical
  ASSERT_TRUE(runner_.heard("one", CheckStatus::Critical, ""));
  ASSERT_TRUE(runner_.heard("three", CheckStatus::Critical, ""));
  pass(59s);
  stays("a", false);
  const auto before = changes_.load();
  pass(1s);
  becomes("a", true);
  EXPECT_GT(changes_, before);
  EXPECT_FALSE(withdrawn("b")) << "that has five minutes";
  EXPECT_FALSE(withdrawn("c")) << "critical since the start, and nothing says that it goes";
  for (const auto& row : runner_.rows()) EXPECT_EQ(row.withdrawn, row.instance == "a");
  pass(240s);
  becomes("b", true);
  // Another check of the instance is critical now: it does not come back by the first alone.
  ASSERT_TRUE(runner_.heard("two", CheckStatus::Critical, ""));
  ASSERT_TRUE(runner_.heard("one", CheckStatus::Passing, ""));
  stays("a", true);
  ASSERT_TRUE(runner_.heard("two", CheckStatus::Warning, ""));
  becomes("a", false);
  // Critical again: the time begins anew.
  ASSERT_TRUE(runner_.heard("one", CheckStatus::Critical, ""));
  stays("a", false);
  // A workload that comes anew does not bring its instance back before its check has passed.
  auto again = ttl("b", "three", 300s);
  again.netns = 2;
  set({again});
  stays("b", true);
  ASSERT_TRUE(runner_.heard("three", CheckStatus::Passing, ""));
  becomes("b", false);
}

}  // namespace
}  // namespace mesh::health
