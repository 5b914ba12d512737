// SPDX-License-Identifier: Apache-2.0
#include "agent/catalog/withdraw.h"

#include <gtest/gtest.h>

namespace mesh::catalog {
namespace {

std::shared_ptr<const Catalog> two_services() {
  Catalog::Services services;
  for (const char* name : {"db", "web"}) {
    auto& service = services[name];
    service.name = name;
    service.vip4 = *Address::parse(name[0] == 'd' ? "240.1.1.1" : "240.1.1.2");
  }
  services["web"].instances.push_back({"web-1", *Address::parse("10.0.1.5"), 80, {}, {}});
  services["web"].instances.push_back({"web-2", *Address::parse("10.0.1.6"), 80, {}, {}});
  services["db"].instances.push_back({"db", *Address::parse("10.0.1.7"), 80, {}, {}});
  return std::make_shared<const Catalog>(std::move(services));
}

TEST(Withdraw, LeavesOutWhatIsNamedWithItsPrefix) {
  const auto whole = two_services();
  const auto [rest, instances] = withdraw(whole, {"n1/web-1", "web-2"}, "n1/");
  ASSERT_EQ(instances.size(), 1u);
  EXPECT_EQ(instances[0].id, "n1/web-1");
  EXPECT_EQ(instances[0].address.to_string(), "10.0.1.5");
  ASSERT_EQ(rest->find("web")->instances.size(), 1u);
  EXPECT_EQ(rest->find("web")->instances[0].id, "web-2");
  EXPECT_EQ(rest->service_at({*Address::parse("10.0.1.5"), 80}), nullptr);
  EXPECT_EQ(rest->find("db"), whole->find("db")) << "what stays is shared";
}

TEST(Withdraw, AServiceStaysWithoutInstances) {
  const auto [rest, instances] = withdraw(two_services(), {"db"}, "");
  EXPECT_EQ(instances.size(), 1u);
  ASSERT_NE(rest->find("db"), nullptr);
  EXPECT_TRUE(rest->find("db")->instances.empty());
  EXPECT_EQ(rest->find("db")->vip4.to_string(), "240.1.1.1");
}

TEST(Withdraw, NothingToLeaveOutIsTheSame) {
  const auto whole = two_services();
  EXPECT_EQ(withdraw(whole, {}, "").rest, whole);
  EXPECT_EQ(withdraw(whole, {"nobody"}, "").rest, whole);
}

}  // namespace
}  // namespace mesh::catalog
