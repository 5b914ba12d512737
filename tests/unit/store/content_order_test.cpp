// SPDX-License-Identifier: Apache-2.0
// The order in which keys arrive makes no difference; and how many there may be.
#include <gmock/gmock.h>

#include <algorithm>
#include <map>
#include <random>

#include "tests/unit/store/content_fixture.h"

namespace mesh::store {
namespace {

using catalog::Catalog;
using ::testing::HasSubstr;

// Whatever the order of events, agents that saw the same end in the same state.
TEST_F(ContentTest, TheSameKeysAreTheSameCatalogInAnyOrder) {
  std::mt19937 random(7);
  std::map<std::string, KeyValue> store;
  Revision revision = 1;
  const auto any = [&](int n) { return static_cast<int>(random() % static_cast<unsigned>(n)); };
  const auto event = [&]() -> Change {
    ++revision;
    const std::string name = Strings{"a", "b", "A", "c"}[static_cast<std::size_t>(any(4))];
    std::string key, value;
    switch (any(4)) {
      case 0:
        key = "config/vip/" + name;
        value = fmt::format(R"({{"vip":"240.0.0.{}"}})", any(4));
        break;
      case 1:
        key = fmt::format("nodes/n{}", any(5));
        value = node(key.substr(6), fmt::format("192.0.2.{}", 1 + any(4)),
                     fmt::format(R"("10.1.{}.0/{}")", any(2) * 2, any(2) ? 23 : 24));
        break;
      default:
        key = fmt::format("catalog/{}/{}", name, any(4));
        value = any(8) == 0 ? "bad"
                            : instance(name, fmt::format("10.1.0.{}", any(6)),
                                       any(5) == 0 ? R"(,"protocol":"http")" : "");
    }
    KeyValue one{key, value, revision, revision, 0, false};
    if (auto old = store.find(key); old != store.end()) one.created = old->second.created;
    if (any(3) == 0) {
      store.erase(key);
      return {one, true};
    }
    store[key] = one;
    return {one, false};
  };
  load({});
  for (int round = 0; round < 300; ++round) {
    Batch batch{0, {}};
    for (int i = 0; i < 5; ++i) batch.changes.push_back(event());
    content_.apply(std::move(batch));
    const auto followed = content_.build();
    Content fresh(options());
    Snapshot snapshot;
    for (const auto& [key, value] : store) snapshot.entries.push_back(value);
    fresh.load(std::move(snapshot));
    const auto loaded = fresh.build();
    ASSERT_TRUE(followed->services() == loaded->services()) << round;
    for (const auto& [name, one] : loaded->nodes()) {
      ASSERT_EQ(followed->nodes().count(name), 1u) << name;
      ASSERT_EQ(followed->nodes().at(name), one) << name;
    }
    for (const auto& [name, one] : followed->nodes())
      ASSERT_TRUE(one.gone || loaded->nodes().count(name) == 1u) << name;
    ASSERT_EQ(content_.stats().keys, fresh.stats().keys) << round;
    ASSERT_EQ(content_.stats().bytes, fresh.stats().bytes) << round;
    ASSERT_EQ(content_.stats().refused, fresh.stats().refused) << round;
    ASSERT_EQ(content_.without_vip(100), fresh.without_vip(100)) << round;
    // The indexes of a snapshot that was made from another one.
    for (const auto& [name, service] : followed->services())
      for (const auto& one : service.instances)
        ASSERT_EQ(followed->service_at(one.endpoint()), &service);
  }
}

TEST_F(ContentTest, RemembersNoMoreThanItMay) {
  std::vector<KeyValue> all;
  for (std::size_t i = 0; i < kMaxKeys + 5; ++i) all.push_back(kv(fmt::format("x{:06}", i), "", 1));
  load(std::move(all));
  EXPECT_EQ(content_.stats().keys, kMaxKeys);
  EXPECT_EQ(content_.stats().over_limit, 5u);
  EXPECT_EQ(content_.stats().refused, kMaxKeys + 5);
  EXPECT_EQ(content_.refusals(50).size(), 50u);
}

TEST_F(ContentTest, BoundsServices) {
  std::vector<KeyValue> all;
  for (std::size_t i = 0; i < catalog::kMaxServices + 1; ++i) {
    const auto name = fmt::format("s{:06}", i);
    all.push_back(kv("catalog/" + name + "/1",
                     instance(name, fmt::format("10.{}.{}.1", 2 + i / 250, i % 250)), 1));
  }
  load(std::move(all));
  EXPECT_EQ(content_.stats().refused, 1u);
  EXPECT_THAT(reason("catalog/s010000/1"), HasSubstr("more than 10000 services"));
}

TEST_F(ContentTest, AServiceThatAnEntryNamesStaysWhenItsInstancesGo) {
  const std::string failover =
      R"({"Kind":"service-resolver","Name":"web","Failover":{"*":{"Service":"backup"}}})";
  load({kv("catalog/web/1", instance("web", "10.0.1.5"), 5)});
  give_vip("web", "240.1.2.3");
  put("config/service-resolver/web", failover);
  EXPECT_EQ(addresses("web"), Strings{"10.0.1.5"});
  erase("catalog/web/1");
  const auto catalog = content_.build();
  const auto* web = catalog->find("web");
  ASSERT_NE(web, nullptr) << "its failover is needed now";
  EXPECT_TRUE(web->instances.empty());
  EXPECT_EQ(web->vip4.to_string(), "240.1.2.3");
  EXPECT_EQ(web->vip6.to_string(), "fd6d:6573:6800::f001:203");
  put("catalog/web/2", instance("web", "10.0.1.6"));
  EXPECT_EQ(addresses("web"), Strings{"10.0.1.6"});
  erase("catalog/web/2");
  ASSERT_NE(content_.build()->find("web"), nullptr);
  erase("config/service-resolver/web");
  EXPECT_EQ(content_.build()->find("web"), nullptr);
  put("config/service-resolver/web", failover);
  ASSERT_NE(content_.build()->find("web"), nullptr);
  erase("config/vip/web");
  EXPECT_EQ(content_.build()->find("web"), nullptr) << "nobody can call it";
}

}  // namespace
}  // namespace mesh::store
