// SPDX-License-Identifier: Apache-2.0
// The fixture of real programs on two nodes. What they do goes by mesh legs and by nothing else.
#pragma once

#include <filesystem>
#include <fstream>

#include "tests/netns/two_nodes.h"
#include "tests/support/must.h"

namespace mesh::test {

class MeshPrograms : public TwoNodes {
 protected:
  void SetUp() override {
    TwoNodes::SetUp();
    if (!a_) return;
    second_ = &a_->add_pod("second");
    std::vector<TestService> services{{"caller", {{client_->addr4, 1}, {client_->addr6, 1}}},
                                      {"other", {{second_->addr4, 1}}},
                                      {"web", {{server_->addr4, 80}}},
                                      {"web6", {{server_->addr6, 80}}}};
    for (auto& service : more_services()) services.push_back(std::move(service));
    start(services);
    wait_enrolled(*agent_a_, *second_);
    cable_.emplace(capture());
  }
  virtual std::vector<TestService> more_services() { return {}; }
  void TearDown() override {
    if (cable_ && !HasFailure() && !IsSkipped()) {
      EXPECT_GT(cable_->count("tcp port 15008"), 10u);
      EXPECT_EQ(cable_->plaintext_segments(), 0u);
    }
    cable_.reset();
    TwoNodes::TearDown();
  }

  // In the client's pod; its stdout.
  std::string expect_ok(const std::vector<std::string>& argv) { return expect_ok(*client_, argv); }
  static std::string expect_ok(const Place& place, const std::vector<std::string>& argv) {
    const RunResult result = place.run(argv, in_guest() ? 4 * kRunLimit : 2 * kRunLimit);
    EXPECT_TRUE(result.ok()) << fmt::format("{}", fmt::join(argv, " ")) << ": "
                             << result.describe();
    return result.out;
  }
  void wait_served(std::uint16_t port) {
    ASSERT_TRUE(eventually(
        kSettle,
        [&] {
          return server_->run({"nc", "-z", "127.0.0.1", std::to_string(port)}).ok();
        },
        fmt::format("port {} is served", port)));
  }

  Process start_nginx() {
    const std::string directory = b_->work_dir() + "/nginx";
    must(make_directory(directory + "/html"), "nginx");
    std::ofstream(directory + "/html/page") << std::string(3000, 'p');
    std::ofstream(directory + "/html/large") << std::string(large_, 'l');
    std::ofstream(directory + "/nginx.conf") << fmt::format(R"(
daemon off;
user root;
worker_processes 1;
pid {0}/pid;
error_log {0}/error.log;
events {{ worker_connections 512; }}
http {{
  log_format who "$remote_addr $status $uri";
  access_log {0}/access.log who;
  client_body_temp_path {0}/body;
  proxy_temp_path {0}/proxy;
  fastcgi_temp_path {0}/fastcgi;
  uwsgi_temp_path {0}/uwsgi;
  scgi_temp_path {0}/scgi;
  keepalive_requests 100000;
  server {{ listen 80; listen [::]:80; root {0}/html; }}
  server {{ listen 81 http2; root {0}/html; }}
}}
)",
                                                            directory);
    Process nginx = server_->spawn({"nginx", "-c", directory + "/nginx.conf", "-p", directory});
    wait_served(80);
    wait_served(81);
    return nginx;
  }
  std::string access_log() {
    return must(read_file(b_->work_dir() + "/nginx/access.log"), "access log");
  }

  // Bytes of the page /large.
  const std::size_t large_ = in_guest() ? 500'000 : 5'000'000;

  Pod* second_ = nullptr;
  std::optional<CableCapture> cable_;
};

}  // namespace mesh::test
