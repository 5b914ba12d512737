// SPDX-License-Identifier: Apache-2.0
#include "agent/store/config_values.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace mesh::store {
namespace {

using config::Action;
using config::Entries;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

config::Protocol tcp(std::string_view) { return config::Protocol::Tcp; }

ConfigValues read(const std::map<std::string, std::string>& texts, const Entries& local = {},
                  const Entries& before = {}) {
  static const std::set<std::string> kNone;
  return read_config_values({texts, kNone}, local, before, tcp);
}

const std::string kAllow =
    R"({"Kind": "service-intentions", "Name": "db", "Sources": [{"Name": "web", "Action": "allow"}]})";

bool denies_everybody(const Entries& entries, const std::string& destination) {
  const auto it = entries.intentions.find(destination);
  return it != entries.intentions.end() && it->second.sources.size() == 1 &&
         it->second.sources[0].name == "*" && it->second.sources[0].action == Action::Deny;
}

TEST(StoreConfig, EntriesAreReadByTheirKeys) {
  const auto values =
      read({{"service-intentions/db", kAllow},
            {"service-defaults/web",
             R"({"kind": "service-defaults", "name": "web", "protocol": "http"})"}});
  EXPECT_THAT(values.refused, IsEmpty());
  ASSERT_EQ(values.entries->intentions.at("db").sources.size(), 1u);
  EXPECT_EQ(values.entries->protocol_of("web"), config::Protocol::Http);
}

TEST(StoreConfig, IntentionsThatCannotBeReadDenyTheirDestination) {
  for (
      const auto* bad :
      {"", "{", "[]", "null", R"({"Kind": "service-intentions", "Name": "db"})",
       R"({"Kind": "service-intentions", "Name": "other", "Sources": [{"Name": "web", "Action": "allow"}]})",
       R"({"Kind": "service-intentions", "Name": "db", "Sources": [{"Name": "web", "Action": "maybe"}]})",
       R"({"Kind": "service-intentions", "Name": "db", "Sourcs": []})"}) {
    const auto values = read({{"service-intentions/db", bad}});
    EXPECT_TRUE(denies_everybody(*values.entries, "db")) << bad;
    EXPECT_EQ(values.refused.count("service-intentions/db"), 1u) << bad;
    EXPECT_EQ(values.entries->intentions.count("other"), 0u) << bad;
  }
  const auto everybody = read({{"service-intentions/*", "{"}});
  EXPECT_TRUE(denies_everybody(*everybody.entries, "*"));
}

TEST(StoreConfig, OtherEntriesThatCannotBeReadAreLeftOut) {
  const auto values = read({{"service-resolver/web", "{"},
                            {"jwt-provider/okta", R"({"Kind": "jwt-provider", "Name": "okta"})"},
                            {"service-intentions/db", kAllow}});
  EXPECT_EQ(values.entries->size(), 1u);
  EXPECT_EQ(values.refused.size(), 2u);
  EXPECT_THAT(values.refused.at("jwt-provider/okta"), HasSubstr("jwt-provider"));
}

TEST(StoreConfig, FilesSayWhatTheStoreDoesNot) {
  Entries local;
  const auto files = read(
      {{"service-intentions/db", kAllow},
       {"service-intentions/x",
        R"({"Kind": "service-intentions", "Name": "x", "Sources": [{"Name": "web", "Action": "deny"}]})"}});
  const auto both = read(
      {{"service-intentions/db",
        R"({"Kind": "service-intentions", "Name": "db", "Sources": [{"Name": "web", "Action": "deny"}]})"}},
      *files.entries);
  EXPECT_EQ(both.entries->intentions.size(), 2u);
  EXPECT_EQ(both.entries->intentions.at("db").sources[0].action, Action::Deny);
  // One that cannot be read is there all the same.
  const auto bad = read({{"service-intentions/db", "{"}}, *files.entries);
  EXPECT_TRUE(denies_everybody(*bad.entries, "db"));
}

TEST(StoreConfig, RoutingThatMakesNoSenseStaysAsItWas) {
  const auto before =
      read({{"service-resolver/web",
             R"({"Kind": "service-resolver", "Name": "web", "Redirect": {"Service": "next"}})"}});
  EXPECT_THAT(before.refused, IsEmpty());
  const auto circle =
      read({{"service-resolver/web",
             R"({"Kind": "service-resolver", "Name": "web", "Redirect": {"Service": "next"}})"},
            {"service-resolver/next",
             R"({"Kind": "service-resolver", "Name": "next", "Redirect": {"Service": "web"}})"},
            {"service-intentions/db", kAllow}},
           {}, *before.entries);
  EXPECT_EQ(circle.entries->resolvers.size(), 1u);
  EXPECT_EQ(circle.entries->intentions.size(), 1u) << "intentions do not wait for routing";
  EXPECT_EQ(circle.refused.size(), 2u);
}

}  // namespace
}  // namespace mesh::store
