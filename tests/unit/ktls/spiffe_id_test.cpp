// SPDX-License-Identifier: Apache-2.0
#include "ktls/spiffe_id.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace mesh::ktls {
namespace {

using testing::HasSubstr;

TEST(SpiffeId, TakesWhatTheStandardAllows) {
  for (const char* uri : {
           "spiffe://example.org/ns/default/dc/dc1/svc/web",
           "spiffe://11111111-2222-3333-4444-555555555555.consul/ns/default/dc/dc1/svc/web",
           "spiffe://td/ns/prod/sa/web",
           "spiffe://a_b-c.d9/A-Z_a.z/...",
           "spiffe://td",
           "spiffe://td/.a/b..",
       }) {
    auto id = SpiffeId::parse(uri);
    ASSERT_TRUE(id) << uri << ": " << id.error().what;
    EXPECT_EQ(id->uri(), uri);
    EXPECT_EQ("spiffe://" + std::string(id->trust_domain()) + std::string(id->path()), uri);
  }
}

struct Wrong {
  std::string uri;
  const char* says;
};

TEST(SpiffeId, RefusesEverythingElse) {
  const Wrong wrong[] = {
      {"", "begin with"},
      {"spiffe:", "begin with"},
      {"spiffe:/td/a", "begin with"},
      {"SPIFFE://td/a", "begin with"},
      {"https://td/a", "begin with"},
      {" spiffe://td/a", "begin with"},
      {"spiffe://", "trust domain"},
      {"spiffe:///a", "trust domain"},
      {"spiffe://TD/a", "trust domain"},
      {"spiffe://td:443/a", "trust domain"},
      {"spiffe://user@td/a", "trust domain"},
      {"spiffe://td?x", "trust domain"},
      {"spiffe://td#x", "trust domain"},
      {"spiffe://t%64/a", "trust domain"},
      {"spiffe://t\xc3\xa4/a", "trust domain"},
      {"spiffe://[::1]/a", "trust domain"},
      {"spiffe://td/", "empty segment"},
      {"spiffe://td//a", "empty segment"},
      {"spiffe://td/a/", "empty segment"},
      {"spiffe://td/a//b", "empty segment"},
      {"spiffe://td/.", "dot segment"},
      {"spiffe://td/..", "dot segment"},
      {"spiffe://td/a/../b", "dot segment"},
      {"spiffe://td/a/./b", "dot segment"},
      {"spiffe://td/a%2fb", "percent"},
      {"spiffe://td/%61", "percent"},
      {"spiffe://td/a?x=1", "character"},
      {"spiffe://td/a#x", "character"},
      {"spiffe://td/a b", "character"},
      {"spiffe://td/a\\b", "character"},
      {"spiffe://td/a,b", "character"},
      {"spiffe://td/\xc3\xa4", "character"},
      {std::string("spiffe://td/a\0b", 15), "character"},
      {std::string("spiffe://td\0/a", 14), "trust domain"},
      {"spiffe://" + std::string(256, 'a') + "/a", "trust domain"},
      {"spiffe://td/" + std::string(2048 - 12 + 1, 'a'), "longer than 2048"},
  };
  for (const auto& w : wrong) {
    auto id = SpiffeId::parse(w.uri);
    ASSERT_FALSE(id) << w.uri;
    EXPECT_THAT(id.error().what, HasSubstr(w.says)) << w.uri;
  }
}

TEST(SpiffeId, TheLongestAllowedAreAllowed) {
  EXPECT_TRUE(SpiffeId::parse("spiffe://" + std::string(255, 'a') + "/a"));
  EXPECT_TRUE(SpiffeId::parse("spiffe://td/" + std::string(2048 - 12, 'a')));
}

TEST(SpiffeId, ConsulForm) {
  auto id = SpiffeId::of_service("td.consul", {"default", "dc1", "web"});
  ASSERT_TRUE(id);
  EXPECT_EQ(id->uri(), "spiffe://td.consul/ns/default/dc/dc1/svc/web");
  EXPECT_EQ(id->trust_domain(), "td.consul");
  EXPECT_EQ(id->path(), "/ns/default/dc/dc1/svc/web");
  EXPECT_EQ(id->service(), (ConsulService{"default", "dc1", "web"}));
  EXPECT_EQ(SpiffeId::parse(id->uri())->service(), id->service());
}

TEST(SpiffeId, OtherFormsAreNoConsulService) {
  for (const char* uri :
       {"spiffe://td", "spiffe://td/ns/default/sa/web",
        "spiffe://td/ns/default/dc/dc1/svc/web/more", "spiffe://td/ap/x/ns/default/dc/dc1/svc/web",
        "spiffe://td/a", "spiffe://td/ns/default/dc/dc1/svc", "spiffe://td/xx/a/dc/b/svc/c"})
    EXPECT_EQ(SpiffeId::parse(uri)->service(), std::nullopt) << uri;
  EXPECT_EQ(SpiffeId().service(), std::nullopt);
  EXPECT_EQ(SpiffeId().trust_domain(), "");
  EXPECT_TRUE(SpiffeId().empty());
}

TEST(SpiffeId, PartsOfAServiceMustBeSegments) {
  EXPECT_FALSE(SpiffeId::of_service("td", {"", "dc1", "web"}));
  EXPECT_FALSE(SpiffeId::of_service("td", {"default", "dc1", ".."}));
  EXPECT_FALSE(SpiffeId::of_service("td", {"default", "dc1", "a/b"}));
  EXPECT_FALSE(SpiffeId::of_service("td", {"default", "d c", "web"}));
  EXPECT_FALSE(SpiffeId::of_service("TD", {"default", "dc1", "web"}));
  EXPECT_FALSE(SpiffeId::of_service("td", {"default", "dc1", std::string(2048, 'a')}));
}

}  // namespace
}  // namespace mesh::ktls
