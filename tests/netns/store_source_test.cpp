// SPDX-License-Identifier: Apache-2.0
// Agents' catalogs from a real etcd: what they register, what they see of each other, and at which
// size how fast. No agent runs here, only its part that follows the store.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <malloc.h>
#include <signal.h>

#include <algorithm>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>
#include <condition_variable>
#include <cstdio>
#include <future>
#include <mutex>
#include <set>
#include <thread>

#include "agent/store/store_source.h"
#include "tests/support/etcd.h"
#include "tests/support/eventually.h"
#include "tests/support/must.h"

namespace mesh::test {
namespace {

namespace net = boost::asio;
using namespace std::chrono_literals;
using catalog::Catalog;
using Clock = std::chrono::steady_clock;
using ::testing::HasSubstr;

constexpr auto kSettle = 30s;

bool long_form() { return std::getenv("MESH_LONG") != nullptr; }

// The store's part of an agent, with a control thread.
class Watcher {
 public:
  Watcher(const std::string& address, unsigned number,
          const std::function<void(store::StoreOptions&)>& tune = {}) {
    store::StoreOptions options;
    options.etcd.address = must(store::parse_store(address), "address");
    options.etcd.probe_interval = 500ms;
    options.etcd.request_limit = 3000ms;
    options.etcd.backoff_most = 1000ms;
    options.own = {fmt::format("n{}", number),
                   {*Cidr::parse(fmt::format("10.{}.0.0/16", number))},
                   *Cidr::parse("fd6d:6573:6800::/96")};
    options.node_address = *Address::parse(fmt::format("192.0.2.{}", number));
    options.lease_ttl = 3s;
    if (tune) tune(options);
    source_ = std::make_unique<store::StoreSource>(io_, options);
    thread_ = std::thread([this] { io_.run(); });
    on_control([this] {
      must(source_->start({.on_catalog =
                               [this](std::shared_ptr<const Catalog> catalog) {
                                 std::lock_guard lock(mutex_);
                                 catalog_ = std::move(catalog);
                                 at_ = Clock::now();
                                 changed_.notify_all();
                               },
                           .on_error = nullptr}),
           "start");
    });
  }
  ~Watcher() {
    on_control([this] { source_->stop(); });
    work_.reset();
    thread_.join();
  }

  void set_local(const std::string& service, const std::string& address) {
    Catalog::Services services;
    if (!service.empty()) {
      services[service].name = service;
      services[service].instances.push_back({service, *Address::parse(address), 80, {}, {}});
    }
    auto local = std::make_shared<const Catalog>(std::move(services));
    on_control([this, local] { source_->set_local(local); });
  }

  std::shared_ptr<const Catalog> catalog() {
    std::lock_guard lock(mutex_);
    return catalog_;
  }
  // When the first catalog came for which this holds.
  template <typename Fn>
  std::optional<Clock::time_point> wait(std::chrono::milliseconds limit, Fn&& condition) {
    std::unique_lock lock(mutex_);
    if (!changed_.wait_for(lock, limit, [&] { return catalog_ && condition(*catalog_); }))
      return std::nullopt;
    return at_;
  }
  store::StoreReport report() { return source_->report(); }
  store::StoreCounters counters() { return source_->counters(); }

  template <typename Fn>
  void on_control(Fn&& run) {
    std::promise<void> done;
    net::post(io_, [&] {
      run();
      done.set_value();
    });
    done.get_future().get();
  }

 private:
  net::io_context io_{1};
  net::executor_work_guard<net::io_context::executor_type> work_{io_.get_executor()};
  std::unique_ptr<store::StoreSource> source_;
  std::thread thread_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::shared_ptr<const Catalog> catalog_;
  Clock::time_point at_;
};

std::string in(const std::string& key) { return "mesh-agent/" + key; }

std::string instance(const std::string& service, const std::string& address) {
  return fmt::format(R"({{"service":{{"name":"{}","address":"{}","port":80}}}})", service, address);
}

bool has(const Catalog& catalog, const std::string& service, const std::string& address) {
  const auto* found = catalog.find(service);
  return found != nullptr &&
         std::any_of(found->instances.begin(), found->instances.end(),
                     [&](const auto& one) { return one.address.to_string() == address; });
}

bool node_is(const Catalog& catalog, const std::string& name, bool gone) {
  auto it = catalog.nodes().find(name);
  return it != catalog.nodes().end() && it->second.gone == gone;
}

TEST(StoreSource, NodesFindEachOthersServices) {
  EtcdCluster etcd;
  Watcher one(etcd.store(), 1), two(etcd.store(), 2);
  one.set_local("web", "10.1.0.5");
  two.set_local("db", "10.2.0.5");
  for (auto* watcher : {&one, &two})
    ASSERT_TRUE(watcher->wait(kSettle, [](const Catalog& c) {
      return has(c, "web", "10.1.0.5") && has(c, "db", "10.2.0.5") && node_is(c, "n1", false) &&
             node_is(c, "n2", false);
    })) << watcher->report().state.reason;
  EXPECT_EQ(one.catalog()->find("web")->vip4, two.catalog()->find("web")->vip4);
  EXPECT_EQ(one.catalog()->find("db")->vip4, two.catalog()->find("db")->vip4);
  EXPECT_TRUE(*one.catalog() == *two.catalog());

  // An instance that the files do not have any more goes from the store at once.
  two.set_local("", "");
  EXPECT_TRUE(one.wait(kSettle, [](const Catalog& c) { return c.find("db") == nullptr; }));
  EXPECT_FALSE(etcd.get(in("catalog/db/n2/db")));
  EXPECT_TRUE(etcd.get(in("config/vip/db"))) << "the VIP stays the service's";
}

TEST(StoreSource, IntentionsBeyondTheLimitOfKeysDeny) {
  EtcdCluster etcd;
  const auto intentions = [](const std::string& name) {
    return fmt::format(
        R"({{"Kind":"service-intentions","Name":"{}","Sources":[{{"Name":"web","Action":"allow"}}]}})",
        name);
  };
  const auto denies = [](const Catalog& c, const std::string& name) {
    const auto it = c.entries().intentions.find(name);
    return it != c.entries().intentions.end() && it->second.sources.size() == 1 &&
           it->second.sources[0].name == "*" &&
           it->second.sources[0].action == config::Action::Deny;
  };
  std::vector<std::pair<std::string, std::string>> all;
  for (int i = 0; i < 20; ++i)
    all.emplace_back(in(fmt::format("catalog/s{}/1", i)),
                     instance(fmt::format("s{}", i), fmt::format("10.9.0.{}", i + 1)));
  all.emplace_back(in("config/service-intentions/s0"), intentions("s0"));
  etcd.put_all(all);
  const auto limit = [](std::size_t most) {
    return [most](store::StoreOptions& options) { options.etcd.max_keys = most; };
  };
  // Before many keys of the catalog, and with room for itself: read.
  Watcher one(etcd.store(), 1, limit(10));
  ASSERT_TRUE(one.wait(kSettle, [&](const Catalog& c) {
    return c.entries().intentions.size() == 1 && !denies(c, "s0");
  }));
  // One that comes when there is no room.
  etcd.put(in("config/service-intentions/s1"), intentions("s1"));
  ASSERT_TRUE(one.wait(kSettle, [&](const Catalog& c) { return denies(c, "s1"); }));
  EXPECT_FALSE(denies(*one.catalog(), "s0"));
  ASSERT_TRUE(eventually(
      kSettle, [&] { return one.report().content.over_limit >= 1; }, "counted"));

  // No room even for all of them: what is not known is denied to everybody.
  for (int i = 2; i < 9; ++i)
    etcd.put(in(fmt::format("config/service-intentions/s{}", i)),
             intentions(fmt::format("s{}", i)));
  Watcher two(etcd.store(), 2, limit(4));
  ASSERT_TRUE(two.wait(kSettle, [&](const Catalog& c) { return denies(c, "*"); }));
  EXPECT_FALSE(denies(*two.catalog(), "s0"));
  EXPECT_TRUE(denies(*two.catalog(), "s4")) << "the one of which only the name was kept";
}

TEST(StoreSource, ANameThatOnlyAnEntryIsForGetsAVip) {
  EtcdCluster etcd;
  etcd.put(in("config/service-resolver/old"),
           R"({"Kind":"service-resolver","Name":"old","Redirect":{"Service":"web"}})");
  Watcher one(etcd.store(), 1), two(etcd.store(), 2);
  one.set_local("web", "10.1.0.5");
  for (auto* watcher : {&one, &two})
    ASSERT_TRUE(watcher->wait(kSettle, [](const Catalog& c) {
      const auto* old = c.find("old");
      return old != nullptr && !old->vip4.is_unset() && has(c, "web", "10.1.0.5");
    }));
  EXPECT_EQ(one.catalog()->find("old")->vip4, two.catalog()->find("old")->vip4);
  EXPECT_TRUE(etcd.get(in("config/vip/old")));
}

TEST(StoreSource, RegistersAgainWhenTheLeaseIsLost) {
  EtcdCluster etcd;
  Watcher one(etcd.store(), 1);
  one.set_local("web", "10.1.0.5");
  ASSERT_TRUE(eventually(
      kSettle, [&] { return etcd.get(in("catalog/web/n1/web")).has_value(); }, "registered"));
  ASSERT_TRUE(eventually(
      kSettle, [&] { return one.report().lease != 0; }, "a lease"));
  etcd.ctl({"lease", "revoke", fmt::format("{:x}", one.report().lease)});
  EXPECT_FALSE(etcd.get(in("nodes/n1")));
  ASSERT_TRUE(eventually(
      kSettle,
      [&] {
        return etcd.get(in("catalog/web/n1/web")).has_value() &&
               etcd.get(in("nodes/n1")).has_value();
      },
      "registered again"));
  EXPECT_TRUE(eventually(
      kSettle, [&] { return one.counters().leases_lost == 1; }, "counted"));
  // Somebody deletes or overwrites our keys: they are ours.
  etcd.erase(in("catalog/web/n1/web"));
  EXPECT_TRUE(eventually(
      kSettle, [&] { return etcd.get(in("catalog/web/n1/web")).has_value(); }, "written again"));
  etcd.put(in("catalog/web/n1/web"), "{}");
  EXPECT_TRUE(eventually(
      kSettle, [&] { return etcd.get(in("catalog/web/n1/web")) != "{}"; }, "written again"));
  EXPECT_TRUE(has(*one.catalog(), "web", "10.1.0.5"));
}

TEST(StoreSource, ANodeThatDiesIsGoneAndItsRangesStayClosed) {
  EtcdCluster etcd;
  Watcher one(etcd.store(), 1);
  {
    Watcher two(etcd.store(), 2);
    two.set_local("db", "10.2.0.5");
    ASSERT_TRUE(one.wait(kSettle, [](const Catalog& c) { return has(c, "db", "10.2.0.5"); }));
  }
  // Stopped: a restart within the lease's time is nobody's concern.
  EXPECT_TRUE(has(*one.catalog(), "db", "10.2.0.5"));
  ASSERT_TRUE(one.wait(
      kSettle, [](const Catalog& c) { return c.find("db") == nullptr && node_is(c, "n2", true); }));
  ASSERT_NE(one.catalog()->node_of(*Address::parse("10.2.0.5")), nullptr);
  Watcher again(etcd.store(), 2);
  again.set_local("db", "10.2.0.5");
  EXPECT_TRUE(one.wait(kSettle, [](const Catalog& c) {
    return has(c, "db", "10.2.0.5") && node_is(c, "n2", false);
  }));
}

TEST(StoreSource, TwoNodesCannotHaveOneName) {
  EtcdCluster etcd;
  Watcher one(etcd.store(), 1);
  ASSERT_TRUE(eventually(
      kSettle, [&] { return etcd.get(in("nodes/n1")).has_value(); }, "n1"));
  const auto before = etcd.get(in("nodes/n1"));
  Watcher impostor(etcd.store(), 2, [](auto& options) { options.own.name = "n1"; });
  impostor.set_local("web", "10.2.0.5");
  EXPECT_TRUE(eventually(
      kSettle,
      [&] {
        return impostor.report().registration_problem.find("registered by 192.0.2.1") !=
               std::string::npos;
      },
      "a reason"))
      << impostor.report().registration_problem;
  EXPECT_EQ(etcd.get(in("nodes/n1")), before);
  EXPECT_FALSE(etcd.get(in("catalog/web/n1/web")));
}

TEST(StoreSource, AgentsAgreeOnVips) {
  EtcdCluster etcd({.members = 3});
  std::vector<std::unique_ptr<Watcher>> watchers;
  for (unsigned i = 1; i <= 3; ++i)
    watchers.push_back(std::make_unique<Watcher>(etcd.store(), i, [](auto& options) {
      // Every one of them wants the same address for another service.
      for (int s = 0; s < 100; ++s)
        options.vip_wishes.emplace(fmt::format("s{}", s), *Address::parse("240.7.7.7"));
    }));
  std::vector<std::pair<std::string, std::string>> all;
  for (int s = 0; s < 100; ++s)
    all.emplace_back(in(fmt::format("catalog/s{}/1", s)),
                     instance(fmt::format("s{}", s), fmt::format("10.9.0.{}", s + 1)));
  etcd.put_all(all);
  std::set<Address> vips;
  for (auto& watcher : watchers) {
    ASSERT_TRUE(
        watcher->wait(kSettle, [](const Catalog& c) { return c.services().size() == 100; }));
    for (const auto& [name, service] : watcher->catalog()->services()) vips.insert(service.vip4);
    EXPECT_EQ(watcher->report().content.refused, 0u);
  }
  EXPECT_EQ(vips.size(), 100u);
  EXPECT_EQ(vips.count(*Address::parse("240.7.7.7")), 1u);
}

TEST(StoreSource, SurvivesHostileKeysAndValues) {
  EtcdCluster etcd;
  Watcher one(etcd.store(), 1);
  one.set_local("web", "10.1.0.5");
  std::string deep;
  for (int i = 0; i < 100'000; ++i) deep += '[';
  for (const auto& key : {std::string("catalog/web/\xff\xfe"), std::string("catalog/\0/x", 11),
                          std::string("nodes/"), std::string("nodes/../../etc"),
                          std::string(5000, 'k'), std::string("config/vip/web/x"), std::string("")})
    etcd.put(in(key), "x");
  etcd.put(in("catalog/web/huge"), std::string(10u << 20, 'x'));
  etcd.put(in("catalog/web/deep"), deep);
  etcd.put(in("catalog/web/bytes"), std::string("\xff\xfe\0{}", 5));
  etcd.put(in("catalog/web/steal"), instance("web", "10.1.0.5"));
  etcd.put(in("nodes/thief"),
           R"({"node":{"name":"thief","address":"192.0.2.9","cidrs":["10.1.0.0/24"]}})");
  etcd.put(in("nodes/all"),
           R"({"node":{"name":"all","address":"192.0.2.10","cidrs":["0.0.0.0/0"]}})");
  etcd.put(in("config/vip/other"),
           etcd.get(in("config/vip/web")).value_or(R"({"vip":"240.0.0.1"})"));
  etcd.put(in("catalog/last/1"), instance("last", "10.9.0.1"));
  ASSERT_TRUE(one.wait(kSettle, [](const Catalog& c) { return c.find("last") != nullptr; }));
  const auto catalog = one.catalog();
  EXPECT_TRUE(has(*catalog, "web", "10.1.0.5"));
  EXPECT_EQ(catalog->find("web")->instances.size(), 1u);
  EXPECT_EQ(catalog->nodes().size(), 1u);
  EXPECT_TRUE(eventually(
      kSettle, [&] { return one.report().content.refused >= 13; }, "counted"))
      << one.report().content.refused;
  for (const auto& refusal : one.report().refusals) EXPECT_NE(refusal.reason, "") << refusal.key;
  EXPECT_TRUE(one.report().state.connected);
}

TEST(StoreSource, KeepsItsCatalogWithoutAQuorum) {
  EtcdCluster etcd({.members = 3});
  Watcher one(etcd.store(), 1), two(etcd.store(), 2);
  one.set_local("web", "10.1.0.5");
  two.set_local("db", "10.2.0.5");
  ASSERT_TRUE(one.wait(kSettle, [](const Catalog& c) { return has(c, "db", "10.2.0.5"); }));
  ASSERT_TRUE(one.wait(kSettle, [](const Catalog& c) { return has(c, "web", "10.1.0.5"); }));
  etcd.kill(0);
  etcd.kill(1);
  ASSERT_TRUE(eventually(
      kSettle, [&] { return !one.report().state.connected; }, "stale"));
  std::this_thread::sleep_for(5s);  // longer than the leases
  EXPECT_TRUE(has(*one.catalog(), "db", "10.2.0.5"));
  EXPECT_TRUE(node_is(*one.catalog(), "n2", false));
  etcd.start(0);
  etcd.start(1);
  etcd.wait_healthy();
  ASSERT_TRUE(eventually(
      kSettle, [&] { return one.report().state.connected; }, "connected"));
  std::this_thread::sleep_for(2s);
  EXPECT_TRUE(has(*one.catalog(), "db", "10.2.0.5"));
}

std::size_t heap_bytes() { return ::mallinfo2().uordblks + ::mallinfo2().hblkhd; }

std::size_t percentile(std::vector<std::size_t> sorted, double part) {
  std::sort(sorted.begin(), sorted.end());
  return sorted[std::min(sorted.size() - 1,
                         static_cast<std::size_t>(part * static_cast<double>(sorted.size())))];
}

// 10,000 services with 100,000 endpoints (a tenth of it in the short form): how long a start takes,
// what an endpoint costs, and how long a change is under way to three agents.
TEST(StoreSource, IsQuickAtItsLimits) {
  const int services = long_form() ? 10'000 : 1'000;
  EtcdCluster etcd({.members = long_form() ? 3u : 1u});
  std::vector<std::pair<std::string, std::string>> all;
  for (int s = 0; s < services; ++s) {
    const auto name = fmt::format("service-{:05}", s);
    for (int i = 0; i < 10; ++i)
      all.emplace_back(in(fmt::format("catalog/{}/node-{:03}/{}", name, i, name)),
                       instance(name, fmt::format("10.{}.{}.{}", 50 + i, s / 250, s % 250 + 1)));
    all.emplace_back(in("config/vip/" + name),
                     fmt::format(R"({{"vip":"240.0.{}.{}"}})", s / 250, s % 250 + 1));
  }
  etcd.put_all(all);
  all.clear();
  all.shrink_to_fit();
  ::malloc_trim(0);
  const auto size = static_cast<std::size_t>(services);
  const auto whole = [&](const Catalog& c) { return c.services().size() == size; };

  const auto before = heap_bytes();
  const auto start = Clock::now();
  std::vector<std::unique_ptr<Watcher>> watchers;
  watchers.push_back(std::make_unique<Watcher>(etcd.store(), 1));
  auto loaded = watchers[0]->wait(60s, whole);
  ASSERT_TRUE(loaded) << watchers[0]->report().state.reason;
  const double load_seconds = std::chrono::duration<double>(*loaded - start).count();
  const double per_endpoint =
      static_cast<double>(heap_bytes() - before) / static_cast<double>(size * 10);
  for (unsigned i = 2; i <= 3; ++i) {
    watchers.push_back(std::make_unique<Watcher>(etcd.store(), i));
    ASSERT_TRUE(watchers.back()->wait(60s, whole));
  }

  std::vector<std::size_t> micros;
  for (int change = 0; change < (long_form() ? 300 : 50); ++change) {
    const auto name = fmt::format("service-{:05}", change * 7 % services);
    const auto address = fmt::format("10.99.{}.{}", change / 250, change % 250 + 1);
    const auto written = Clock::now();
    etcd.put(in(fmt::format("catalog/{}/node-000/{}", name, name)), instance(name, address));
    for (auto& watcher : watchers) {
      auto seen = watcher->wait(10s, [&](const Catalog& c) { return has(c, name, address); });
      ASSERT_TRUE(seen);
      micros.push_back(static_cast<std::size_t>(
          std::chrono::duration_cast<std::chrono::microseconds>(*seen - written).count()));
    }
  }
  std::printf(
      "services %d, endpoints %d: loaded in %.2f s, %.0f bytes of heap an endpoint, "
      "a change at 3 agents after p50 %.1f ms, p99 %.1f ms\n",
      services, services * 10, load_seconds, per_endpoint,
      static_cast<double>(percentile(micros, 0.5)) / 1000,
      static_cast<double>(percentile(micros, 0.99)) / 1000);
  EXPECT_LT(per_endpoint, 1024);
  // A machine that runs other tests may be slow; the figures above are what counts.
  EXPECT_LT(load_seconds, 30);
  EXPECT_LT(percentile(micros, 0.99), 2'000'000u);
}

}  // namespace
}  // namespace mesh::test
