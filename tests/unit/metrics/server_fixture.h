// SPDX-License-Identifier: Apache-2.0
// A metrics server on port 0 of the loopback, with its io_context on a thread of its own.
#pragma once

#include <gtest/gtest.h>

#include <boost/asio/io_context.hpp>
#include <thread>

#include "metrics/server.h"
#include "tests/unit/metrics/http_client.h"

namespace mesh::metrics::test {

inline Endpoint loopback() { return {*Address::parse("127.0.0.1"), 0}; }

class ServerFixture : public ::testing::Test {
 protected:
  ServerFixture() {
    options_.listen = loopback();
    options_.debug_listen = loopback();
  }
  ~ServerFixture() override { finish(); }

  void create() {
    auto made = Server::create(io_, registry_, options_);
    ASSERT_TRUE(made) << made.error().what;
    server_ = std::move(*made);
  }
  void run() {
    server_->start();
    thread_ = std::thread([this] { io_.run(); });
  }
  void start() {
    ASSERT_NO_FATAL_FAILURE(create());
    run();
  }
  // Returns when every connection has ended: the io_context has nothing left to do.
  void finish() {
    if (server_) server_->stop();
    if (thread_.joinable()) thread_.join();
    server_.reset();
  }
  [[nodiscard]] Endpoint where() const { return server_->endpoint(); }
  [[nodiscard]] Endpoint debug() const { return *server_->debug_endpoint(); }

  // mesh_metrics_http_rejected_total of a reason, as a scrape shows it.
  std::string rejected(const std::string& reason) {
    auto text = get(where(), "/metrics").body;
    auto key = "mesh_metrics_http_rejected_total{reason=\"" + reason + "\"} ";
    auto at = text.find(key);
    if (at == std::string::npos) return "absent";
    at += key.size();
    return text.substr(at, text.find('\n', at) - at);
  }

  template <typename Condition>
  static bool eventually(Condition condition) {
    auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (std::chrono::steady_clock::now() < end) {
      if (condition()) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    return condition();
  }

  boost::asio::io_context io_;
  Registry registry_;
  ServerOptions options_;
  std::unique_ptr<Server> server_;
  std::thread thread_;
};

}  // namespace mesh::metrics::test
