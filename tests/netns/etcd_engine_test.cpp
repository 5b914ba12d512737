// SPDX-License-Identifier: Apache-2.0
// The etcd engine against real members: what it sees is what is there, whatever happens to them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_future.hpp>
#include <map>
#include <mutex>
#include <thread>

#include "agent/store/etcd_engine.h"
#include "tests/support/etcd.h"
#include "tests/support/eventually.h"
#include "tests/support/must.h"

namespace mesh::test {
namespace {

namespace net = boost::asio;
using namespace std::chrono_literals;
using store::Engine;
using store::EtcdEngine;
using ::testing::HasSubstr;

constexpr auto kSettle = 30s;

// An engine on a thread of its own that keeps a copy of everything it was told.
class Follower {
 public:
  explicit Follower(const std::string& address, store::StoreAccess access = {},
                    const std::function<void(store::EtcdOptions&)>& tune = {}) {
    store::EtcdOptions options;
    options.address = must(store::parse_store(address), "address");
    options.access = std::move(access);
    options.probe_interval = 300ms;
    options.request_limit = 1500ms;
    options.connect_limit = 1000ms;
    options.backoff_most = 1000ms;
    options.check_interval = 500ms;
    if (tune) tune(options);
    engine_ = std::make_unique<EtcdEngine>(io_, options);
    Engine::Handlers handlers;
    handlers.on_snapshot = [this](store::Snapshot snapshot) {
      std::lock_guard lock(mutex_);
      content_.clear();
      for (auto& kv : snapshot.entries) content_[kv.key] = kv.too_large ? "(large)" : kv.value;
      check(snapshot.revision, snapshot.other_history);
      first_cut_ = snapshot.first_cut;
      ++snapshots_;
    };
    handlers.on_batch = [this](store::Batch batch) {
      std::lock_guard lock(mutex_);
      for (auto& change : batch.changes) {
        EXPECT_EQ(change.kv.modified, batch.revision);
        if (change.deleted)
          content_.erase(change.kv.key);
        else
          content_[change.kv.key] = change.kv.too_large ? "(large)" : change.kv.value;
      }
      check(batch.revision, false);
      sizes_.push_back(batch.changes.size());
    };
    handlers.on_state = [this](const store::EngineState& state) {
      std::lock_guard lock(mutex_);
      state_ = state;
    };
    net::post(io_, [this, handlers] { engine_->start(handlers); });
    thread_ = std::thread([this] { io_.run(); });
  }
  ~Follower() {
    net::post(io_, [this] {
      engine_->stop();
      work_.reset();
    });
    thread_.join();
  }

  std::map<std::string, std::string> content() {
    std::lock_guard lock(mutex_);
    return content_;
  }
  store::EngineState state() {
    std::lock_guard lock(mutex_);
    return state_;
  }
  bool has(const std::string& key, const std::string& value) {
    std::lock_guard lock(mutex_);
    auto it = content_.find(key);
    return it != content_.end() && it->second == value;
  }
  std::vector<std::size_t> batch_sizes() {
    std::lock_guard lock(mutex_);
    return sizes_;
  }
  bool first_cut() {
    std::lock_guard lock(mutex_);
    return first_cut_;
  }
  unsigned snapshots() {
    std::lock_guard lock(mutex_);
    return snapshots_;
  }
  bool went_back() {
    std::lock_guard lock(mutex_);
    return went_back_;
  }
  const store::EngineCounters& counters() { return engine_->counters(); }

  template <typename T>
  T ask(std::function<net::awaitable<T>(Engine&)> what) {
    return net::co_spawn(io_, what(*engine_), net::use_future).get();
  }
  Result<store::Commit> commit(store::Transaction transaction) {
    return ask<Result<store::Commit>>(
        [&](Engine& engine) { return engine.commit(std::move(transaction)); });
  }

  void wait_connected() {
    ASSERT_TRUE(eventually(
        kSettle, [&] { return state().connected; }, "connected"))
        << state().reason;
  }
  void wait_for(const std::string& key, const std::string& value) {
    ASSERT_TRUE(eventually(
        kSettle, [&] { return has(key, value); }, key + " = " + value))
        << state().reason;
  }

 private:
  void check(std::int64_t revision, bool other_history) {
    went_back_ = went_back_ || (!other_history && revision < last_);
    last_ = revision;
  }

  net::io_context io_{1};
  net::executor_work_guard<net::io_context::executor_type> work_{io_.get_executor()};
  std::unique_ptr<EtcdEngine> engine_;
  std::thread thread_;
  std::mutex mutex_;
  std::map<std::string, std::string> content_;
  std::vector<std::size_t> sizes_;
  store::EngineState state_;
  std::int64_t last_ = 0;
  bool went_back_ = false;
  bool first_cut_ = false;
  unsigned snapshots_ = 0;
};

std::string in(const std::string& key) { return "mesh-agent/" + key; }

TEST(EtcdEngine, LoadsInPagesAndFollowsEachRevisionAsAWhole) {
  EtcdCluster etcd;
  std::vector<std::pair<std::string, std::string>> all;
  std::map<std::string, std::string> expected;
  for (int i = 0; i < 1000; ++i) {
    all.emplace_back(in(fmt::format("k/{:04}", i)), fmt::format("value {}", i));
    expected.emplace(fmt::format("k/{:04}", i), fmt::format("value {}", i));
  }
  etcd.put_all(all);
  etcd.put("mesh-agenu", "outside, after");
  etcd.put("mesh-agent", "outside, before");
  Follower follower(etcd.store(), {}, [](auto& options) { options.page_keys = 64; });
  follower.wait_connected();
  EXPECT_EQ(follower.content(), expected);
  EXPECT_EQ(follower.snapshots(), 1u);

  etcd.put_all({{in("a"), "1"}, {in("b"), "2"}, {in("c"), "3"}});
  etcd.erase(in("k/0000"));
  etcd.put(in("end"), std::string("\0\xff bytes", 8));
  follower.wait_for("end", std::string("\0\xff bytes", 8));
  EXPECT_EQ(follower.content().size(), 1000u + 3 - 1 + 1);
  EXPECT_EQ(follower.batch_sizes(), (std::vector<std::size_t>{3, 1, 1}));
  EXPECT_FALSE(follower.went_back());
  EXPECT_EQ(follower.snapshots(), 1u);
}

TEST(EtcdEngine, ReadsWhatIsFirstBeforeTheOthersAndSaysIfThatIsTooMuch) {
  EtcdCluster etcd;
  std::vector<std::pair<std::string, std::string>> all;
  for (int i = 0; i < 30; ++i) all.emplace_back(in(fmt::format("a/{:02}", i)), "");
  for (int i = 0; i < 6; ++i) all.emplace_back(in(fmt::format("m/{}", i)), "");
  for (int i = 0; i < 3; ++i) all.emplace_back(in(fmt::format("x/{}", i)), "");
  etcd.put_all(all);
  const auto limited = [](std::size_t most) {
    return [most](store::EtcdOptions& options) {
      options.first = {"m/", "x/"};
      options.max_keys = most;
      options.page_keys = 2;
    };
  };
  {
    Follower follower(etcd.store(), {}, limited(12));
    follower.wait_connected();
    const auto content = follower.content();
    EXPECT_EQ(content.size(), 13u) << "one more than may be";
    for (int i = 0; i < 6; ++i) EXPECT_TRUE(content.contains(fmt::format("m/{}", i))) << i;
    for (int i = 0; i < 3; ++i) EXPECT_TRUE(content.contains(fmt::format("x/{}", i))) << i;
    EXPECT_TRUE(content.contains("a/03"));
    EXPECT_FALSE(follower.first_cut());
  }
  {
    Follower follower(etcd.store(), {}, limited(9));
    follower.wait_connected();
    EXPECT_EQ(follower.content().size(), 10u);
    EXPECT_FALSE(follower.first_cut()) << "as many as there are";
  }
  Follower follower(etcd.store(), {}, limited(4));
  follower.wait_connected();
  EXPECT_EQ(follower.content().size(), 5u);
  EXPECT_TRUE(follower.first_cut());
  // And everything once, if there is room.
  Follower whole(etcd.store(), {}, limited(39));
  whole.wait_connected();
  EXPECT_EQ(whole.content().size(), 39u);
}

TEST(EtcdEngine, AWriteMayDemandThatARangeDidNotChange) {
  EtcdCluster etcd;
  etcd.put(in("c/a"), "1");
  etcd.put(in("d"), "1");
  Follower follower(etcd.store());
  follower.wait_connected();
  const auto seen = etcd.revision();
  const auto write = [&](std::int64_t since) {
    store::Transaction transaction;
    transaction.puts = {{"w", "1", 0}};
    transaction.unchanged = {{"c/", "d", since}};
    auto commit = follower.commit(std::move(transaction));
    EXPECT_TRUE(commit) << commit.error().what;
    return commit && commit->done;
  };
  EXPECT_TRUE(write(seen));
  etcd.put(in("d"), "2");  // behind it
  EXPECT_TRUE(write(seen));
  etcd.put(in("c/b"), "1");
  EXPECT_FALSE(write(seen));
  EXPECT_TRUE(write(etcd.revision()));
  etcd.put(in("c/a"), "2");
  EXPECT_FALSE(write(etcd.revision() - 1));
}

TEST(EtcdEngine, WritesOnlyWhatItsConditionsAllow) {
  EtcdCluster etcd;
  Follower follower(etcd.store());
  follower.wait_connected();
  auto first = follower.commit({{{"x", 0}}, {{"x", "1", 0}}, {}});
  ASSERT_TRUE(first) << first.error().what;
  EXPECT_TRUE(first->done);
  auto second = follower.commit({{{"x", 0}}, {{"x", "2", 0}}, {}});
  ASSERT_TRUE(second);
  EXPECT_FALSE(second->done);
  ASSERT_EQ(second->present.size(), 1u);
  EXPECT_EQ(second->present[0].value, "1");
  EXPECT_EQ(second->present[0].key, "x");
  auto third = follower.commit({{{"x", second->present[0].modified}}, {}, {"x"}});
  ASSERT_TRUE(third);
  EXPECT_TRUE(third->done);
  EXPECT_FALSE(etcd.get(in("x")));

  store::Transaction large;
  for (int i = 0; i < 129; ++i) large.puts.push_back({fmt::format("y{}", i), "", 0});
  EXPECT_FALSE(follower.commit(large));
}

TEST(EtcdEngine, ALeaseTakesItsKeysWithIt) {
  EtcdCluster etcd;
  Follower follower(etcd.store());
  follower.wait_connected();
  auto lease = follower.ask<Result<store::LeaseId>>([](Engine& e) { return e.grant(2s); });
  ASSERT_TRUE(lease) << lease.error().what;
  ASSERT_TRUE(follower.commit({{}, {{"leased", "1", *lease}}, {}}));
  follower.wait_for("leased", "1");
  auto left =
      follower.ask<Result<std::chrono::seconds>>([&](Engine& e) { return e.renew(*lease); });
  ASSERT_TRUE(left) << left.error().what;
  EXPECT_EQ(*left, 2s);
  EXPECT_TRUE(eventually(
      kSettle, [&] { return !follower.content().contains("leased"); }, "gone"));
  left = follower.ask<Result<std::chrono::seconds>>([&](Engine& e) { return e.renew(*lease); });
  ASSERT_TRUE(left) << left.error().what;
  EXPECT_EQ(*left, 0s);
  EXPECT_FALSE(follower.commit({{}, {{"leased", "1", *lease}}, {}}));
}

TEST(EtcdEngine, GoesOnWhereItWasAfterAnInterruption) {
  EtcdCluster etcd;
  etcd.put(in("a"), "1");
  Follower follower(etcd.store());
  follower.wait_connected();
  etcd.kill(0);
  ASSERT_TRUE(eventually(
      kSettle, [&] { return !follower.state().connected; }, "stale"));
  EXPECT_THAT(follower.state().reason, HasSubstr(etcd.endpoint(0)));
  EXPECT_TRUE(follower.has("a", "1"));
  EXPECT_FALSE(follower.commit({{}, {{"x", "1", 0}}, {}}));
  etcd.start(0);
  etcd.wait_healthy();
  etcd.put(in("b"), "2");
  follower.wait_for("b", "2");
  EXPECT_EQ(follower.snapshots(), 1u);
  EXPECT_TRUE(follower.has("a", "1"));
}

TEST(EtcdEngine, LoadsAgainWhenItsPlaceWasCompactedAway) {
  EtcdCluster etcd;
  etcd.put(in("a"), "1");
  etcd.put(in("b"), "1");
  Follower follower(etcd.store());
  follower.wait_connected();
  follower.wait_for("b", "1");
  // A member that hangs looks like a cut network: it is given up, and nothing it did is seen.
  etcd.signal(0, SIGSTOP);
  ASSERT_TRUE(eventually(
      kSettle, [&] { return !follower.state().connected; }, "stale"));
  etcd.signal(0, SIGCONT);
  etcd.kill(0);
  etcd.start(0);
  etcd.wait_healthy();
  etcd.erase(in("a"));
  etcd.put(in("c"), "3");
  etcd.compact();
  follower.wait_for("c", "3");
  EXPECT_TRUE(eventually(
      kSettle, [&] { return !follower.content().contains("a"); }, "a gone"));
  EXPECT_TRUE(follower.has("b", "1"));
  EXPECT_FALSE(follower.went_back());
}

TEST(EtcdEngine, SurvivesMembersAndLeadersThatGo) {
  EtcdCluster etcd({.members = 3});
  Follower follower(etcd.store());
  follower.wait_connected();
  for (unsigned round = 0; round < 3; ++round) {
    const unsigned victim = round == 0 ? (etcd.leader() + 1) % 3 : etcd.leader();
    if (round == 2)
      etcd.signal(victim, SIGSTOP);  // cut off: it answers nobody, and its connections stay open
    else
      etcd.kill(victim);
    etcd.wait_healthy();
    etcd.put(in("round"), std::to_string(round));
    follower.wait_for("round", std::to_string(round));
    follower.wait_connected();
    if (round == 2)
      etcd.signal(victim, SIGCONT);
    else
      etcd.start(victim);
    etcd.wait_healthy();
  }
  EXPECT_FALSE(follower.went_back());
}

TEST(EtcdEngine, KeepsWhatItHasWithoutAQuorumAndNeverGoesBack) {
  EtcdCluster etcd({.members = 3});
  etcd.put(in("a"), "1");
  Follower follower(etcd.store());
  follower.wait_connected();
  etcd.kill(0);
  etcd.kill(1);
  ASSERT_TRUE(eventually(
      kSettle, [&] { return !follower.state().connected; }, "stale"));
  // The member that is left would answer a serializable read; nobody asks for one.
  std::this_thread::sleep_for(3s);
  EXPECT_FALSE(follower.state().connected);
  EXPECT_TRUE(follower.has("a", "1"));
  EXPECT_FALSE(follower.commit({{}, {{"x", "1", 0}}, {}}));
  etcd.start(0);
  etcd.start(1);
  etcd.wait_healthy();
  etcd.put(in("a"), "2");
  follower.wait_for("a", "2");
  EXPECT_FALSE(follower.went_back());
  EXPECT_EQ(follower.snapshots(), 1u);
}

TEST(EtcdEngine, TellsAnotherHistoryFromItsOwn) {
  EtcdCluster etcd;
  for (int i = 0; i < 20; ++i) etcd.put(in("a"), std::to_string(i));
  etcd.put(in("old"), "1");
  Follower follower(etcd.store());
  follower.wait_connected();
  etcd.kill(0);
  etcd.forget_data(0);
  etcd.start(0);
  etcd.wait_healthy();
  etcd.put(in("a"), "new");
  follower.wait_for("a", "new");
  EXPECT_EQ(follower.content().size(), 1u);
  EXPECT_EQ(follower.snapshots(), 2u);
  EXPECT_EQ(follower.counters().restores, 1u);
  EXPECT_FALSE(follower.went_back());
}

TEST(EtcdEngine, LeavesOutValuesThatAreTooLarge) {
  EtcdCluster etcd;
  etcd.put(in("a"), "1");
  etcd.put(in("b"), std::string(10u << 20, 'x'));
  etcd.put(in("c"), std::string(store::kMaxValueBytes + 1, 'x'));
  etcd.put(in("d"), std::string(store::kMaxValueBytes, 'x'));
  Follower follower(etcd.store(), {}, [](auto& options) { options.max_answer_bytes = 4u << 20; });
  follower.wait_connected();
  auto content = follower.content();
  EXPECT_EQ(content["a"], "1");
  EXPECT_EQ(content["b"], "(large)");
  EXPECT_EQ(content["c"], "(large)");
  EXPECT_EQ(content["d"].size(), store::kMaxValueBytes);
  // While it watches: one of 10 MiB, and one that no line may have.
  etcd.put(in("e"), std::string(10u << 20, 'x'));
  follower.wait_for("e", "(large)");
  etcd.put(in("f"), std::string(20u << 20, 'x'));
  follower.wait_for("f", "(large)");
  etcd.put(in("g"), "7");
  follower.wait_for("g", "7");
  EXPECT_EQ(follower.content().size(), 7u);
  EXPECT_FALSE(follower.went_back());
}

TEST(EtcdEngine, KeepsUpWithAStorm) {
  EtcdCluster etcd;
  Follower follower(etcd.store());
  follower.wait_connected();
  std::vector<std::pair<std::string, std::string>> all;
  for (int i = 0; i < 20'000; ++i)
    all.emplace_back(in(fmt::format("k{}", i % 500)), fmt::format("{}", i));
  etcd.put_all(all);
  etcd.put(in("end"), "1");
  follower.wait_for("end", "1");
  EXPECT_EQ(follower.content().size(), 501u);
  EXPECT_TRUE(follower.has("k499", "19999"));
  EXPECT_GE(follower.counters().events, 20'000u);
  EXPECT_FALSE(follower.went_back());
}

TEST(EtcdEngine, LogsInAndAgainWhenTheTokenIsVoid) {
  EtcdCluster etcd({.extra = {"--auth-token-ttl", "2"}});
  const std::string password_file = etcd.directory() + "/password";
  must(run_tool({"sh", "-c", "umask 077; printf 'secret\\n' >\"$0\"", password_file}, {}, 10s),
       "password");
  etcd.ctl({"user", "add", "root:top"});
  etcd.ctl({"user", "add", "agent:secret"});
  etcd.ctl({"role", "add", "mesh"});
  etcd.ctl({"role", "grant-permission", "mesh", "readwrite", "--prefix=true", "mesh-agent/"});
  etcd.ctl({"user", "grant-role", "agent", "mesh"});
  etcd.put(in("a"), "1");
  etcd.ctl({"auth", "enable"});
  {
    Follower stranger(etcd.store());
    EXPECT_TRUE(eventually(
        kSettle,
        [&] { return stranger.state().reason.find("user name is empty") != std::string::npos; },
        "refused"))
        << stranger.state().reason;
  }
  // Tokens live for 2 s from their last use, and this one is not used.
  Follower follower(etcd.store(), {"", "", "", "agent", password_file},
                    [](auto& options) { options.probe_interval = 60s; });
  follower.wait_connected();
  EXPECT_TRUE(follower.has("a", "1"));
  EXPECT_EQ(follower.counters().logins, 1u);
  std::this_thread::sleep_for(5s);
  auto commit = follower.commit({{}, {{"b", "2", 0}}, {}});
  ASSERT_TRUE(commit) << commit.error().what;
  EXPECT_EQ(follower.counters().logins, 2u);
  follower.wait_for("b", "2");
  EXPECT_EQ(follower.counters().sessions, 1u);
}

TEST(EtcdEngine, ChecksCertificatesBothWays) {
  EtcdCluster etcd({.tls = true});
  etcd.put(in("a"), "1");
  store::StoreAccess access{etcd.tls_file("ca.pem"), etcd.tls_file("client.pem"),
                            etcd.tls_file("client.key"), "", ""};
  Follower follower(etcd.store(), access);
  follower.wait_connected();
  EXPECT_TRUE(follower.has("a", "1"));
  etcd.put(in("b"), "2");
  follower.wait_for("b", "2");

  const auto refused = [&](const store::StoreAccess& with, const std::string& reason) {
    Follower other(etcd.store(), with);
    EXPECT_TRUE(eventually(
        kSettle, [&] { return other.state().reason.find(reason) != std::string::npos; }, reason))
        << other.state().reason;
    EXPECT_FALSE(other.state().connected);
  };
  auto unknown_ca = access;
  unknown_ca.ca_file = etcd.tls_file("other.pem");
  refused(unknown_ca, "certificate verify failed");
  auto nobody = access;
  nobody.cert_file = nobody.key_file = "";
  refused(nobody, " alert ");  // which one depends on the version of Go
}

}  // namespace
}  // namespace mesh::test
