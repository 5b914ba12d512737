// SPDX-License-Identifier: Apache-2.0
// Config entries among the files of a directory: every syntax, what they do to services, and that a
// set that makes no sense is refused as a whole.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "agent/catalog/directory_pass.h"
#include "tests/unit/catalog/temp_dir.h"

namespace mesh::catalog {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

class EntriesTest : public testing::Test {
 protected:
  void write(std::string_view name, std::string_view text) { dir_.write(name, text); }
  std::shared_ptr<const Catalog> good() {
    auto outcome = pass_.run(true);
    EXPECT_EQ(outcome.kind, DirectoryPass::Outcome::Kind::Good);
    for (const auto& error : outcome.errors) ADD_FAILURE() << error.to_string();
    return outcome.catalog ? outcome.catalog : std::make_shared<const Catalog>();
  }
  // Without the path of the directory.
  std::vector<std::string> bad() {
    auto outcome = pass_.run(true);
    EXPECT_EQ(outcome.kind, DirectoryPass::Outcome::Kind::Bad);
    EXPECT_EQ(outcome.catalog, nullptr);
    std::vector<std::string> out;
    for (const auto& error : outcome.errors) {
      auto text = error.to_string();
      for (auto at = text.find(dir_.path()); at != std::string::npos; at = text.find(dir_.path()))
        text.erase(at, dir_.path().size() + 1);
      out.push_back(std::move(text));
    }
    return out;
  }
  static std::string service(std::string_view more) {
    return R"({"service":{"name":"web","address":"10.0.0.1","port":80)" + std::string(more) + "}}";
  }

  TempDir dir_;
  DirectoryPass pass_{dir_.path(), VipAllocator::with_default_prefix(), std::nullopt};
};

TEST_F(EntriesTest, EverySyntaxAndForm) {
  write("router.hcl", R"(
Kind = "service-router"
Name = "web"
Routes = [
  {
    Match { HTTP { PathPrefix = "/admin" } }
    Destination { Service = "admin" }
  },
]
)");
  write("crd.yaml", R"(
apiVersion: consul.hashicorp.com/v1alpha1
kind: ServiceIntentions
metadata:
  name: to-web
spec:
  destination:
    name: web
  sources:
    - name: api
      action: allow
---
apiVersion: consul.hashicorp.com/v1alpha1
kind: ServiceSplitter
metadata: {name: web}
spec:
  splits:
    - weight: 50
    - weight: 50
      service: next
)");
  write("many.hcl", R"(
config_entries {
  bootstrap = [
    { kind = "proxy-defaults" name = "global" config { protocol = "http" } },
    { kind = "service-resolver" name = "web" default_subset = "v1"
      subsets = { "v1" = { filter = "Service.Meta.version == v1" } } },
  ]
}
)");
  write("web.json", service(""));
  const auto catalog = good();
  const auto& entries = catalog->entries();
  EXPECT_EQ(entries.size(), 5u);
  EXPECT_EQ(entries.routers.at("web").routes.at(0).match->path, "/admin");
  EXPECT_NE(entries.resolvers.at("web").subsets.at("v1").compiled, nullptr);
  EXPECT_EQ(entries.intentions.at("web").sources.at(0).precedence, 9u);
  EXPECT_EQ(entries.splitters.at("web").splits.at(1).weight, 5'000u);
  EXPECT_EQ(catalog->find("web")->protocol, Protocol::Http);
}

TEST_F(EntriesTest, AChangedEntryIsAnotherCatalogAndTheSameOneIsNot) {
  write("web.json", service(""));
  write("e.json", R"({"Kind":"service-defaults","Name":"other","Protocol":"http"})");
  const auto first = good();
  write("e.json", R"({"kind":"service-defaults","name":"other","protocol":"http"})");
  EXPECT_EQ(good(), first);
  write("e.json", R"({"Kind":"service-defaults","Name":"other","Protocol":"grpc"})");
  EXPECT_NE(good(), first);
}

TEST_F(EntriesTest, TheProtocolIsTheEntrysThenTheDefinitionsThenTheProxys) {
  write("web.json", service(""));
  EXPECT_EQ(good()->find("web")->protocol, Protocol::Tcp);
  write("proxy.json", R"({"Kind":"proxy-defaults","Name":"global","Config":{"protocol":"http2"}})");
  EXPECT_EQ(good()->find("web")->protocol, Protocol::Http2);
  write("web.json", service(R"(,"protocol":"http")"));
  EXPECT_EQ(good()->find("web")->protocol, Protocol::Http);
  write("entry.json",
        "\n"
        R"({"Kind":"service-defaults","Name":"web","Protocol":"grpc"})");
  EXPECT_THAT(bad(), ElementsAre("web.json:1:68: service.protocol: \"http\", but the "
                                 "service-defaults at entry.json:2:1 say \"grpc\""));
  write("web.json", service(""));
  EXPECT_EQ(good()->find("web")->protocol, Protocol::Grpc);
}

TEST_F(EntriesTest, MutualTlsModeDecidesAboutInbound) {
  write("web.json", service(""));
  write("mesh.json", R"({"Kind":"mesh","AllowEnablingPermissiveMutualTLS":true})");
  EXPECT_FALSE(good()->find("web")->flags.permissive);
  write("e.json", R"({"Kind":"service-defaults","Name":"web","MutualTLSMode":"permissive"})");
  EXPECT_TRUE(good()->find("web")->flags.permissive);
  write("web.json", service(R"(,"meta":{"mesh-inbound":"strict"})"));
  EXPECT_FALSE(good()->find("web")->flags.permissive);
  write("web.json", service(R"(,"meta":{"mesh-inbound":"permissive"})"));
  write("e.json", R"({"Kind":"service-defaults","Name":"web","MutualTLSMode":"strict"})");
  EXPECT_THAT(bad(), ElementsAre(HasSubstr("mesh-inbound: \"permissive\", but the")));
  std::filesystem::remove(dir_.path("mesh.json"));
  write("web.json", service(""));
  write("e.json", R"({"Kind":"proxy-defaults","Name":"global","MutualTLSMode":"permissive"})");
  EXPECT_THAT(bad(), ElementsAre(HasSubstr("AllowEnablingPermissiveMutualTLS")));
}

TEST_F(EntriesTest, ANameOfAResolverIsAService) {
  write("web.json", service(""));
  write("e.json", R"({"Kind":"service-resolver","Name":"old","Redirect":{"Service":"web"}})");
  const auto catalog = good();
  const auto* old = catalog->find("old");
  ASSERT_NE(old, nullptr);
  EXPECT_THAT(old->instances, IsEmpty());
  EXPECT_FALSE(old->vip4.is_unset());
  EXPECT_NE(old->vip4, catalog->find("web")->vip4);
  write("e.json", R"({"Kind":"service-resolver","Name":"WEB","Redirect":{"Service":"web"}})");
  EXPECT_THAT(bad(), ElementsAre(HasSubstr("\"WEB\" differs only in case from \"web\"")));
}

TEST_F(EntriesTest, ASetThatMakesNoSenseIsRefusedWithAllItsErrors) {
  write("web.json", service(R"(,"protocol":"tcp")"));
  write("a.json", R"({"Kind":"service-router","Name":"web","Routes":[
    {"Destination":{"ServiceSubset":"v2"}}]})");
  write("b.json", R"({"Kind":"service-resolver","Name":"a","Redirect":{"Service":"b"}})");
  write("c.json", R"({"Kind":"service-resolver","Name":"b","Redirect":{"Service":"a"}})");
  write("d.json", R"({"Kind":"service-resolver","Name":"b"})");
  EXPECT_THAT(bad(), ElementsAre(HasSubstr("a.json:1:1: service \"web\" has protocol \"tcp\""),
                                 HasSubstr("a.json:2:20: Routes[0].Destination: service \"web\""),
                                 HasSubstr("b.json:1:50: Redirect: redirects go in a circle"),
                                 HasSubstr("c.json:1:50: Redirect: redirects go in a circle"),
                                 HasSubstr("d.json:1:1: service-resolver \"b\" is there already")));
}

TEST_F(EntriesTest, WhatIsMissingBecauseItCouldNotBeReadIsNotToldTwice) {
  write("a.json", R"({"Kind":"service-resolver","Name":"web","DefaultSubset":1.5})");
  write("b.json", R"({"Kind":"service-resolver","Name":"b",
                      "Redirect":{"Service":"web","ServiceSubset":"v1"}})");
  EXPECT_THAT(bad(), ElementsAre(HasSubstr("a.json:1:57: DefaultSubset")));
}

TEST_F(EntriesTest, NoWarningsFromWhatIsRefused) {
  write("a.json", R"({"Kind":"service-defaults","Name":"web","ExternalSNI":"x"})");
  auto outcome = pass_.run(true);
  EXPECT_THAT(outcome.warnings, SizeIs(1));
  write("b.json", R"({"Kind":"jwt-provider","Name":"web"})");
  outcome = pass_.run(true);
  EXPECT_THAT(outcome.warnings, IsEmpty());
  EXPECT_THAT(outcome.errors, SizeIs(1));
}

}  // namespace
}  // namespace mesh::catalog
