// SPDX-License-Identifier: Apache-2.0
// `config` and `service` on a real etcd: what they write, what they refuse, and what happens when
// two of them are at it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "agent/store/editor.h"
#include "tests/support/etcd.h"
#include "tests/support/must.h"

namespace mesh::test {
namespace {

using namespace std::chrono_literals;
using catalog::CatalogCommand;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;
using Arguments = std::vector<std::string>;

std::string in(const std::string& key) { return "mesh-agent/" + key; }

const std::string kHttp = "Kind = \"service-defaults\"\nName = \"web\"\nProtocol = \"http\"\n";
const std::string kRouter = "Kind = \"service-router\"\nName = \"web\"\nRoutes = []\n";

class StoreCommands : public ::testing::Test {
 protected:
  std::string file(const std::string& name, const std::string& text) {
    const auto path = etcd_->directory() + "/" + name;
    std::ofstream(path) << text;
    return path;
  }
  RunResult command(Arguments arguments, const Arguments& more,
                    const std::vector<std::pair<std::string, std::string>>& env = {},
                    const std::string& input = {}) {
    Arguments argv{MESH_AGENT_BINARY};
    argv.insert(argv.end(), arguments.begin(), arguments.end());
    argv.insert(argv.end(), more.begin(), more.end());
    SpawnOptions options;
    options.env = env;
    options.stdin_text = input;
    return must(run(argv, options, 60s), "mesh-agent");
  }
  RunResult cli(Arguments arguments) {
    return command(std::move(arguments), {"--store", etcd_->store()});
  }
  // What it prints; the test fails if it does.
  std::string ok(Arguments arguments) {
    auto result = cli(std::move(arguments));
    EXPECT_TRUE(result.ok()) << result.describe();
    return result.out;
  }
  // What it says on standard error, with exit status 1.
  std::string refused(Arguments arguments) {
    auto result = cli(std::move(arguments));
    EXPECT_TRUE(result.status.exited && result.status.code == 1) << result.describe();
    EXPECT_EQ(result.out, "");
    return result.err;
  }
  nlohmann::json read(const std::string& kind, const std::string& name) {
    return nlohmann::json::parse(ok({"config", "read", "--kind", kind, "--name", name}));
  }
  // An editor that has seen the store as it is now.
  std::unique_ptr<catalog::Editor> editor(CatalogCommand command = CatalogCommand::ConfigWrite) {
    return must(
        store::open_editor({must(store::parse_store(etcd_->store()), "address"), {}, "mesh-agent/"},
                           command),
        "editor");
  }

  std::optional<EtcdCluster> etcd_{std::in_place};
};

std::string told(const catalog::Edited& edited) {
  if (edited) return *edited;
  std::string text = "refused:";
  for (const auto& error : edited.error()) text += " " + error.to_string();
  return text;
}

TEST_F(StoreCommands, EntriesAreWrittenReadListedAndDeleted) {
  const auto http = file("http.hcl", kHttp);
  const auto router = file("router.hcl", kRouter);
  EXPECT_THAT(refused({"config", "write", router}),
              HasSubstr(router + ":1:1: service \"web\" has protocol \"tcp\""));
  EXPECT_FALSE(etcd_->get(in("config/service-router/web")));
  EXPECT_EQ(ok({"config", "write", http}), "Config entry written: service-defaults/web\n");
  EXPECT_EQ(ok({"config", "write", router}), "Config entry written: service-router/web\n");
  EXPECT_EQ(ok({"config", "list"}), "service-defaults/web\nservice-router/web\n");
  EXPECT_EQ(ok({"config", "list", "--kind", "service-router"}), "web\n");

  const auto entry = read("service-defaults", "web");
  EXPECT_EQ(entry["Kind"], "service-defaults");
  EXPECT_EQ(entry["Protocol"], "http");
  EXPECT_GT(entry["ModifyIndex"], 0);
  EXPECT_EQ(entry["CreateIndex"], entry["ModifyIndex"]);
  EXPECT_EQ(nlohmann::json::parse(*etcd_->get(in("config/service-defaults/web")))["Protocol"],
            "http");
  EXPECT_THAT(refused({"config", "read", "--kind", "mesh", "--name", "mesh"}),
              HasSubstr("there is no mesh/mesh"));
  // What was read can be written.
  const auto again =
      command({"config", "write", "-"}, {"--store", etcd_->store()}, {}, entry.dump());
  EXPECT_EQ(again.out, "Config entry written: service-defaults/web\n") << again.describe();

  // The router needs the protocol.
  EXPECT_THAT(refused({"config", "delete", "--kind", "service-defaults", "--name", "web"}),
              HasSubstr("config/service-router/web:1:1: service \"web\" has protocol \"tcp\""));
  const auto tcp = file("tcp.hcl", "Kind = \"service-defaults\"\nName = \"web\"\n");
  EXPECT_THAT(refused({"config", "write", tcp}), HasSubstr("has protocol \"tcp\""));
  EXPECT_EQ(read("service-defaults", "web")["Protocol"], "http");
  EXPECT_EQ(ok({"config", "delete", "--kind", "service-router", "--name", "web"}),
            "Config entry deleted: service-router/web\n");
  EXPECT_EQ(ok({"config", "delete", "--kind", "service-defaults", "--name", "web"}),
            "Config entry deleted: service-defaults/web\n");
  EXPECT_EQ(ok({"config", "delete", "--kind", "service-defaults", "--name", "web"}),
            "Config entry deleted: service-defaults/web\n");
  EXPECT_EQ(ok({"config", "list"}), "");
}

TEST_F(StoreCommands, AllErrorsOfABrokenChainAreTold) {
  const auto splitter = file("split.json", R"({"Kind":"service-splitter","Name":"web","Splits":[
    {"Weight":50,"ServiceSubset":"a"},{"Weight":50,"ServiceSubset":"b"}]})");
  const auto err = refused({"config", "write", splitter});
  EXPECT_THAT(err, HasSubstr("has protocol \"tcp\""));
  EXPECT_THAT(err, HasSubstr("Splits[0]"));
  EXPECT_THAT(err, HasSubstr("Splits[1]"));
}

TEST_F(StoreCommands, ACustomResourceIsKeptAsOne) {
  const auto path = file("web.yaml",
                         "apiVersion: consul.hashicorp.com/v1alpha1\nkind: ServiceDefaults\n"
                         "metadata: {name: web}\nspec: {protocol: http}\n");
  EXPECT_EQ(ok({"config", "write", path}), "Config entry written: service-defaults/web\n");
  const auto entry = read("service-defaults", "web");
  EXPECT_EQ(entry["spec"]["protocol"], "http");
  EXPECT_GT(std::stol(entry["metadata"]["resourceVersion"].get<std::string>()), 0);
  const auto again =
      command({"config", "write", "-"}, {"--store", etcd_->store()}, {}, entry.dump());
  EXPECT_TRUE(again.ok()) << again.describe();
}

TEST_F(StoreCommands, WhatWasBrokenBeforeCanBeMended) {
  etcd_->put(in("config/service-router/web"),
             R"({"Kind":"service-router","Name":"web","Routes":[]})");
  etcd_->put(in("config/service-router/db"),
             R"({"Kind":"service-router","Name":"db","Routes":[]})");
  etcd_->put(in("config/service-resolver/x"), "{");
  const auto out = ok({"config", "write", file("http.hcl", kHttp)});
  EXPECT_THAT(out, StartsWith("Config entry written: service-defaults/web\n"));
  EXPECT_THAT(
      out, HasSubstr("warning: config/service-router/db:1:1: service \"db\" has protocol \"tcp\""));
  EXPECT_THAT(out, HasSubstr("warning: config/service-resolver/x: left out by agents"));
  EXPECT_THAT(out, Not(HasSubstr("config/service-router/web")));
  ok({"config", "delete", "--kind", "service-router", "--name", "db"});
  ok({"config", "delete", "--kind", "service-resolver", "--name", "x"});
  EXPECT_EQ(ok({"config", "write", file("http.hcl", kHttp)}),
            "Config entry written: service-defaults/web\n");
}

TEST_F(StoreCommands, CheckAndSet) {
  const auto http = file("http.hcl", kHttp);
  EXPECT_THAT(ok({"config", "write", http, "--cas", "--modify-index", "0"}), HasSubstr("written"));
  EXPECT_THAT(refused({"config", "write", http, "--cas", "--modify-index", "0"}),
              HasSubstr("Config entry not updated: service-defaults/web"));
  const auto index = read("service-defaults", "web")["ModifyIndex"].dump();
  EXPECT_THAT(ok({"config", "write", http, "--cas", "--modify-index", index}),
              HasSubstr("written"));
  EXPECT_THAT(refused({"config", "write", http, "--cas", "--modify-index", index}),
              HasSubstr("not updated"));
  const Arguments del{"config", "delete", "--kind", "service-defaults", "--name", "web", "--cas"};
  const auto with = [&](const std::string& one) {
    auto all = del;
    all.insert(all.end(), {"--modify-index", one});
    return all;
  };
  EXPECT_THAT(refused(with(index)), HasSubstr("Config entry not deleted: service-defaults/web"));
  EXPECT_EQ(cli(del).status.code, 2);
  EXPECT_EQ(cli(with("0")).status.code, 2);
  EXPECT_EQ(cli({"config", "write", http, "--modify-index", "3"}).status.code, 2);
  EXPECT_THAT(ok(with(read("service-defaults", "web")["ModifyIndex"].dump())),
              HasSubstr("deleted"));
}

// Each of the two makes sense with what its command saw, and not with what the other one did.
TEST_F(StoreCommands, AWriteIsCheckedAgainWhenSomebodyWasQuicker) {
  const catalog::GivenText resolver{
      "r.json", R"({"Kind":"service-resolver","Name":"web","Subsets":{"v1":{}}})"};
  const catalog::GivenText redirect{
      "o.json",
      R"({"Kind":"service-resolver","Name":"old","Redirect":{"Service":"web","ServiceSubset":"v1"}})"};
  ASSERT_EQ(told(editor()->write_entry(resolver, {})),
            "Config entry written: service-resolver/web");
  auto slow = editor();
  ASSERT_EQ(told(editor()->delete_entry(config::Kind::ServiceResolver, "web", {})),
            "Config entry deleted: service-resolver/web");
  EXPECT_THAT(told(slow->write_entry(redirect, {})), HasSubstr("refused: o.json:1:"));
  EXPECT_FALSE(etcd_->get(in("config/service-resolver/old")));

  ASSERT_EQ(told(editor()->write_entry(resolver, {})),
            "Config entry written: service-resolver/web");
  slow = editor();
  ASSERT_EQ(told(editor()->write_entry(redirect, {})),
            "Config entry written: service-resolver/old");
  EXPECT_THAT(told(slow->delete_entry(config::Kind::ServiceResolver, "web", {})),
              HasSubstr("refused: config/service-resolver/old:1:"));
  EXPECT_TRUE(etcd_->get(in("config/service-resolver/web")));

  // Somebody who is not of ours was quicker, with something that does not matter.
  slow = editor();
  etcd_->put(in("config/service-defaults/x"), R"({"Kind":"service-defaults","Name":"x"})");
  EXPECT_EQ(told(slow->write_entry(resolver, {})), "Config entry written: service-resolver/web");
}

TEST_F(StoreCommands, InstancesAreRegisteredAndTakenOut) {
  const auto web = file("web.hcl", R"(
service { name = "web" id = "web-1" address = "10.0.0.5" port = 8080
  weights { passing = 5 warning = 2 }
  check { id = "alive" tcp = "10.0.0.5:8080" interval = "1s" } }
)");
  EXPECT_EQ(ok({"service", "register", web}), "Registered service: web\n");
  const auto value = nlohmann::json::parse(*etcd_->get(in("catalog/web/web-1")))["service"];
  EXPECT_EQ(value["weights"]["passing"], 5);
  EXPECT_EQ(value["check"]["tcp"], "10.0.0.5:8080");
  EXPECT_EQ(ok({"service", "register", "--name", "db", "--address", "10.0.0.6", "--port", "5432"}),
            "Registered service: db\n");
  EXPECT_EQ(ok({"service", "list"}), "db  db  10.0.0.6:5432\nweb  web-1  10.0.0.5:8080\n");

  EXPECT_THAT(
      refused({"service", "register", "--name", "x", "--address", "10.0.0.5", "--port", "8080"}),
      HasSubstr("10.0.0.5:8080 is instance \"web-1\" of service \"web\" already"));
  EXPECT_THAT(refused({"service", "register", "--name", "web", "--id", "w2", "--address",
                       "10.0.0.7", "--port", "80", "--protocol", "http"}),
              HasSubstr("all instances must agree"));
  EXPECT_THAT(refused({"service", "register", file("side.hcl", R"(
service { name = "web-proxy" kind = "connect-proxy" port = 20000 })")}),
              HasSubstr("cannot be registered: every workload is in the mesh without a sidecar"));
  // The id again, for another service.
  EXPECT_EQ(ok({"service", "register", "--name", "api", "--id", "web-1", "--address", "10.0.0.5",
                "--port", "8080"}),
            "Registered service: api\n");
  EXPECT_EQ(ok({"service", "list"}), "api  web-1  10.0.0.5:8080\ndb  db  10.0.0.6:5432\n");
  EXPECT_EQ(ok({"service", "deregister", "--id", "web-1"}), "Deregistered service: web-1\n");
  EXPECT_THAT(refused({"service", "deregister", "--id", "web-1"}),
              HasSubstr("there is no instance with the id \"web-1\""));
  EXPECT_EQ(ok({"service", "list"}), "db  db  10.0.0.6:5432\n");
}

TEST_F(StoreCommands, WhatAnAgentRegistersIsLeftToIt) {
  const auto lease = etcd_->ctl({"lease", "grant", "60"});
  const auto id = lease.substr(6, 16);
  etcd_->ctl({"put", "--lease", id, in("nodes/n1"),
              R"({"node":{"name":"n1","address":"192.0.2.1","cidrs":["10.1.0.0/24"]}})"});
  etcd_->ctl({"put", "--lease", id, in("catalog/web/n1/web"),
              R"({"service":{"name":"web","address":"10.1.0.5","port":80}})"});
  EXPECT_EQ(ok({"service", "list"}), "web  n1/web  10.1.0.5:80\n");
  for (const std::string instance : {"web", "n1/web"})
    EXPECT_THAT(refused({"service", "deregister", "--id", instance}),
                HasSubstr("is what node n1 registers by its own files"));
  EXPECT_THAT(refused({"service", "register", "--name", "web", "--id", "n1/web", "--address",
                       "10.1.0.6", "--port", "80"}),
              HasSubstr("is what node \"n1\" registers"));
  EXPECT_TRUE(etcd_->get(in("catalog/web/n1/web")));
}

TEST_F(StoreCommands, OnePlaceAtATime) {
  const auto directory = etcd_->directory();
  const std::string both = "--config-dir and --store are both given";
  EXPECT_THAT(cli({"config", "list", "--config-dir", directory}).err, HasSubstr(both));
  EXPECT_EQ(cli({"config", "list", "--config-dir", directory}).status.code, 2);
  const std::vector<std::pair<std::string, std::string>> agents{
      {"MESH_AGENT_CONFIG_DIR", directory}, {"MESH_AGENT_STORE", etcd_->store()}};
  EXPECT_THAT(command({"config", "list"}, {}, agents).err,
              HasSubstr(both + ", by the environment"));
  ok({"config", "write", file("http.hcl", kHttp)});
  // What is on the command line is meant.
  EXPECT_EQ(command({"config", "list"}, {"--store", etcd_->store()}, agents).out,
            "service-defaults/web\n");
  const auto empty = must(ScratchDir::create(directory + "/empty"), "directory");
  EXPECT_EQ(command({"config", "list"}, {"--config-dir", empty.path()}, agents).out, "");
  EXPECT_THAT(command({"config", "list"}, {}).err, HasSubstr("say where the configuration is"));
  EXPECT_THAT(command({"config", "write", file("http.hcl", kHttp), "--cas", "--modify-index", "1"},
                      {"--config-dir", empty.path()})
                  .err,
              HasSubstr("--cas is for --store"));
  for (const Arguments& help : {Arguments{"config", "--help"}, Arguments{"service", "--help"}})
    EXPECT_THAT(command(help, {}).out, HasSubstr("--store etcd://"));
}

TEST_F(StoreCommands, AStoreThatIsNotThereIsToldInTime) {
  etcd_->kill(0);
  const auto start = std::chrono::steady_clock::now();
  const auto result = cli({"config", "list"});
  EXPECT_EQ(result.status.code, 2);
  EXPECT_THAT(result.err, HasSubstr("--store: etcd://" + etcd_->endpoint(0)));
  EXPECT_THAT(result.err, HasSubstr("Connection refused"));
  EXPECT_LT(std::chrono::steady_clock::now() - start, 30s);
}

TEST_F(StoreCommands, WithTls) {
  etcd_.emplace(EtcdSetup{.tls = true});
  const Arguments access{"--store",           etcd_->store(),
                         "--store-ca-file",   etcd_->tls_file("ca.pem"),
                         "--store-cert-file", etcd_->tls_file("client.pem"),
                         "--store-key-file",  etcd_->tls_file("client.key")};
  const auto written = command({"config", "write", file("http.hcl", kHttp)}, access);
  EXPECT_EQ(written.out, "Config entry written: service-defaults/web\n") << written.describe();
  EXPECT_EQ(command({"config", "list"}, access).out, "service-defaults/web\n");
}

TEST_F(StoreCommands, WithAPassword) {
  etcd_->ctl({"user", "add", "root:top"});
  etcd_->ctl({"user", "add", "operator:secret"});
  etcd_->ctl({"role", "add", "mesh"});
  etcd_->ctl({"role", "grant-permission", "mesh", "readwrite", "--prefix=true", "mesh-agent/"});
  etcd_->ctl({"user", "grant-role", "operator", "mesh"});
  etcd_->ctl({"auth", "enable"});
  const Arguments access{"--store",  etcd_->store(),          "--store-user",
                         "operator", "--store-password-file", file("password", "secret\n")};
  ASSERT_EQ(::chmod(access.back().c_str(), 0600), 0);
  const auto written = command({"config", "write", file("http.hcl", kHttp)}, access);
  EXPECT_EQ(written.out, "Config entry written: service-defaults/web\n") << written.describe();
  const auto registered = command(
      {"service", "register", "--name", "web", "--address", "10.0.0.5", "--port", "80"}, access);
  EXPECT_TRUE(registered.ok()) << registered.describe();
  EXPECT_EQ(command({"service", "list"}, access).out, "web  web  10.0.0.5:80\n");
  EXPECT_THAT(cli({"config", "list"}).err, HasSubstr("user name is empty"));
}

}  // namespace
}  // namespace mesh::test
