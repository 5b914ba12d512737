// SPDX-License-Identifier: Apache-2.0
// A real etcd on loopback, of one member or several, and what a test does to it.
#pragma once

#include <boost/asio/io_context.hpp>
#include <chrono>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "agent/store/http.h"
#include "tests/support/process.h"
#include "tests/support/scratch.h"

namespace mesh::test {

struct EtcdSetup {
  unsigned members = 1;
  bool tls = false;  // for clients: CA, server and client certificates are made
  std::vector<std::string> extra = {};
  const Netns* netns = nullptr;  // null: the test's own
  std::string address = "127.0.0.1";
};

// Functions throw SetupFailed when etcd does not do what every test takes for granted.
class EtcdCluster {
 public:
  explicit EtcdCluster(EtcdSetup setup = {});
  ~EtcdCluster();
  EtcdCluster(const EtcdCluster&) = delete;
  EtcdCluster& operator=(const EtcdCluster&) = delete;

  [[nodiscard]] std::string store() const;  // for --store
  [[nodiscard]] std::string store(unsigned member) const;
  [[nodiscard]] std::string endpoint(unsigned member) const;
  [[nodiscard]] unsigned size() const { return static_cast<unsigned>(members_.size()); }
  [[nodiscard]] unsigned leader();
  [[nodiscard]] std::string tls_file(
      const std::string& name) const;  // ca.pem, client.pem, client.key

  void kill(unsigned member);
  void start(unsigned member);  // again, with its data
  void signal(unsigned member, int number);
  void forget_data(unsigned member);
  void wait_healthy();

  // etcdctl against all members; what it prints.
  std::string ctl(std::vector<std::string> arguments);
  // By the gateway of a member that answers.
  nlohmann::json call(const std::string& path, const nlohmann::json& request);
  void put(const std::string& key, const std::string& value);
  // Many at once, in transactions of 128.
  void put_all(const std::vector<std::pair<std::string, std::string>>& all);
  void erase(const std::string& key);
  std::optional<std::string> get(const std::string& key);
  std::int64_t revision();
  void compact();
  // Where the members keep their data.
  [[nodiscard]] const std::string& directory() const { return directory_.path(); }
  [[nodiscard]] std::string log(unsigned member) const;

 private:
  struct Member {
    std::string name;
    std::uint16_t client_port = 0;
    std::uint16_t peer_port = 0;
    std::optional<Process> process;
    std::string earlier_log;
  };

  void make_certificates();
  std::string user_flag_;

  EtcdSetup setup_;
  ScratchDir directory_;
  std::vector<Member> members_;
  boost::asio::io_context io_;
  std::shared_ptr<store::HttpConnection> connection_;
  unsigned connected_to_ = 0;
};

}  // namespace mesh::test
