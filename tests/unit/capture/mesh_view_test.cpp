// SPDX-License-Identifier: Apache-2.0
#include "agent/capture/mesh_view.h"

#include <gtest/gtest.h>

namespace mesh::capture {
namespace {

class MeshViewTest : public ::testing::Test {
 protected:
  MeshViewTest() {
    catalog::Catalog::Nodes nodes;
    nodes["a"] = {.name = "a", .address = {}, .cidrs = {*Cidr::parse("10.0.1.0/24")}, .meta = {}};
    nodes["b"] = {.name = "b", .address = {}, .cidrs = {*Cidr::parse("10.0.2.0/24")}, .meta = {}};
    catalog::Catalog::Services services;
    for (const auto& [service, address] : {std::pair{"Web", "10.0.1.1"}, {"db", "10.0.2.1"}}) {
      services[service].name = service;
      services[service].instances.push_back(
          {service, *Address::parse(address), 80, {}, catalog::InstanceDetails{}});
    }
    view_.catalog = std::make_shared<const catalog::Catalog>(services, nodes);
    view_.trust_domain = "mesh.test";
    view_.datacenter = "dc1";
  }
  std::string named(std::string_view sni, const char* address = "10.0.1.1") {
    const auto* service = service_of_sni(view_, sni, *Address::parse(address));
    return service == nullptr ? "" : service->name;
  }
  [[nodiscard]] ktls::Peer peer(const std::string& service, const std::string& node) const {
    ktls::Peer peer;
    peer.id = *view_.id_of(service);
    peer.node = node;
    return peer;
  }

  MeshView view_;
};

TEST_F(MeshViewTest, AServerNameHasNoCase) {
  EXPECT_EQ(named(sni_of(view_, "Web")), "Web");
  EXPECT_EQ(named("web.default.dc1.internal.mesh.test"), "Web");
  EXPECT_EQ(named("WEB.Default.DC1.internal.mesh.test"), "Web");
  EXPECT_EQ(named("web.default.dc1.internal.mesh.test", "10.0.2.1"), "") << "not at this address";
  EXPECT_EQ(named("db.default.dc1.internal.mesh.test"), "");
  EXPECT_EQ(named("web.default.dc2.internal.mesh.test"), "");
  EXPECT_EQ(named("web.default.dc1.internal.mesh.example"), "");
  EXPECT_EQ(named(".default.dc1.internal.mesh.test"), "");
  EXPECT_EQ(named("web"), "");
  EXPECT_EQ(named(""), "");
}

TEST_F(MeshViewTest, AClientIsWhereTheCatalogHasIt) {
  const Address web = *Address::parse("10.0.1.1");
  const Address nobody = *Address::parse("10.0.1.9");
  const Address outside = *Address::parse("10.0.9.1");
  EXPECT_TRUE(placed(view_, peer("Web", "a"), web));
  EXPECT_FALSE(placed_elsewhere(view_, peer("Web", "a"), web));

  for (const auto& [who, from] :
       {std::pair{peer("db", "a"), web}, {peer("Web", "b"), web}, {peer("Web", "b"), nobody}}) {
    EXPECT_FALSE(placed(view_, who, from)) << who.id.uri() << who.node;
    EXPECT_TRUE(placed_elsewhere(view_, who, from)) << who.id.uri() << who.node;
  }
  for (const auto& [who, from] : {std::pair{peer("Web", "a"), nobody},
                                  {peer("Web", "a"), outside},
                                  {peer("gone", "a"), nobody}}) {
    EXPECT_FALSE(placed(view_, who, from)) << "nothing new of " << who.id.uri();
    EXPECT_FALSE(placed_elsewhere(view_, who, from)) << "what is open stays";
  }
}

}  // namespace
}  // namespace mesh::capture
