// SPDX-License-Identifier: Apache-2.0
// Consul's rules against an oracle that knows them only as a table of numbers and a list of
// requests.
#include "agent/policy/policy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <optional>

namespace mesh::policy {
namespace {

using config::Action;
using config::HttpMatch;
using config::IntentionSource;
using config::PathBy;
using config::Permission;
using config::ServiceIntentions;
using EntryMap = config::Entries::ByName<ServiceIntentions>;

const Policy::HttpLike kAllHttp = [](std::string_view) { return true; };
const Policy::HttpLike kNoHttp = [](std::string_view) { return false; };

IntentionSource from(std::string name, Action action) {
  IntentionSource source;
  source.name = std::move(name);
  source.action = action;
  return source;
}

IntentionSource by_requests(std::string name, std::vector<Permission> permissions) {
  IntentionSource source;
  source.name = std::move(name);
  source.permissions = std::move(permissions);
  return source;
}

Permission prefix(Action action, std::string path) {
  HttpMatch http;
  http.path_by = PathBy::Prefix;
  http.path = std::move(path);
  Permission permission;
  permission.action = action;
  permission.http = std::move(http);
  return permission;
}

Permission methods(Action action, std::vector<std::string> names) {
  Permission permission;
  permission.action = action;
  permission.http.emplace();
  permission.http->methods = std::move(names);
  return permission;
}

void add(EntryMap& entries, const std::string& destination, IntentionSource source) {
  auto& entry = entries[destination];
  entry.name = destination;
  entry.sources.push_back(std::move(source));
}

// --- the oracle

struct Rule {
  std::string source, destination;
  bool allow = false;
};

// The precedence numbers of the documentation, looked for from the highest.
bool oracle(const std::vector<Rule>& rules, bool default_allow, const std::string& source,
            const std::string& destination) {
  struct Row {
    int precedence;
    bool any_source, any_destination;
  };
  const std::array<Row, 4> table{
      {{9, false, false}, {8, true, false}, {6, false, true}, {5, true, true}}};
  for (const auto& row : table)
    for (const auto& rule : rules) {
      const bool any_source = rule.source == "*", any_destination = rule.destination == "*";
      if (any_source != row.any_source || any_destination != row.any_destination) continue;
      if (!any_source && rule.source != source) continue;
      if (!any_destination && rule.destination != destination) continue;
      return rule.allow;
    }
  return default_allow;
}

TEST(Policy, EveryCombinationOfActionsDecidesAsTheTableSays) {
  const std::array<std::string, 3> names{"a", "b", "*"};
  const std::array<std::string, 4> asked{"a", "b", "c", ""};
  std::size_t decided = 0;
  for (unsigned combination = 0; combination < 19683; ++combination) {  // 3^9
    EntryMap entries;
    std::vector<Rule> rules;
    unsigned rest = combination;
    for (const auto& destination : names)
      for (const auto& source : names) {
        const unsigned state = rest % 3;
        rest /= 3;
        if (state == 0) continue;
        rules.push_back({source, destination, state == 1});
        add(entries, destination, from(source, state == 1 ? Action::Allow : Action::Deny));
      }
    for (const bool default_allow : {true, false}) {
      const Policy policy(entries, default_allow ? Verdict::Allow : Verdict::Deny, kNoHttp);
      for (const auto& source : asked)
        for (const auto& destination : asked) {
          ++decided;
          ASSERT_EQ(policy.decide(source, destination).allowed(),
                    oracle(rules, default_allow, source, destination))
              << combination << " default " << default_allow << ": '" << source << "' -> '"
              << destination << "'";
        }
    }
  }
  EXPECT_EQ(decided, 19683u * 2 * 16);
}

// What a permission is about, reduced to what the permissions below can tell apart.
struct Sample {
  std::string method;
  std::optional<std::string> path;  // none: OPTIONS *, CONNECT
};
const std::vector<Sample>& samples() {
  static const std::vector<Sample> all{{"GET", "/"},
                                       {"GET", "/admin"},
                                       {"GET", "/admin/x"},
                                       {"POST", "/"},
                                       {"POST", "/admin"},
                                       {"PURGE", "/other"},
                                       {"OPTIONS", std::nullopt},
                                       {"CONNECT", std::nullopt}};
  return all;
}

bool matches(const HttpMatch& match, const Sample& sample) {
  if (match.path_by == PathBy::Prefix &&
      (!sample.path || sample.path->compare(0, match.path.size(), match.path) != 0))
    return false;
  if (match.path_by == PathBy::Exact && sample.path != match.path) return false;
  if (match.methods.empty()) return true;
  return std::find(match.methods.begin(), match.methods.end(), sample.method) !=
         match.methods.end();
}

bool every_request_is_allowed(const std::vector<Permission>& permissions, bool default_allow) {
  for (const auto& sample : samples()) {
    bool allow = default_allow;
    for (const auto& permission : permissions)
      if (matches(*permission.http, sample)) {
        allow = permission.action == Action::Allow;
        break;
      }
    if (!allow) return false;
  }
  return true;
}

// Every list of up to three permissions of eight kinds: what is allowed as a whole must be allowed
// request by request, and nothing is allowed for a service that does not speak HTTP.
TEST(Policy, NoListOfPermissionsLetsThroughWhatItDenies) {
  const std::vector<Permission> kinds{prefix(Action::Allow, "/"),
                                      prefix(Action::Deny, "/"),
                                      prefix(Action::Allow, "/admin"),
                                      prefix(Action::Deny, "/admin"),
                                      methods(Action::Allow, {"GET"}),
                                      methods(Action::Deny, {"GET"}),
                                      methods(Action::Allow, {"POST", "OPTIONS"}),
                                      methods(Action::Deny, {"CONNECT"})};
  std::size_t allowed = 0;
  for (std::size_t list = 0; list < 9 * 9 * 9; ++list) {
    std::vector<Permission> permissions;
    for (std::size_t rest = list, i = 0; i < 3; ++i, rest /= 9)
      if (rest % 9 != 0) permissions.push_back(kinds[rest % 9 - 1]);
    if (permissions.empty()) continue;
    EntryMap entries;
    add(entries, "api", by_requests("web", permissions));
    for (const bool default_allow : {true, false}) {
      const Verdict verdict = default_allow ? Verdict::Allow : Verdict::Deny;
      const Policy http(entries, verdict, kAllHttp);
      const auto decision = http.decide("web", "api");
      ASSERT_NE(decision.intention, nullptr);
      if (decision.allowed()) {
        ++allowed;
        ASSERT_TRUE(every_request_is_allowed(permissions, default_allow)) << list;
      }
      const Policy tcp(entries, verdict, kNoHttp);
      ASSERT_FALSE(tcp.decide("web", "api").allowed()) << list;
      ASSERT_EQ(tcp.decide("web", "api").intention->why, Why::PermissionsOnTcp);
    }
  }
  EXPECT_GT(allowed, 50u);  // not by denying everything
}

// An allow list by permissions is the usual form; with a default of deny it must not become "allow
// everything" (and one that only denies must not either).
TEST(Policy, OneDenyingPermissionWithDefaultDenyAllowsNothing) {
  EntryMap entries;
  add(entries, "api", by_requests("web", {prefix(Action::Deny, "/admin")}));
  const Policy policy(entries, Verdict::Deny, kAllHttp);
  EXPECT_FALSE(policy.decide("web", "api").allowed());
  EXPECT_EQ(policy.decide("web", "api").intention->why, Why::PermissionsUnseen);
  EXPECT_FALSE(policy.decide("other", "api").allowed());
  EXPECT_EQ(policy.decide("other", "api").intention, nullptr);
}

TEST(Policy, WhatDemandsATokenIsDenied) {
  EntryMap entries;
  auto guarded = prefix(Action::Allow, "/");
  guarded.needs_jwt = true;
  add(entries, "one", by_requests("web", {prefix(Action::Allow, "/"), guarded}));
  add(entries, "two", from("web", Action::Allow));
  entries["two"].needs_jwt = true;
  add(entries, "two", from("*", Action::Deny));
  const Policy policy(entries, Verdict::Allow, kAllHttp);
  for (const auto* destination : {"one", "two"}) {
    const auto decision = policy.decide("web", destination);
    EXPECT_FALSE(decision.allowed()) << destination;
    EXPECT_EQ(decision.intention->why, Why::Token) << destination;
  }
  EXPECT_EQ(policy.decide("other", "two").intention->why, Why::Action);
}

TEST(Policy, NobodyIsOnlyAnybody) {
  EntryMap entries;
  add(entries, "api", from("", Action::Allow));  // an empty name names nobody
  add(entries, "*", from("*", Action::Deny));
  const Policy closed(entries, Verdict::Allow, kNoHttp);
  EXPECT_FALSE(closed.decide("", "api").allowed());
  EXPECT_FALSE(closed.decide("", "").allowed());
  EXPECT_FALSE(closed.decide("web", "").allowed());
  add(entries, "api", from("*", Action::Allow));
  const Policy open(entries, Verdict::Allow, kNoHttp);
  EXPECT_TRUE(open.decide("", "api").allowed());
  EXPECT_EQ(open.decide("", "api").intention->source, "*");
}

TEST(Policy, APeersServiceIsNotOursOfThatName) {
  EntryMap entries;
  auto peer = from("web", Action::Allow);
  peer.peer = "elsewhere";
  add(entries, "api", peer);
  const Policy policy(entries, Verdict::Deny, kNoHttp);
  EXPECT_FALSE(policy.decide("web", "api").allowed());
  EXPECT_EQ(policy.decide("web", "api").intention, nullptr);
  EXPECT_THAT(policy.match("api"), ::testing::IsEmpty());
}

TEST(Policy, PermissionsOfAnyDestinationDeny) {
  EntryMap entries;
  add(entries, "*", by_requests("web", {prefix(Action::Allow, "/")}));
  const Policy policy(entries, Verdict::Allow, kAllHttp);
  EXPECT_FALSE(policy.decide("web", "api").allowed());
  EXPECT_TRUE(policy.decide("other", "api").allowed());
}

TEST(Policy, OrderInTheListDoesNotMatter) {
  for (const bool wildcard_first : {true, false}) {
    EntryMap entries;
    if (wildcard_first) add(entries, "api", from("*", Action::Deny));
    add(entries, "api", from("web", Action::Allow));
    if (!wildcard_first) add(entries, "api", from("*", Action::Deny));
    const Policy policy(entries, Verdict::Allow, kNoHttp);
    EXPECT_TRUE(policy.decide("web", "api").allowed());
    EXPECT_FALSE(policy.decide("other", "api").allowed());
  }
  // The same pair twice: never the open one.
  for (const auto first : {Action::Allow, Action::Deny}) {
    EntryMap entries;
    add(entries, "api", from("web", first));
    add(entries, "api", from("web", first == Action::Allow ? Action::Deny : Action::Allow));
    EXPECT_FALSE(Policy(entries, Verdict::Allow, kNoHttp).decide("web", "api").allowed());
  }
}

TEST(Policy, APortOfNoServiceNeedsTheConsentOfAll) {
  EntryMap entries;
  add(entries, "secret", from("web", Action::Deny));
  const Policy policy(entries, Verdict::Allow, kNoHttp);
  const std::vector<std::string_view> both{"public", "secret"}, one{"public"}, none;
  EXPECT_FALSE(policy.decide("web", both).allowed());
  EXPECT_EQ(policy.decide("web", both).intention->destination, "secret");
  EXPECT_TRUE(policy.decide("other", both).allowed());
  EXPECT_TRUE(policy.decide("web", one).allowed());
  EXPECT_TRUE(policy.decide("web", none).allowed());
  EXPECT_FALSE(Policy(Verdict::Deny).decide("web", none).allowed());
}

TEST(Policy, MatchListsByPrecedence) {
  EntryMap entries;
  add(entries, "api", from("*", Action::Deny));
  add(entries, "api", from("web", Action::Allow));
  add(entries, "api", from("batch", Action::Allow));
  add(entries, "*", from("*", Action::Deny));
  add(entries, "*", from("web", Action::Allow));
  add(entries, "other", from("web", Action::Allow));
  const Policy policy(entries, Verdict::Allow, kNoHttp);
  std::vector<std::string> lines;
  for (const auto* i : policy.match("api"))
    lines.push_back(i->source + ">" + i->destination + " " + std::to_string(i->precedence));
  EXPECT_THAT(lines,
              ::testing::ElementsAre("batch>api 9", "web>api 9", "*>api 8", "web>* 6", "*>* 5"));
  EXPECT_EQ(policy.match("*").size(), 2u);
  EXPECT_EQ(policy.intentions().size(), 6u);
}

TEST(Policy, SaysWhichIntentionDecided) {
  EntryMap entries;
  add(entries, "api", from("web", Action::Deny));
  const Policy policy(entries, Verdict::Allow, kNoHttp);
  EXPECT_EQ(policy.decide("web", "api").to_string(),
            "intention web -> api (precedence 9): deny, by its action");
  EXPECT_EQ(policy.decide("other", "api").to_string(), "default policy: allow");
  EXPECT_FALSE(policy.trivial());
  EXPECT_TRUE(Policy().trivial());
  EXPECT_FALSE(Policy(Verdict::Deny).trivial());
}

}  // namespace
}  // namespace mesh::policy
