// SPDX-License-Identifier: Apache-2.0
// What a command finds before it changes a store.
#include "agent/store/editor_check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "agent/store/config_values.h"

namespace mesh::store {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class EditorCheckTest : public ::testing::Test {
 protected:
  void put(const std::string& key, const std::string& value, LeaseId lease = 0) {
    ++revision_;
    keys_[key] = {key, value, revision_, revision_, lease, false};
  }
  static std::string instance(const std::string& name, const std::string& address,
                              const std::string& more = "") {
    return fmt::format(R"({{"service":{{"name":"{}","address":"{}","port":80{}}}}})", name, address,
                       more);
  }
  std::vector<std::string> told(const std::vector<syntax::ConfigError>& errors) {
    std::vector<std::string> out;
    for (const auto& error : errors) out.push_back(error.to_string());
    return out;
  }
  std::vector<std::string> write(const std::string& label, const std::string& text) {
    auto definition = read_config_value(label, text, "new.json");
    EXPECT_TRUE(definition) << definition.error().what;
    return told(check_entries(keys_, "config/" + label, &*definition, EntryChange::Put).errors);
  }
  std::vector<std::string> remove(const std::string& label) {
    return told(check_entries(keys_, "config/" + label, nullptr, EntryChange::Delete).errors);
  }
  std::vector<std::string> add(const std::string& key, const std::string& value) {
    return told(check_instances(keys_, revision_, {{key, value, 0}}, {}));
  }

  Keys keys_;
  Revision revision_ = 10;
};

const std::string kRouter = R"({"Kind":"service-router","Name":"web","Routes":[]})";
const std::string kHttp = R"({"Kind":"service-defaults","Name":"web","Protocol":"http"})";

TEST_F(EditorCheckTest, AnEntryIsCheckedWithThoseOfTheStore) {
  EXPECT_THAT(write("service-router/web", kRouter),
              ElementsAre(HasSubstr("new.json:1:1: service \"web\" has protocol \"tcp\"")));
  put("config/service-defaults/web", kHttp);
  EXPECT_THAT(write("service-router/web", kRouter), IsEmpty());
  put("config/service-router/web", kRouter);
  EXPECT_THAT(remove("service-defaults/web"),
              ElementsAre(HasSubstr("config/service-router/web:1:1: ")));
  EXPECT_THAT(
      write("service-defaults/web", R"({"Kind":"service-defaults","Name":"web","Protocol":"tcp"})"),
      SizeIs(1));
  EXPECT_THAT(remove("service-router/web"), IsEmpty());
}

TEST_F(EditorCheckTest, InstancesInTheStoreSayTheProtocolToo) {
  put("catalog/web/1", instance("web", "10.0.0.1", R"(,"protocol":"grpc")"));
  EXPECT_THAT(write("service-router/web", kRouter), IsEmpty());
}

TEST_F(EditorCheckTest, AllErrorsAreTold) {
  EXPECT_THAT(write("service-splitter/web",
                    R"({"Kind":"service-splitter","Name":"web","Splits":[
                {"Weight":50,"ServiceSubset":"a"},{"Weight":50,"ServiceSubset":"b"}]})"),
              SizeIs(::testing::Ge(2u)));
}

TEST_F(EditorCheckTest, WhatCannotBeReadIsTold) {
  put("config/service-resolver/x", "{");
  const auto report = check_entries(keys_, "", nullptr, EntryChange::None);
  EXPECT_THAT(report.errors, IsEmpty());
  EXPECT_THAT(told(report.unreadable),
              ElementsAre(HasSubstr("config/service-resolver/x: left out by agents")));
}

TEST_F(EditorCheckTest, AnInstanceIsRefusedThatAgentsWouldLeaveOut) {
  put("catalog/web/1", instance("web", "10.0.0.1"));
  EXPECT_THAT(add("catalog/web/2", instance("web", "10.0.0.2")), IsEmpty());
  EXPECT_THAT(add("catalog/web/1", instance("web", "10.0.0.9")), IsEmpty());
  EXPECT_THAT(add("catalog/db/1", instance("db", "10.0.0.1")),
              ElementsAre(HasSubstr("10.0.0.1:80 is instance \"1\" of service \"web\" already")));
  EXPECT_THAT(add("catalog/web/2", instance("web", "10.0.0.2", R"(,"protocol":"http")")),
              ElementsAre(HasSubstr("all instances must agree")));
  EXPECT_THAT(add("catalog/Web/2", instance("Web", "10.0.0.2")),
              ElementsAre(HasSubstr("differs only in case")));
  EXPECT_THAT(add("catalog/web/" + std::string(300, 'x'), instance("web", "10.0.0.2")),
              ElementsAre(HasSubstr("too long")));
}

TEST_F(EditorCheckTest, AChangeThatPushesAnotherOutIsRefused) {
  put("catalog/db/1", instance("db", "10.0.0.1"));
  put("catalog/web/1", instance("web", "10.0.0.2"));
  // The older instance takes the place of the younger one.
  EXPECT_THAT(add("catalog/db/1", instance("db", "10.0.0.2")),
              ElementsAre(HasSubstr("catalog/web/1: 10.0.0.2:80 is instance")));
}

TEST_F(EditorCheckTest, KeysOfAgentsAreTheirs) {
  put("nodes/n1", R"({"node":{"name":"n1","address":"192.0.2.1","cidrs":["10.1.0.0/24"]}})", 7);
  put("catalog/web/n1/web", instance("web", "10.1.0.1"), 7);
  put("catalog/web/a/b", instance("web", "10.1.0.2"));
  put("catalog/db/web", instance("db", "10.1.0.3"));
  EXPECT_EQ(agent_of(keys_, "catalog/web/n1/web"), "n1");
  EXPECT_EQ(agent_of(keys_, "catalog/web/n1/new"), "n1");
  EXPECT_EQ(agent_of(keys_, "catalog/web/a/b"), "");
  EXPECT_THAT(keys_of_id(keys_, "web"), ElementsAre("catalog/db/web"));
  EXPECT_THAT(keys_of_id(keys_, "a/b"), ElementsAre("catalog/web/a/b"));
  EXPECT_THAT(nodes_of_id(keys_, "web"), ElementsAre("n1"));
}

}  // namespace
}  // namespace mesh::store
