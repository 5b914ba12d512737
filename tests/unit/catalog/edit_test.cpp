// SPDX-License-Identifier: Apache-2.0
// What the commands do to a directory.
#include "agent/catalog/edit.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fcntl.h>
#include <sys/file.h>

#include <sstream>

#include "tests/unit/catalog/temp_dir.h"

namespace mesh::catalog {
namespace {

using config::Kind;
using testing::ElementsAre;
using testing::HasSubstr;

class EditTest : public testing::Test {
 protected:
  DirectoryEditor editor(bool for_writing = true) {
    auto opened = DirectoryEditor::open(dir_.path(), for_writing);
    EXPECT_TRUE(opened);
    return std::move(*opened);
  }
  // What is told, or the first error without the path of the directory.
  std::string told(const Edited& edited) {
    if (edited) return *edited;
    auto text = "error: " + edited.error().front().to_string();
    if (auto at = text.find(dir_.path()); at != std::string::npos)
      text.erase(at, dir_.path().size() + 1);
    return text;
  }
  std::string write(std::string name, std::string text) {
    return told(editor().write_entry({std::move(name), std::move(text)}, {}));
  }
  std::string remove(Kind kind, std::string_view name) {
    return told(editor().delete_entry(kind, name, {}));
  }
  std::string add(std::string name, std::string text) {
    return told(editor().register_services({std::move(name), std::move(text)}));
  }
  std::vector<std::string> files() {
    std::vector<std::string> out;
    for (const auto& entry : std::filesystem::directory_iterator(dir_.path()))
      out.push_back(entry.path().filename().string());
    std::sort(out.begin(), out.end());
    return out;
  }
  std::string content(const std::string& name) {
    std::ifstream in(dir_.path(name));
    std::stringstream out;
    out << in.rdbuf();
    return out.str();
  }

  TempDir dir_;
};

constexpr const char* kWeb = R"(Kind = "service-defaults"
Name = "web" # kept
Protocol = "http"
)";

TEST_F(EditTest, AnEntryIsWrittenAsItIsAndReadAsJson) {
  EXPECT_EQ(write("x.hcl", kWeb), "Config entry written: service-defaults/web");
  EXPECT_THAT(files(), ElementsAre("service-defaults.web.hcl"));
  EXPECT_EQ(content("service-defaults.web.hcl"), kWeb);
  EXPECT_EQ(told(editor(false).read_entry(Kind::ServiceDefaults, "web")),
            "{\n    \"Kind\": \"service-defaults\",\n    \"Name\": \"web\",\n    \"Protocol\": "
            "\"http\"\n}");
  EXPECT_THAT(told(editor().read_entry(Kind::ServiceDefaults, "api")),
              HasSubstr("there is no service-defaults/api"));
}

TEST_F(EditTest, AnEntryReplacesTheOneThatIsThereInWhateverFile) {
  dir_.write("mine.hcl", kWeb);
  EXPECT_EQ(write("x.hcl", "Kind=\"service-defaults\"\nName=\"web\"\nProtocol=\"grpc\"\n"),
            "Config entry written: service-defaults/web");
  EXPECT_THAT(files(), ElementsAre("mine.hcl"));
  EXPECT_THAT(content("mine.hcl"), HasSubstr("grpc"));
  // Another syntax needs another name.
  EXPECT_EQ(write("-", R"({"Kind":"service-defaults","Name":"web","Protocol":"http2"})"),
            "Config entry written: service-defaults/web");
  EXPECT_THAT(files(), ElementsAre("service-defaults.web.json"));
  EXPECT_EQ(write("-",
                  "apiVersion: consul.hashicorp.com/v1alpha1\nkind: ServiceDefaults\n"
                  "metadata: {name: web}\nspec: {protocol: http}\n"),
            "Config entry written: service-defaults/web");
  EXPECT_THAT(files(), ElementsAre("service-defaults.web.yaml"));
}

TEST_F(EditTest, WhatOthersWroteTogetherIsLeftAlone) {
  dir_.write("all.hcl", R"(config_entries { bootstrap = [
    { kind = "service-defaults" name = "web" }, { kind = "service-defaults" name = "api" } ] })");
  EXPECT_THAT(write("x.hcl", kWeb),
              HasSubstr("error: all.hcl: service-defaults/web is in this file "
                        "with others: change it there"));
  EXPECT_THAT(remove(Kind::ServiceDefaults, "web"), HasSubstr("with others"));
  EXPECT_THAT(files(), ElementsAre("all.hcl"));
  EXPECT_EQ(told(editor().list_entries(std::nullopt)),
            "service-defaults/api\nservice-defaults/web");
  EXPECT_EQ(told(editor().list_entries(Kind::ServiceDefaults)), "api\nweb");
  EXPECT_EQ(told(editor().list_entries(Kind::Mesh)), "");
}

TEST_F(EditTest, NothingIsWrittenThatMakesNoSenseWithTheRest) {
  const std::string router = R"({"Kind":"service-router","Name":"web","Routes":[]})";
  EXPECT_THAT(write("r.json", router), HasSubstr("has protocol \"tcp\""));
  EXPECT_THAT(files(), ElementsAre());
  write("x.hcl", kWeb);
  EXPECT_THAT(write("r.json", router), HasSubstr("Config entry written: service-router/web"));
  // The router needs the protocol.
  EXPECT_THAT(remove(Kind::ServiceDefaults, "web"), HasSubstr("has protocol \"tcp\""));
  EXPECT_THAT(write("x.hcl", "Kind=\"service-defaults\"\nName=\"web\"\n"),
              HasSubstr("has protocol \"tcp\""));
  EXPECT_EQ(remove(Kind::ServiceRouter, "web"), "Config entry deleted: service-router/web");
  EXPECT_EQ(remove(Kind::ServiceDefaults, "web"), "Config entry deleted: service-defaults/web");
  EXPECT_EQ(remove(Kind::ServiceDefaults, "web"), "Config entry deleted: service-defaults/web");
  EXPECT_THAT(files(), ElementsAre());
}

TEST_F(EditTest, OneEntryAtATime) {
  EXPECT_THAT(write("x.json", R"({"services":[]})"), HasSubstr("expected one config entry"));
  EXPECT_THAT(write("x.hcl", "Kind = \"service-defaults\"\nName = web\n"),
              HasSubstr("error: x.hcl:"));
  EXPECT_THAT(write("x.hcl", "Kind = \"mesh\"\nTransparentProxy { MeshDestinationsOnly = true }\n"),
              HasSubstr("MeshDestinationsOnly"));
}

TEST_F(EditTest, WarningsAreTold) {
  EXPECT_THAT(write("x.json", R"({"Kind":"service-defaults","Name":"web","ExternalSNI":"x"})"),
              HasSubstr("\nwarning: x.json:1:55: ExternalSNI: has no effect"));
}

TEST_F(EditTest, TheNameOfAnyDestination) {
  EXPECT_THAT(write("x.json", R"({"Kind":"service-intentions","Name":"*",
                                  "Sources":[{"Name":"*","Action":"deny"}]})"),
              HasSubstr("written: service-intentions/*"));
  EXPECT_THAT(files(), ElementsAre("service-intentions._any_.json"));
}

TEST_F(EditTest, AnotherFileOfThatNameIsNotOverwritten) {
  dir_.write("service-defaults.web.json", R"({"Kind":"service-defaults","Name":"api"})");
  EXPECT_THAT(write("x.json", R"({"Kind":"service-defaults","Name":"web"})"),
              HasSubstr("holds something else"));
}

TEST_F(EditTest, InstancesAreRegisteredEachInItsFile) {
  EXPECT_EQ(add("x.json", R"({"services":[
      {"name":"web","id":"web/1","address":"10.0.0.1","port":80,"tags":["a"]},
      {"name":"web","id":"web-2","address":"10.0.0.2","port":80}]})"),
            "Registered service: web\nRegistered service: web");
  EXPECT_THAT(files(), ElementsAre("service.web%2f1.json", "service.web-2.json"));
  EXPECT_EQ(told(editor().list_services()), "web  web-2  10.0.0.2:80\nweb  web/1  10.0.0.1:80");
  // The same id again.
  EXPECT_EQ(
      add("x.json", R"({"service":{"name":"web","id":"web/1","address":"10.0.0.9","port":80}})"),
      "Registered service: web");
  EXPECT_THAT(told(editor().list_services()), HasSubstr("10.0.0.9:80"));
  EXPECT_THAT(add("x.json", R"({"service":{"name":"api","address":"10.0.0.9","port":80}})"),
              HasSubstr("10.0.0.9:80 is an instance of service"));
  EXPECT_EQ(told(editor().deregister_service("web/1", "")), "Deregistered service: web/1");
  EXPECT_THAT(told(editor().deregister_service("web/1", "")), HasSubstr("no instance with the id"));
  EXPECT_THAT(files(), ElementsAre("service.web-2.json"));
}

TEST_F(EditTest, OnlyServicesAreRegistered) {
  EXPECT_THAT(
      add("x.json", R"({"node":{"name":"n","address":"10.0.0.1","cidrs":["10.1.0.0/24"]}})"),
      HasSubstr("error: x.json"));
  EXPECT_THAT(add("x.json", R"({"services":[]})"), HasSubstr("no service definition"));
  EXPECT_THAT(add("x.json", R"({"service":{"name":"web"}})"), HasSubstr("'address' is required"));
}

TEST_F(EditTest, SidecarsAreNotRegistered) {
  const std::string sidecar =
      "service {\n  name = \"web-proxy\"\n  kind = \"connect-proxy\"\n  port = 20000\n}\n";
  EXPECT_THAT(add("x.hcl", sidecar),
              HasSubstr("error: x.hcl:3:10: kind: \"connect-proxy\" cannot be registered: every "
                        "workload is in the mesh without a sidecar"));
  EXPECT_THAT(
      add("x.hcl", "service { name = \"web\" address = \"10.0.0.1\" port = 80 }\n" + sidecar),
      HasSubstr("cannot be registered"));
  EXPECT_THAT(files(), ElementsAre());
  EXPECT_THAT(
      add("x.hcl",
          "service { name = \"web\" address = \"10.0.0.1\" port = 80\n"
          "connect { sidecar_service {} } }\n"),
      HasSubstr("Registered service: web\nwarning: x.hcl:2:9: service.connect: has no effect"));
}

TEST_F(EditTest, FilesHaveNoModifyIndex) {
  EXPECT_THAT(told(editor().write_entry({"x.hcl", kWeb}, 7)), HasSubstr("--cas is for --store"));
  EXPECT_THAT(told(editor().delete_entry(Kind::ServiceDefaults, "web", 7)),
              HasSubstr("--cas is for --store"));
  EXPECT_THAT(files(), ElementsAre());
}

TEST_F(EditTest, EditorsWaitForEachOther) {
  auto first = DirectoryEditor::open(dir_.path(), true);
  ASSERT_TRUE(first);
  UniqueFd fd(::open(dir_.path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  EXPECT_NE(::flock(fd.get(), LOCK_EX | LOCK_NB), 0);
  EXPECT_TRUE(DirectoryEditor::open(dir_.path(), false));
  EXPECT_FALSE(DirectoryEditor::open(dir_.path("nowhere"), false));
}

}  // namespace
}  // namespace mesh::catalog
