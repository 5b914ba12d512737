// SPDX-License-Identifier: Apache-2.0
// Rules between definitions, the limits, and the lookups of a catalog.
#include "agent/catalog/assemble.h"

#include <gtest/gtest.h>

#include <fmt/format.h>

namespace mesh::catalog {
namespace {

struct File {
  std::string name;
  std::string text;
};

std::vector<std::string> errors_of(const std::vector<File>& files) {
  Definitions definitions;
  syntax::ErrorList errors;
  for (const auto& file : files)
    read_service_definitions(file.name, file.text, definitions, errors);
  (void)group_services(std::move(definitions), errors);
  std::vector<std::string> out;
  for (const auto& error : errors.take()) out.push_back(error.to_string());
  return out;
}

std::shared_ptr<const Catalog> catalog_of(std::string_view text) {
  Definitions definitions;
  syntax::ErrorList errors;
  read_service_definitions("f.json", text, definitions, errors);
  auto services = group_services(std::move(definitions), errors);
  EXPECT_TRUE(errors.empty());
  auto vips = VipAllocator::with_default_prefix();
  return make_catalog(std::move(services), {}, vips);
}

std::string one(std::string_view keys) { return fmt::format("{{\"service\": {{{}}}}}", keys); }

TEST(Assemble, RefusesWhatDoesNotFitTogether) {
  const std::string a = one(R"("name": "web", "address": "10.0.0.1", "port": 80)");
  struct Row {
    std::string b;
    std::vector<std::string> errors;
  };
  const std::vector<Row> table = {
      {one(R"("name": "web", "id": "web-2", "address": "10.0.0.2", "port": 80)"), {}},
      {one(R"("name": "web", "address": "10.0.0.2", "port": 80)"),
       {"b.json:1:22: service.id: id \"web\" is taken at a.json:1:22: give each instance an id of "
        "its "
        "own"}},
      {one(R"("name": "api", "id": "web", "address": "10.0.0.2", "port": 80)"),
       {"b.json:1:35: service.id: id \"web\" is taken at a.json:1:22: give each instance an id of "
        "its "
        "own"}},
      {one(R"("name": "api", "address": "10.0.0.1", "port": 80)"),
       {"b.json:1:40: service.address: 10.0.0.1:80 is an instance of service \"web\" already at "
        "a.json:1:40"}},
      {one(R"("name": "api", "address": "::ffff:10.0.0.1", "port": 80)"),
       {"b.json:1:40: service.address: 10.0.0.1:80 is an instance of service \"web\" already at "
        "a.json:1:40"}},
      {one(R"("name": "api", "address": "10.0.0.1", "port": 81)"), {}},
      {one(R"("name": "Web", "id": "w2", "address": "10.0.0.2", "port": 80)"),
       {"b.json:1:22: service.name: \"Web\" differs only in case from \"web\" at a.json:1:22"}},
      {one(R"("name": "web", "id": "w2", "address": "10.0.0.2", "port": 80, "protocol": "http")"),
       {"b.json:1:88: service.protocol: \"http\", but \"tcp\" at a.json:1:13: all instances of "
        "service \"web\" must agree (the default is \"tcp\")"}},
      {one(R"("name": "web", "id": "w2", "address": "10.0.0.2", "port": 80, "protocol": "tcp")"),
       {}},
      {one(R"("name": "web", "id": "w2", "address": "10.0.0.2", "port": 80, "path": "twoleg")"),
       {"b.json:1:84: service.meta.mesh-path: \"twoleg\", but not \"twoleg\" at a.json:1:13: all "
        "instances of service \"web\" must agree"}},
      {one(R"("name": "web", "id": "w2", "address": "10.0.0.2", "port": 80,
 "meta": {"mesh-acceleration": "sockmap", "mesh-inbound": "permissive"})"),
       {"b.json:2:32: service.meta.mesh-acceleration: \"sockmap\", but not \"sockmap\" at "
        "a.json:1:13: all instances of service \"web\" must agree",
        "b.json:2:59: service.meta.mesh-inbound: \"permissive\", but not \"permissive\" at "
        "a.json:1:13: all instances of service \"web\" must agree"}},
      {one(R"("name": "web", "id": "w2", "address": "10.0.0.2", "port": 80,
 "meta": {"mesh-acceleration": "none", "mesh-inbound": "strict", "rack": "7"})"),
       {}},
  };
  for (const auto& row : table)
    EXPECT_EQ(errors_of({{"a.json", a}, {"b.json", row.b}}), row.errors) << row.b;
}

TEST(Assemble, ListsTheErrorsOfAllFilesTogether) {
  auto errors = errors_of({
      {"b.json", one(R"("name": "web", "address": "10.0.0.1", "port": 80)")},
      {"c.json", "{"},
      {"a.json", one(R"("name": "web", "address": "10.0.0.1", "port": 80)")},
      {"d.json", one(R"("name": "api", "address": "10.0.0.1", "port": 99999)")},
  });
  ASSERT_EQ(errors.size(), 4u);
  EXPECT_TRUE(errors[0].starts_with("a.json:1:22: service.id: ")) << errors[0];
  EXPECT_TRUE(errors[1].starts_with("a.json:1:40: service.address: ")) << errors[1];
  EXPECT_TRUE(errors[2].starts_with("c.json:1:2: not valid JSON: ")) << errors[2];
  EXPECT_TRUE(errors[3].starts_with("d.json:1:60: service.port: ")) << errors[3];
}

ServiceDefinition numbered(std::size_t service, std::size_t instance) {
  ServiceDefinition d;
  d.name = fmt::format("s{}", service);
  d.key = fmt::format("services[{}]", instance);
  d.at = {static_cast<std::uint32_t>(instance + 1), 1};
  d.instance.id = fmt::format("i{}", instance);
  d.instance.address =
      *Address::parse(fmt::format("fd00::{:x}:{:x}", instance >> 16, instance & 0xffff));
  d.instance.port = 80;
  return d;
}

TEST(Assemble, BoundsServicesAndInstances) {
  auto errors_with = [](std::size_t services, std::size_t instances) {
    Definitions definitions;
    definitions.files.push_back("f.json");
    for (std::size_t i = 0; i < instances; ++i)
      definitions.services.push_back(numbered(i % services, i));
    syntax::ErrorList errors;
    auto grouped = group_services(std::move(definitions), errors);
    auto list = errors.take();
    EXPECT_EQ(grouped.size(), list.empty() ? services : 0u);
    return list.empty() ? std::string() : list.at(0).to_string();
  };
  EXPECT_EQ(errors_with(kMaxServices, kMaxInstances), "");
  EXPECT_EQ(errors_with(1, kMaxInstances + 1),
            "f.json:100001:1: services[100000]: more than 100000 instances");
  EXPECT_EQ(errors_with(kMaxServices + 1, kMaxServices + 1),
            "f.json:10001:1: services[10000]: more than 10000 services");
}

TEST(Catalog, Lookups) {
  auto catalog = catalog_of(R"({"services": [
    {"name": "web", "id": "w2", "address": "10.0.0.2", "port": 80},
    {"name": "web", "id": "w1", "address": "10.0.0.1", "port": 80},
    {"name": "api", "address": "10.0.0.1", "port": 9000},
    {"name": "web", "id": "w3", "address": "10.0.0.1", "port": 81},
    {"name": "db", "address": "fd00::1", "port": 5432}]})");
  auto names_at = [&](std::string_view address) {
    std::vector<std::string> names;
    for (const auto* service : catalog->services_at(*Address::parse(address)))
      names.push_back(service->name);
    return names;
  };
  EXPECT_EQ(names_at("10.0.0.1"), (std::vector<std::string>{"api", "web"}));
  EXPECT_EQ(names_at("10.0.0.2"), (std::vector<std::string>{"web"}));
  EXPECT_EQ(names_at("fd00::1"), (std::vector<std::string>{"db"}));
  EXPECT_EQ(names_at("10.0.0.3"), std::vector<std::string>{});

  ASSERT_NE(catalog->find("web"), nullptr);
  EXPECT_EQ(catalog->find("nope"), nullptr);
  EXPECT_EQ(catalog->find("web")->instances.size(), 3u);
  EXPECT_EQ(catalog->find("web")->instances[0].id, "w1");
  EXPECT_EQ(catalog->instances(), 5u);
  EXPECT_EQ(catalog->service_at({*Address::parse("10.0.0.1"), 81}), catalog->find("web"));
  EXPECT_EQ(catalog->service_at({*Address::parse("10.0.0.1"), 9000}), catalog->find("api"));
  EXPECT_EQ(catalog->service_at({*Address::parse("10.0.0.1"), 82}), nullptr);
  EXPECT_TRUE(VipAllocator::is_assignable(catalog->find("db")->vip4));
  EXPECT_TRUE(Cidr::parse(kDefaultVipPrefix6)->contains(catalog->find("db")->vip6));
}

TEST(Catalog, EqualityIsByContent) {
  auto a = catalog_of(one(R"("name": "web", "address": "10.0.0.1", "port": 80)"));
  auto b = catalog_of(one(R"("Port": 80, "Address": "10.0.0.1", "Name": "web")"));
  auto c = catalog_of(one(R"("name": "web", "address": "10.0.0.1", "port": 80, "tags": ["x"])"));
  EXPECT_TRUE(*a == *b);
  EXPECT_FALSE(*a == *c);
}

}  // namespace
}  // namespace mesh::catalog
