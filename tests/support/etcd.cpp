// SPDX-License-Identifier: Apache-2.0
#include "tests/support/etcd.h"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <filesystem>
#include <thread>

#include "agent/base/unique_fd.h"
#include "agent/store/base64.h"
#include "agent/store/tls.h"
#include "tests/support/eventually.h"
#include "tests/support/must.h"
#include "tests/support/netns.h"

namespace mesh::test {
namespace {

namespace net = boost::asio;
using namespace std::chrono_literals;
using nlohmann::json;

constexpr auto kHealthy = 30s;

std::uint16_t free_port() {
  UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  SockAddr any({*Address::parse("127.0.0.1"), 0});
  if (!fd || ::bind(fd.get(), any.get(), any.length) != 0) throw SetupFailed("no free port");
  return must(local_endpoint(fd.get()), "port").port;
}

std::string scratch_directory() {
  static unsigned number = 0;
  const std::string base = std::filesystem::exists("/dev/shm") ? "/dev/shm/" : "/tmp/";
  return base + scratch_name(fmt::format("etcd{}", number++));
}

}  // namespace

EtcdCluster::EtcdCluster(EtcdSetup setup)
    : setup_(std::move(setup)),
      directory_(must(ScratchDir::create(scratch_directory()), "etcd's directory")) {
  if (setup_.tls) make_certificates();
  for (unsigned i = 0; i < setup_.members; ++i) {
    Member& member = members_.emplace_back();
    member.name = fmt::format("m{}", i);
    member.client_port = free_port();
    member.peer_port = free_port();
  }
  for (unsigned i = 0; i < size(); ++i) start(i);
  wait_healthy();
}

EtcdCluster::~EtcdCluster() {
  for (auto& member : members_)
    if (member.process) {
      member.process->signal(SIGCONT);
      member.process->kill();
    }
}

std::string EtcdCluster::tls_file(const std::string& name) const {
  return directory_.path() + "/" + name;
}

void EtcdCluster::make_certificates() {
  const auto script = R"(set -e
cd "$0"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=test-ca \
  -keyout ca.key -out ca.pem 2>/dev/null
make() {
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$1" -keyout "$1.key" -out "$1.csr" 2>/dev/null
  printf 'subjectAltName=IP:%s,DNS:localhost\nextendedKeyUsage=serverAuth,clientAuth\n' "$2" >"$1.ext"
  openssl x509 -req -in "$1.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile "$1.ext" -out "$1.pem" 2>/dev/null
}
make server "$1"
make client "$1"
make wrong 192.0.2.1
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=other-ca \
  -keyout other.key -out other.pem 2>/dev/null
)";
  (void)must(run_tool({"sh", "-c", script, directory_.path(), setup_.address}, {}, 60s),
             "certificates");
}

std::string EtcdCluster::endpoint(unsigned member) const {
  return fmt::format("{}:{}", setup_.address, members_.at(member).client_port);
}

std::string EtcdCluster::store(unsigned member) const {
  return (setup_.tls ? "etcds://" : "etcd://") + endpoint(member);
}

std::string EtcdCluster::store() const {
  std::string text = store(0);
  for (unsigned i = 1; i < size(); ++i) text += "," + endpoint(i);
  return text;
}

void EtcdCluster::start(unsigned index) {
  Member& member = members_.at(index);
  if (member.process) member.earlier_log += member.process->err();
  std::string cluster;
  for (const auto& each : members_)
    cluster += fmt::format("{}{}=http://{}:{}", cluster.empty() ? "" : ",", each.name,
                           setup_.address, each.peer_port);
  const std::string client =
      fmt::format("{}://{}:{}", setup_.tls ? "https" : "http", setup_.address, member.client_port);
  const std::string peer = fmt::format("http://{}:{}", setup_.address, member.peer_port);
  std::vector<std::string> argv{"etcd",
                                "--name",
                                member.name,
                                "--data-dir",
                                directory_.path() + "/" + member.name,
                                "--listen-client-urls",
                                client,
                                "--advertise-client-urls",
                                client,
                                "--listen-peer-urls",
                                peer,
                                "--initial-advertise-peer-urls",
                                peer,
                                "--initial-cluster",
                                cluster,
                                "--log-level",
                                "warn",
                                "--max-request-bytes",
                                "33554432"};
  if (setup_.tls)
    for (const auto& [flag, file] :
         {std::pair{"--cert-file", "server.pem"}, std::pair{"--key-file", "server.key"},
          std::pair{"--trusted-ca-file", "ca.pem"}}) {
      argv.emplace_back(flag);
      argv.push_back(tls_file(file));
    }
  if (setup_.tls) argv.emplace_back("--client-cert-auth");
  argv.insert(argv.end(), setup_.extra.begin(), setup_.extra.end());
  SpawnOptions options;
  options.netns = setup_.netns;
  member.process = must(Process::spawn(argv, options), "etcd");
}

std::string EtcdCluster::log(unsigned member) const {
  const auto& one = members_.at(member);
  return one.earlier_log + (one.process ? one.process->err() : "");
}

void EtcdCluster::kill(unsigned member) {
  if (connected_to_ == member) connection_.reset();
  auto& one = members_.at(member);
  one.earlier_log += one.process->err();
  one.process->signal(SIGCONT);
  one.process->kill();
  one.process.reset();
}

void EtcdCluster::signal(unsigned member, int number) {
  if (connected_to_ == member) connection_.reset();
  members_.at(member).process->signal(number);
}

void EtcdCluster::forget_data(unsigned member) {
  must(remove_tree(directory_.path() + "/" + members_.at(member).name), "etcd's data");
}

void EtcdCluster::wait_healthy() {
  const auto answers = eventually(
      kHealthy,
      [&] {
        try {
          (void)revision();
          return true;
        } catch (const SetupFailed&) {
          return false;
        }
      },
      "etcd answers");
  if (!answers) {
    std::string logs;
    for (unsigned i = 0; i < size(); ++i) logs += log(i);
    throw SetupFailed(std::string(answers.message()) + "\n" + logs);
  }
}

std::string EtcdCluster::ctl(std::vector<std::string> arguments) {
  std::vector<std::string> argv{"etcdctl", "--endpoints"};
  std::string endpoints;
  for (unsigned i = 0; i < size(); ++i)
    if (members_[i].process) endpoints += (endpoints.empty() ? "" : ",") + endpoint(i);
  argv.push_back(endpoints);
  if (setup_.tls)
    for (const auto& [flag, file] :
         {std::pair{"--cert", "client.pem"}, std::pair{"--key", "client.key"},
          std::pair{"--cacert", "ca.pem"}}) {
      argv.emplace_back(flag);
      argv.push_back(tls_file(file));
    }
  argv.insert(argv.end(), arguments.begin(), arguments.end());
  SpawnOptions options;
  options.env = {{"ETCDCTL_API", "3"}};
  options.netns = setup_.netns;
  return must(run_tool(argv, options, 30s), "etcdctl");
}

json EtcdCluster::call(const std::string& path, const json& request) {
  std::string last = "no member runs";
  for (unsigned attempt = 0; attempt < 2 * size(); ++attempt) {
    if (!connection_ || !connection_->usable()) {
      connected_to_ = (connected_to_ + attempt) % size();
      if (!members_[connected_to_].process) continue;
    }
    Result<store::HttpAnswer> answer = fail("not asked");
    store::StoreAccess access;
    std::shared_ptr<net::ssl::context> tls;
    if (setup_.tls) {
      access.ca_file = tls_file("ca.pem");
      access.cert_file = tls_file("client.pem");
      access.key_file = tls_file("client.key");
      tls = must(store::make_tls(access), "TLS");
    }
    const store::StoreEndpoint to{setup_.address,
                                  std::to_string(members_[connected_to_].client_port)};
    const store::HttpRequest wanted{path, request.dump(), "", false};
    const auto ask = [&]() -> net::awaitable<void> {
      if (!connection_ || !connection_->usable()) {
        auto opened = co_await store::HttpConnection::open(io_.get_executor(), to, tls, 2000ms);
        if (!opened) {
          answer = tl::unexpected(opened.error());
          co_return;
        }
        connection_ = *opened;
      }
      store::HttpRequest copy = wanted;
      answer = co_await connection_->post(std::move(copy), 64u << 20, 5000ms);
    };
    net::co_spawn(io_, ask(), net::detached);
    const auto serve = [&] {
      io_.restart();
      io_.run();
    };
    if (setup_.netns != nullptr)
      must(setup_.netns->run([&]() -> Status {
        serve();
        return {};
      }),
           "namespace");
    else
      serve();
    if (answer && answer->status == 200) return json::parse(answer->body);
    last = answer ? answer->body : answer.error().what;
    connection_.reset();
  }
  throw SetupFailed("etcd: " + path + ": " + last);
}

void EtcdCluster::put(const std::string& key, const std::string& value) {
  (void)call("/v3/kv/put", {{"key", store::base64(key)}, {"value", store::base64(value)}});
}

void EtcdCluster::put_all(const std::vector<std::pair<std::string, std::string>>& all) {
  json puts = json::array();
  for (std::size_t i = 0; i < all.size(); ++i) {
    puts.push_back(
        {{"request_put",
          {{"key", store::base64(all[i].first)}, {"value", store::base64(all[i].second)}}}});
    if (puts.size() < 128 && i + 1 < all.size()) continue;
    (void)call("/v3/kv/txn", {{"success", std::move(puts)}});
    puts = json::array();
  }
}

void EtcdCluster::erase(const std::string& key) {
  (void)call("/v3/kv/deleterange", {{"key", store::base64(key)}});
}

std::optional<std::string> EtcdCluster::get(const std::string& key) {
  const auto answer = call("/v3/kv/range", {{"key", store::base64(key)}});
  if (!answer.contains("kvs")) return std::nullopt;
  return store::from_base64(answer["kvs"][0].value("value", ""));
}

std::int64_t EtcdCluster::revision() {
  const auto answer = call("/v3/kv/range", {{"key", store::base64("x")}});
  return std::stoll(answer["header"]["revision"].get<std::string>());
}

void EtcdCluster::compact() {
  (void)call("/v3/kv/compaction", {{"revision", std::to_string(revision())}, {"physical", true}});
}

unsigned EtcdCluster::leader() {
  for (unsigned i = 0; i < size(); ++i) {
    if (!members_[i].process) continue;
    connection_.reset();
    connected_to_ = i;
    const auto status = call("/v3/maintenance/status", json::object());
    if (status["leader"] == status["header"]["member_id"]) return i;
  }
  throw SetupFailed("etcd: no leader");
}

}  // namespace mesh::test
