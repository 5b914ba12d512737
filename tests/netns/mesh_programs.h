// SPDX-License-Identifier: Apache-2.0
// The fixture of real programs on two nodes. What they do goes by mesh legs and by nothing else.
#pragma once

#include <filesystem>
#include <fstream>

#include "tests/netns/servers.h"
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

  Process start_nginx() {
    NginxOptions options;
    options.servers = "server { listen 80; listen [::]:80; } server { listen 81 http2; }";
    options.more = "log_format who \"$remote_addr $status $uri\"; access_log access.log who;";
    options.large = large_;
    options.ports = {80, 81};
    return test::start_nginx(*server_, b_->work_dir() + "/nginx", options);
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
