// SPDX-License-Identifier: Apache-2.0
// A server on the loopback that says what a test wants it to say.
#pragma once

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <atomic>
#include <functional>
#include <string>
#include <thread>

#include "agent/base/address.h"
#include "agent/base/unique_fd.h"

namespace mesh::health::test {

class Server {
 public:
  // Reads once, answers with what `say` makes of it, and closes; "" keeps the connection open and
  // silent until the server goes.
  explicit Server(std::function<std::string(const std::string&)> say) : say_(std::move(say)) {
    listener_.reset(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const SockAddr any(Endpoint{*Address::parse("127.0.0.1"), 0});
    EXPECT_EQ(::bind(listener_.get(), any.get(), any.length), 0);
    EXPECT_EQ(::listen(listener_.get(), 64), 0);
    port_ = local_endpoint(listener_.get())->port;
    thread_ = std::thread([this] { run(); });
  }
  ~Server() {
    stop_ = true;
    thread_.join();
  }
  [[nodiscard]] std::string at() const { return "127.0.0.1:" + std::to_string(port_); }
  [[nodiscard]] unsigned asked() const { return asked_; }

 private:
  void run() {
    std::vector<UniqueFd> silent;
    while (!stop_) {
      pollfd p{listener_.get(), POLLIN, 0};
      if (::poll(&p, 1, 20) != 1) continue;
      UniqueFd client(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
      ++asked_;
      char buffer[8192];
      const auto n = ::recv(client.get(), buffer, sizeof buffer, 0);
      const std::string answer = say_(std::string(buffer, n > 0 ? static_cast<std::size_t>(n) : 0));
      if (answer.empty()) {
        silent.push_back(std::move(client));
        continue;
      }
      (void)::send(client.get(), answer.data(), answer.size(), MSG_NOSIGNAL);
    }
  }

  const std::function<std::string(const std::string&)> say_;
  UniqueFd listener_;
  std::uint16_t port_ = 0;
  std::atomic<bool> stop_{false};
  std::atomic<unsigned> asked_{0};
  std::thread thread_;
};

inline Result<UniqueFd> plain_socket(const Endpoint& to) {
  return UniqueFd(::socket(SockAddr(to).family(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
}

}  // namespace mesh::health::test
