// SPDX-License-Identifier: Apache-2.0
// service-intentions.
#include <gmock/gmock.h>

#include "tests/unit/config/reading.h"

namespace mesh::config {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

Reading intentions(std::string_view sources, std::string_view name = "api",
                   std::string_view more = "") {
  return read(std::string(R"({"Kind":"service-intentions","Name":")") + std::string(name) +
              R"(","Sources":)" + std::string(sources) + std::string(more) + "}");
}

std::vector<std::string> permission(std::string_view fields) {
  return intentions(R"([{"Name":"web","Permissions":[{"Action":"allow",)" + std::string(fields) +
                    "}]}]")
      .errors;
}

TEST(IntentionFields, HighestPrecedenceFirst) {
  const auto reading = intentions(R"([
    {"Name": "*", "Action": "deny", "Description": "nobody else"},
    {"Name": "web", "Action": "allow", "Type": "consul", "Precedence": 3},
    {"Name": "db", "Action": "allow", "Namespace": "default"}])");
  EXPECT_THAT(reading.errors, IsEmpty());
  EXPECT_THAT(reading.warnings, IsEmpty());
  const auto& entry = reading.only<ServiceIntentions>();
  ASSERT_THAT(entry.sources, SizeIs(3));
  EXPECT_EQ(entry.sources[0].name, "web");
  EXPECT_EQ(entry.sources[0].precedence, 9u);
  EXPECT_EQ(entry.sources[0].action, Action::Allow);
  EXPECT_EQ(entry.sources[1].name, "db");
  EXPECT_EQ(entry.sources[2].name, "*");
  EXPECT_EQ(entry.sources[2].precedence, 8u);
  EXPECT_EQ(entry.sources[2].description, "nobody else");
  EXPECT_FALSE(entry.needs_jwt);
  const auto any =
      intentions(R"([{"Name":"*","Action":"deny"},{"Name":"a","Action":"allow"}])", "*");
  EXPECT_EQ(any.only<ServiceIntentions>().sources[0].precedence, 6u);
  EXPECT_EQ(any.only<ServiceIntentions>().sources[1].precedence, 5u);
}

TEST(IntentionFields, Permissions) {
  const auto reading = intentions(R"([{"Name": "web", "Permissions": [
    {"Action": "deny", "HTTP": {"PathPrefix": "/admin", "Methods": ["get"], "Header": [
       {"Name": "x-role", "Exact": "guest", "IgnoreCase": true, "Invert": true},
       {"Name": "x-a", "Contains": "b"}]}},
    {"Action": "allow", "HTTP": {"path_exact": "/"}}]}])");
  EXPECT_THAT(reading.errors, IsEmpty());
  const auto& source = reading.only<ServiceIntentions>().sources[0];
  EXPECT_FALSE(source.action);
  ASSERT_THAT(source.permissions, SizeIs(2));
  const auto& first = source.permissions[0];
  EXPECT_EQ(first.action, Action::Deny);
  ASSERT_TRUE(first.http);
  EXPECT_EQ(first.http->path, "/admin");
  EXPECT_THAT(first.http->methods, ElementsAre("GET"));
  EXPECT_THAT(first.http->headers,
              ElementsAre(HeaderMatch{"x-role", MatchBy::Exact, "guest", true, true},
                          HeaderMatch{"x-a", MatchBy::Contains, "b", false, false}));
  EXPECT_EQ(source.permissions[1].action, Action::Allow);
  EXPECT_EQ(source.permissions[1].http->path_by, PathBy::Exact);
}

TEST(IntentionFields, WhatDemandsATokenIsMarked) {
  const std::string jwt = R"("JWT":{"Providers":[{"Name":"okta","VerifyClaims":[
      {"Path":["perms","role"],"Value":"admin"}]}]})";
  const auto whole = intentions(R"([{"Name":"web","Action":"allow"}])", "api", "," + jwt);
  EXPECT_THAT(whole.errors, IsEmpty());
  EXPECT_THAT(whole.warnings, ElementsAre(HasSubstr("JWT: tokens cannot be checked here")));
  EXPECT_TRUE(whole.only<ServiceIntentions>().needs_jwt);

  const auto some = intentions(R"([{"Name":"web","Permissions":[
      {"Action":"allow","HTTP":{"PathPrefix":"/a"},)" +
                               jwt + R"(},
      {"Action":"allow",)" + jwt +
                               R"(},
      {"Action":"allow","HTTP":{"PathPrefix":"/b"}}]}])");
  EXPECT_THAT(some.errors, IsEmpty());
  const auto& permissions = some.only<ServiceIntentions>().sources[0].permissions;
  ASSERT_THAT(permissions, SizeIs(3));
  EXPECT_TRUE(permissions[0].needs_jwt);
  EXPECT_TRUE(permissions[0].http);
  EXPECT_TRUE(permissions[1].needs_jwt);
  EXPECT_FALSE(permissions[1].http);
  EXPECT_FALSE(permissions[2].needs_jwt);
  // A requirement without a provider may be a slip: it denies as well.
  EXPECT_TRUE(intentions(R"([{"Name":"web","Action":"allow"}])", "api", R"(,"JWT":{})")
                  .only<ServiceIntentions>()
                  .needs_jwt);
  EXPECT_THAT(
      intentions(R"([{"Name":"w","Action":"allow"}])", "api", R"(,"JWT":{"Providers":[{}]})")
          .errors,
      ElementsAre(HasSubstr("JWT.Providers[0]: 'Name' is required")));
}

TEST(IntentionFields, APeersSourceIsKeptApart) {
  const auto reading = intentions(
      R"([{"Name":"web","Peer":"east","Action":"allow"},{"Name":"web","Action":"deny"}])");
  EXPECT_THAT(reading.errors, IsEmpty());
  EXPECT_THAT(reading.warnings, ElementsAre(HasSubstr("Peer: there are no peers here")));
  EXPECT_EQ(reading.only<ServiceIntentions>().sources[0].peer, "east");
  EXPECT_EQ(reading.only<ServiceIntentions>().sources[1].peer, "");
}

TEST(IntentionFields, WhatIsRefused) {
  const auto errors = [](std::string_view sources, std::string_view name = "api") {
    return intentions(sources, name).errors;
  };
  EXPECT_THAT(errors("[]"), ElementsAre(HasSubstr("Sources: expected at least one source")));
  EXPECT_THAT(read(R"({"Kind":"service-intentions","Name":"a"})").errors, SizeIs(1));
  EXPECT_THAT(errors(R"([{"Name":"web"}])"),
              ElementsAre(HasSubstr("Sources[0]: expected an Action")));
  EXPECT_THAT(errors(R"([{"Name":"web","Action":""}])"), SizeIs(1));
  EXPECT_THAT(errors(R"([{"Name":"web","Permissions":[]}])"), SizeIs(1));
  EXPECT_THAT(errors(R"([{"Name":"web","Action":"Allow"}])"),
              ElementsAre(HasSubstr("Action: expected \"allow\" or \"deny\", got \"Allow\"")));
  EXPECT_THAT(errors(R"([{"Action":"allow"}])"),
              ElementsAre(HasSubstr("Sources[0]: 'Name' is required")));
  EXPECT_THAT(errors(R"([{"Name":"we*","Action":"allow"}])"), SizeIs(1));
  EXPECT_THAT(errors(R"([{"Name":"web","Action":"allow","Peer":"*"}])"), SizeIs(1));
  EXPECT_THAT(errors(R"([{"Name":"web","Action":"allow","Namespace":"*"}])"), SizeIs(1));
  EXPECT_THAT(errors(R"([{"Name":"web","Action":"allow","SamenessGroup":"g"}])"), SizeIs(1));
  EXPECT_THAT(errors(R"([{"Name":"web","Action":"allow","Type":"vm"}])"), SizeIs(1));
  EXPECT_THAT(errors(R"([{"Name":"web","Action":"allow","LegacyID":"x"}])"), SizeIs(1));
  EXPECT_THAT(errors(R"([{"Name":"web","Action":"allow"},{"Name":"web","Action":"deny"}])"),
              ElementsAre(HasSubstr("Sources: \"web\" is there twice")));
  EXPECT_THAT(errors(R"([{"Name":"web","Action":"allow","Permissions":[
                  {"Action":"deny","HTTP":{"PathPrefix":"/"}}]}])"),
              ElementsAre(HasSubstr("Action: cannot be given together with Permissions")));
  EXPECT_THAT(errors(R"([{"Name":"web","Permissions":[
                  {"Action":"deny","HTTP":{"PathPrefix":"/"}}]}])",
                     "*"),
              ElementsAre(HasSubstr("Permissions cannot be given for the destination \"*\"")));
  EXPECT_THAT(errors(R"([{"Name":"web","Action":"allow","Description":")" + std::string(513, 'x') +
                     R"("}])"),
              ElementsAre(HasSubstr("Description: is longer than 512 bytes")));
  EXPECT_THAT(errors(R"([{"Name":"web","Action":"allow"}])", "a*"), SizeIs(1));
}

TEST(IntentionFields, WhatIsRefusedOfPermissions) {
  EXPECT_THAT(permission(R"("HTTP":{"PathPrefix":"/"})"), IsEmpty());
  EXPECT_THAT(permission(R"("X":1)"), testing::Contains(HasSubstr("'HTTP' is required")));
  EXPECT_THAT(permission(R"("HTTP":{})"), ElementsAre(HasSubstr("HTTP: is empty")));
  EXPECT_THAT(permission(R"("HTTP":{"PathPrefix":"a"})"), SizeIs(1));
  EXPECT_THAT(permission(R"("HTTP":{"PathPrefix":"/","PathRegex":"/"})"), SizeIs(1));
  EXPECT_THAT(permission(R"("HTTP":{"Methods":["GET","get"]})"), SizeIs(1));
  EXPECT_THAT(permission(R"("HTTP":{"Header":[{"Name":"x"}]})"), SizeIs(1));
  EXPECT_THAT(permission(R"("HTTP":{"Header":[{"Name":"x","Regex":"a","IgnoreCase":true}]})"),
              ElementsAre(HasSubstr("IgnoreCase: is only for")));
  EXPECT_THAT(permission(R"("HTTP":{"Header":[{"Name":"x","Regex":"["}]})"), SizeIs(1));
  EXPECT_THAT(permission(R"("HTTP":{"QueryParam":[{"Name":"x","Exact":"a"}],"PathExact":"/"})"),
              SizeIs(1));
  EXPECT_THAT(intentions(R"([{"Name":"web","Permissions":[{"HTTP":{"PathPrefix":"/"}}]}])").errors,
              ElementsAre(HasSubstr("Permissions[0]: 'Action' is required")));
}

}  // namespace
}  // namespace mesh::config
