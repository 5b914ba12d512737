// SPDX-License-Identifier: Apache-2.0
// What 100,000 instances have in common is there once: in the records, in the catalog, and in the
// catalogs after it.
#include <gtest/gtest.h>

#include "agent/store/content.h"

namespace mesh::store {
namespace {

class ContentSharingTest : public ::testing::Test {
 protected:
  ContentSharingTest() {
    content_.load({1, {}, false});
    put("config/vip/web", vip_value(*Address::parse("240.0.0.1")));
  }
  void put(const std::string& key, const std::string& value) {
    ++revision_;
    content_.apply({revision_, {{{key, value, revision_, revision_, 0, false}, false}}});
  }
  void put_instance(unsigned number, const std::string& more) {
    put(fmt::format("catalog/web/i-{}", number),
        fmt::format(R"({{"service":{{"name":"web","address":"10.0.9.{}","port":80{}}}}})", number,
                    more));
  }
  // By number, in one catalog.
  std::vector<const catalog::InstanceDetails*> details(const catalog::Catalog& catalog) {
    std::vector<const catalog::InstanceDetails*> all;
    for (const auto& instance : catalog.find("web")->instances) all.push_back(&*instance.details);
    return all;
  }

  Content content_{{{"n1", {*Cidr::parse("10.0.1.0/24")}, *Cidr::parse("fd6d:6573:6800::/96")},
                    *Cidr::parse("fd6d:6573:6800::/96")}};
  Revision revision_ = 1;
};

constexpr const char* kBlue = R"(, "tags": ["blue"], "meta": {"version": "1"})";
constexpr const char* kGreen = R"(, "tags": ["green"], "meta": {"version": "1"})";

TEST_F(ContentSharingTest, EqualDetailsAreOneObject) {
  // In an order in which each has a neighbour on another side.
  for (const unsigned number : {5U, 4U, 6U}) put_instance(number, kBlue);
  const auto catalog = content_.build();
  const auto all = details(*catalog);
  ASSERT_EQ(all.size(), 3u);
  EXPECT_EQ(all[0]->tags, std::vector<std::string>{"blue"});
  EXPECT_EQ(all[0], all[1]);
  EXPECT_EQ(all[1], all[2]);
}

TEST_F(ContentSharingTest, OtherDetailsStayTheirOwn) {
  for (const unsigned number : {1U, 2U, 3U}) put_instance(number, kBlue);
  const auto before = content_.build();
  put_instance(2, kGreen);
  const auto after = content_.build();
  EXPECT_EQ(details(*before)[1]->tags, std::vector<std::string>{"blue"});
  EXPECT_EQ(details(*after)[1]->tags, std::vector<std::string>{"green"});
  EXPECT_EQ(details(*after)[0], details(*before)[0]) << "it is another snapshot's as well";
  EXPECT_EQ(details(*after)[2], details(*before)[2]);
  // And back again.
  put_instance(2, kBlue);
  const auto last = content_.build();
  EXPECT_EQ(details(*last)[1], details(*last)[0]);
}

TEST_F(ContentSharingTest, NoDetailsTakeNoMemory) {
  put_instance(1, "");
  put_instance(2, R"(, "tags": [], "meta": {})");
  const auto catalog = content_.build();
  const auto all = details(*catalog);
  EXPECT_EQ(all[0], &*catalog::SharedDetails());
  EXPECT_EQ(all[1], &*catalog::SharedDetails());
  EXPECT_TRUE(catalog->find("web")->instances[0].details == catalog::InstanceDetails{});
}

TEST_F(ContentSharingTest, DetailsAreComparedByWhatTheySay) {
  const catalog::SharedDetails blue(catalog::InstanceDetails{.tags = {"blue"}});
  catalog::SharedDetails same(catalog::InstanceDetails{.tags = {"blue"}});
  catalog::SharedDetails green(catalog::InstanceDetails{.tags = {"green"}});
  EXPECT_TRUE(blue == same);
  EXPECT_FALSE(blue == green);
  EXPECT_FALSE(blue == catalog::SharedDetails());
  EXPECT_FALSE(green.share(blue));
  EXPECT_EQ(green->tags, std::vector<std::string>{"green"});
  EXPECT_NE(&*same, &*blue);
  EXPECT_TRUE(same.share(blue));
  EXPECT_EQ(&*same, &*blue);
}

}  // namespace
}  // namespace mesh::store
