// SPDX-License-Identifier: Apache-2.0
// The forms that entries come in, and what holds for all kinds.
#include "agent/config/entry_reader.h"

#include <gmock/gmock.h>

#include "tests/unit/config/reading.h"

namespace mesh::config {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

TEST(EntryReader, CustomResources) {
  const auto reading = read(R"({"apiVersion": "consul.hashicorp.com/v1alpha1",
    "kind": "ServiceResolver",
    "metadata": {"name": "web", "namespace": "prod", "labels": {"a": "b"}},
    "spec": {"defaultSubset": "v1", "connectTimeout": "15s",
      "subsets": {"v1": {"filter": "Service.Meta.version == v1", "onlyPassing": true}}},
    "status": {"conditions": []}})");
  EXPECT_THAT(reading.errors, IsEmpty());
  const auto& entry = reading.only<ServiceResolver>();
  EXPECT_EQ(entry.name, "web");
  EXPECT_EQ(entry.default_subset, "v1");
  EXPECT_TRUE(entry.subsets.at("v1").only_passing);
  EXPECT_EQ(entry.connect_timeout, std::chrono::seconds(15));
}

TEST(EntryReader, IntentionsAreNamedByTheirDestination) {
  const auto crd = [](std::string_view spec) {
    return read(R"({"apiVersion":"consul.hashicorp.com/v1alpha1","kind":"ServiceIntentions",
      "metadata":{"name":"web-to-api"},"spec":)" +
                std::string(spec) + "}");
  };
  const auto good = crd(R"({"destination":{"name":"api"},
                            "sources":[{"name":"web","action":"allow"}]})");
  EXPECT_THAT(good.errors, IsEmpty());
  EXPECT_EQ(good.only<ServiceIntentions>().name, "api");
  EXPECT_EQ(good.only<ServiceIntentions>().sources[0].precedence, 9u);
  EXPECT_EQ(crd(R"({"destination":{"name":"*"},"sources":[{"name":"*","action":"deny"}]})")
                .only<ServiceIntentions>()
                .sources[0]
                .precedence,
            5u);
  EXPECT_THAT(crd(R"({"sources":[{"name":"web","action":"allow"}]})").errors,
              ElementsAre(HasSubstr("spec: 'destination' is required")));
}

TEST(EntryReader, NamesOfCustomResources) {
  const auto crd = [](std::string_view kind, std::string_view name) {
    return read(R"({"apiVersion":"consul.hashicorp.com/v1alpha1","kind":")" + std::string(kind) +
                R"(","metadata":{"name":")" + std::string(name) + R"("},"spec":{}})")
        .errors;
  };
  EXPECT_THAT(crd("ProxyDefaults", "global"), IsEmpty());
  EXPECT_THAT(crd("ProxyDefaults", "web"), ElementsAre(HasSubstr("has to be \"global\"")));
  EXPECT_THAT(crd("Mesh", "mesh"), IsEmpty());
  EXPECT_THAT(crd("Mesh", "m"), ElementsAre(HasSubstr("has to be \"mesh\"")));
  EXPECT_THAT(crd("ServiceDefaults", "web"), IsEmpty());
  EXPECT_THAT(crd("ServiceDefaults", "*"), SizeIs(1));
  EXPECT_THAT(crd("ServiceDefaults", ""), SizeIs(1));
  EXPECT_THAT(crd("service-defaults", "web"), ElementsAre(HasSubstr("unknown kind")));
}

TEST(EntryReader, KindsThatAreRefusedSayWhy) {
  const auto refused = [](std::string_view kind) {
    return read(R"({"Kind":")" + std::string(kind) + R"(","Name":"x"})").errors;
  };
  EXPECT_THAT(refused("jwt-provider"),
              ElementsAre("1:9: Kind: jwt-provider: not supported: this agent cannot check tokens "
                          "(intentions that demand one deny)"));
  for (auto kind : {"ingress-gateway", "terminating-gateway", "api-gateway", "bound-api-gateway",
                    "http-route", "tcp-route", "inline-certificate", "file-system-certificate"})
    EXPECT_THAT(refused(kind), ElementsAre(HasSubstr("gateways"))) << kind;
  for (auto kind : {"exported-services", "sameness-group", "control-plane-request-limit"})
    EXPECT_THAT(refused(kind), ElementsAre(HasSubstr("not supported"))) << kind;
  EXPECT_THAT(refused("service-resolvers"),
              ElementsAre(HasSubstr("unknown kind \"service-resolvers\": expected one of "
                                    "service-defaults, proxy-defaults, mesh")));
  EXPECT_THAT(refused(""), ElementsAre(HasSubstr("unknown kind")));
  EXPECT_THAT(read(R"({"Kind":7})").errors, SizeIs(1));
  const auto crd = read(R"({"apiVersion":"consul.hashicorp.com/v1alpha1","kind":"IngressGateway",
                            "metadata":{"name":"x"}})");
  EXPECT_THAT(crd.errors, ElementsAre(HasSubstr("IngressGateway: gateways are not supported")));
}

TEST(EntryReader, OtherResourcesAreRefused) {
  EXPECT_THAT(read(R"({"apiVersion":"apps/v1","kind":"Deployment"})").errors,
              ElementsAre(HasSubstr("apiVersion: expected")));
  EXPECT_THAT(read(R"({"apiVersion":"consul.hashicorp.com/v1beta1","kind":"Mesh"})").errors,
              ElementsAre(HasSubstr("expected version v1alpha1")));
}

TEST(EntryReader, NamesAndMeta) {
  const auto named = [](std::string_view name, std::string_view more = "") {
    return read(R"({"Kind":"service-defaults","Name":")" + std::string(name) + "\"" +
                std::string(more) + "}")
        .errors;
  };
  EXPECT_THAT(named("a.b-c_D9"), IsEmpty());
  EXPECT_THAT(named(""), SizeIs(1));
  EXPECT_THAT(named("-a"), SizeIs(1));
  EXPECT_THAT(named("a/b"), SizeIs(1));
  EXPECT_THAT(named(std::string(64, 'a')), SizeIs(1));
  EXPECT_THAT(named("a", R"(,"Meta":{"a b":"c"})"), ElementsAre(HasSubstr("Meta: \"a b\"")));
  EXPECT_THAT(named("a", R"(,"Meta":{"a":")" + std::string(513, 'x') + "\"}"), SizeIs(1));
  EXPECT_THAT(named("a", R"(,"Namespace":"other")"), SizeIs(1));
  EXPECT_THAT(named("a", R"(,"Partition":"other")"), SizeIs(1));
  EXPECT_THAT(named("a", R"(,"name":"b")"), ElementsAre(HasSubstr("given twice")));
}

TEST(EntryReader, Bootstrap) {
  auto documents = syntax::read_documents(syntax::Format::Json, R"({"bootstrap": [
    {"kind": "proxy-defaults", "name": "global", "config": {"protocol": "http"}},
    {"kind": "service-defaults", "name": "web", "protocl": "http"},
    {"kind": "service-defaults", "name": "api"}]})");
  ASSERT_TRUE(documents);
  syntax::ErrorList errors;
  syntax::ErrorList warnings;
  syntax::Decoder decoder("f", errors, warnings);
  std::vector<EntryDefinition> out;
  read_bootstrap(documents->front(), syntax::Path("config_entries"), decoder, out);
  EXPECT_THAT(texts(errors),
              ElementsAre("3:49: config_entries.bootstrap[1].protocl: unknown key: did you mean "
                          "Protocol?"));
  ASSERT_THAT(out, SizeIs(2));
  EXPECT_EQ(out[1].key, "config_entries.bootstrap[2]");
}

TEST(EntryReader, TellsEntriesFromOtherDocuments) {
  const auto entry = [](std::string_view text) {
    return is_entry(syntax::read_documents(syntax::Format::Json, text)->front());
  };
  EXPECT_TRUE(entry(R"({"Kind":"mesh"})"));
  EXPECT_TRUE(entry(R"({"kind":1})"));
  EXPECT_TRUE(entry(R"({"apiVersion":"v1"})"));
  EXPECT_FALSE(entry(R"({"service":{"kind":"x"}})"));
  EXPECT_FALSE(entry(R"([])"));
}

class EntrySetTest : public testing::Test {
 protected:
  void add(std::string_view text, const std::string& file = "f") {
    syntax::ErrorList own;
    syntax::ErrorList warnings;
    auto documents = syntax::read_documents(syntax::Format::Json, text);
    ASSERT_TRUE(documents);
    syntax::Decoder decoder(file, own, warnings);
    std::vector<EntryDefinition> definitions;
    for (const auto& document : *documents) read_entry(document, {}, decoder, definitions);
    ASSERT_TRUE(own.empty()) << own.take().front().to_string();
    set.add(std::move(definitions), errors);
  }
  std::vector<std::string> check() {
    set.check(
        [&](std::string_view name) {
          return set.entries().protocol_of(name).value_or(Protocol::Tcp);
        },
        errors);
    std::vector<std::string> out;
    for (const auto& error : errors.take()) out.push_back(error.to_string());
    return out;
  }

  EntrySet set;
  syntax::ErrorList errors;
};

TEST_F(EntrySetTest, OneOfAKindAndName) {
  add(R"({"Kind":"service-defaults","Name":"web"})", "a.json");
  add(R"({"Kind":"service-resolver","Name":"web"})", "a.json");
  add("\n {\"Kind\":\"service-defaults\",\"Name\":\"web\"}", "b.json");
  EXPECT_THAT(check(), ElementsAre("b.json:2:2: service-defaults \"web\" is there already at "
                                   "a.json:1:1"));
}

TEST_F(EntrySetTest, ProblemsOfChainsPointIntoTheFile) {
  add(R"({"Kind":"proxy-defaults","Name":"global","Config":{"protocol":"http"}})");
  add(R"({"Kind":"service-router","Name":"web","Routes":[
    {},
    {"Destination":
      {"Service":"api","ServiceSubset":"v2"}}]})",
      "r.json");
  add(R"({"Kind":"service-resolver","Name":"api","Failover":{"*":{"Targets":[
    {"Service":"x"},
    {"Service":"nobody","ServiceSubset":"v2"}]}}})",
      "s.json");
  add(R"({"Kind":"service-splitter","Name":"one","Splits":
     {"Weight":100,"ServiceSubset":"v3"}})",
      "t.json");
  EXPECT_THAT(check(),
              ElementsAre(HasSubstr("r.json:4:7: Routes[1].Destination: service \"api\" has no"),
                          HasSubstr("s.json:3:5: Failover[*].Targets[1]: service \"nobody\""),
                          HasSubstr("t.json:2:6: Splits[0]: service \"one\" has no subset")));
}

TEST_F(EntrySetTest, PermissiveHasToBeAllowed) {
  add(R"({"Kind":"service-defaults","Name":"web","MutualTLSMode":"permissive"})");
  EXPECT_THAT(check(), ElementsAre(HasSubstr("needs AllowEnablingPermissiveMutualTLS = true")));
  add(R"({"Kind":"mesh","AllowEnablingPermissiveMutualTLS":true})");
  EXPECT_THAT(check(), IsEmpty());
}

}  // namespace
}  // namespace mesh::config
