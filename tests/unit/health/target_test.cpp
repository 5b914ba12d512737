// SPDX-License-Identifier: Apache-2.0
#include "agent/health/target.h"

#include <gtest/gtest.h>

namespace mesh::health {
namespace {

using catalog::CheckKind;

Result<Target> parse(CheckKind kind, std::string_view text) {
  catalog::HealthCheck check;
  check.kind = kind;
  check.target = text;
  return parse_target(check);
}

TEST(HealthTarget, IsReadOutOfWhatADefinitionSays) {
  struct Row {
    CheckKind kind;
    const char* text;
    Target target;
  };
  for (const auto& [kind, text, target] : {
           Row{CheckKind::Http, "http://localhost", {"localhost", 80, "/", false}},
           Row{CheckKind::Http, "https://10.0.0.1/a?b=c#d", {"10.0.0.1", 443, "/a?b=c", true}},
           Row{CheckKind::Http, "http://[fd00::1]:8080?x", {"fd00::1", 8080, "/?x", false}},
           Row{CheckKind::Http, "http://user:secret@h:81/", {"h", 81, "/", false}},
           Row{CheckKind::Tcp, "127.0.0.1:5432", {"127.0.0.1", 5432, "", false}},
           Row{CheckKind::Tcp, ":5432", {"", 5432, "", false}},
           Row{CheckKind::Grpc, "localhost:50051", {"localhost", 50051, "", false}},
           Row{CheckKind::Grpc, "[::1]:50051/my.Service", {"::1", 50051, "my.Service", false}},
       }) {
    const auto parsed = parse(kind, text);
    ASSERT_TRUE(parsed) << text << ": " << parsed.error().what;
    EXPECT_EQ(*parsed, target) << text;
  }
  for (const auto* bad : {"localhost", "localhost:", "localhost:0", "localhost:65536", "[::1:80",
                          "[::1]80", "localhost:80x"})
    EXPECT_FALSE(parse(CheckKind::Tcp, bad)) << bad;
  EXPECT_FALSE(parse(CheckKind::Http, "ftp://localhost"));
}

TEST(HealthTarget, OnlyTheWorkloadItselfIsAsked) {
  const std::vector<Address> own{*Address::parse("10.0.0.1"), *Address::parse("fd00::1")};
  for (const auto* good : {"", "localhost", "127.0.0.1", "127.1.2.3", "::1", "10.0.0.1", "fd00::1"})
    EXPECT_TRUE(endpoint_of({good, 80, "/", false}, own)) << good;
  for (const auto* bad : {"10.0.0.2", "example.com", "169.254.169.254", "0.0.0.0"})
    EXPECT_FALSE(endpoint_of({bad, 80, "/", false}, own)) << bad;
}

TEST(HealthTarget, RedirectsStayOrNameAnotherUrl) {
  const Target from{"localhost", 81, "/a", false};
  EXPECT_EQ(*redirect(from, "/b?c"), (Target{"localhost", 81, "/b?c", false}));
  EXPECT_EQ(*redirect(from, "https://h/x"), (Target{"h", 443, "/x", true}));
  EXPECT_FALSE(redirect(from, "relative"));
  EXPECT_FALSE(redirect(from, "//elsewhere/"));
  EXPECT_EQ(authority({"fd00::1", 80, "/", false}), "[fd00::1]:80");
  EXPECT_EQ(authority({"", 80, "/", false}), "localhost:80");
}

}  // namespace
}  // namespace mesh::health
