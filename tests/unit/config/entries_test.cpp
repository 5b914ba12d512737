// SPDX-License-Identifier: Apache-2.0
#include "agent/config/entries.h"

#include <gtest/gtest.h>

namespace mesh::config {
namespace {

template <typename T>
T named(std::string name) {
  T entry;
  entry.name = std::move(name);
  return entry;
}

TEST(ConfigEntries, KindsHaveTheNamesOfConsul) {
  for (auto name : {"service-defaults", "proxy-defaults", "mesh", "service-resolver",
                    "service-splitter", "service-router", "service-intentions"}) {
    auto kind = kind_of(std::string_view(name));
    ASSERT_TRUE(kind) << name;
    EXPECT_EQ(to_string(*kind), name);
  }
  EXPECT_FALSE(kind_of(std::string_view("jwt-provider")));
}

TEST(ConfigEntries, TheVariantIsInTheOrderOfKinds) {
  EXPECT_EQ(kind_of(Entry(ServiceDefaults{})), Kind::ServiceDefaults);
  EXPECT_EQ(kind_of(Entry(ProxyDefaults{})), Kind::ProxyDefaults);
  EXPECT_EQ(kind_of(Entry(Mesh{})), Kind::Mesh);
  EXPECT_EQ(kind_of(Entry(ServiceResolver{})), Kind::ServiceResolver);
  EXPECT_EQ(kind_of(Entry(ServiceSplitter{})), Kind::ServiceSplitter);
  EXPECT_EQ(kind_of(Entry(ServiceRouter{})), Kind::ServiceRouter);
  EXPECT_EQ(kind_of(Entry(ServiceIntentions{})), Kind::ServiceIntentions);
  EXPECT_EQ(name_of(Entry(ProxyDefaults{})), "global");
  EXPECT_EQ(name_of(Entry(Mesh{})), "mesh");
  EXPECT_EQ(name_of(Entry(named<ServiceRouter>("web"))), "web");
}

TEST(ConfigEntries, OneOfAKindAndName) {
  Entries entries;
  EXPECT_TRUE(entries.add(named<ServiceResolver>("web")));
  EXPECT_TRUE(entries.add(named<ServiceRouter>("web")));
  EXPECT_TRUE(entries.add(named<ServiceSplitter>("web")));
  EXPECT_TRUE(entries.add(named<ServiceIntentions>("*")));
  EXPECT_TRUE(entries.add(ProxyDefaults{}));
  EXPECT_TRUE(entries.add(Mesh{}));
  EXPECT_TRUE(entries.add(named<ServiceDefaults>("web")));
  EXPECT_EQ(entries.size(), 7u);

  auto again = named<ServiceResolver>("web");
  again.default_subset = "v1";
  EXPECT_FALSE(entries.add(again));
  EXPECT_FALSE(entries.add(Mesh{}));
  EXPECT_EQ(entries.size(), 7u);
  EXPECT_EQ(entries.resolvers.at("web").default_subset, "");
}

TEST(ConfigEntries, ProtocolIsTheServicesThenTheProxys) {
  Entries entries;
  EXPECT_FALSE(entries.protocol_of("web"));
  ProxyDefaults proxy;
  proxy.protocol = Protocol::Http;
  entries.add(proxy);
  EXPECT_EQ(entries.protocol_of("web"), Protocol::Http);
  entries.add(named<ServiceDefaults>("web"));
  EXPECT_EQ(entries.protocol_of("web"), Protocol::Http);
  auto grpc = named<ServiceDefaults>("api");
  grpc.protocol = Protocol::Grpc;
  entries.add(grpc);
  EXPECT_EQ(entries.protocol_of("api"), Protocol::Grpc);
  EXPECT_EQ(protocol_from("http2"), Protocol::Http2);
  EXPECT_FALSE(protocol_from("HTTP"));
}

TEST(ConfigEntries, EqualityLooksAtWhatIsWritten) {
  Entries a;
  Entries b;
  auto resolver = named<ServiceResolver>("web");
  resolver.subsets["v1"].filter = "Service.Meta.version == v1";
  a.add(resolver);
  b.add(resolver);
  EXPECT_EQ(a, b);
  b.resolvers.at("web").subsets["v1"].only_passing = true;
  EXPECT_FALSE(a == b);
}

}  // namespace
}  // namespace mesh::config
