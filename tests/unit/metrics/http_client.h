// SPDX-License-Identifier: Apache-2.0
// A blocking HTTP client on raw sockets: sends any bytes, so that a test can be as rude as it
// likes.
#pragma once

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <cstdlib>
#include <string>
#include <string_view>

#include "agent/base/address.h"
#include "agent/base/unique_fd.h"

namespace mesh::metrics::test {

struct Response {
  int status = 0;  // 0: none came
  std::string header;
  std::string body;
  [[nodiscard]] bool has(std::string_view line) const {
    return header.find("\r\n" + std::string(line) + "\r\n") != std::string::npos;
  }
};

class Client {
 public:
  explicit Client(const Endpoint& to, int receive_buffer = 0) {
    SockAddr address(to);
    fd_ = UniqueFd(::socket(address.family(), SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (receive_buffer > 0)
      ::setsockopt(fd_.get(), SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
    timeval limit{20, 0};  // so that a broken server fails a test instead of hanging it
    ::setsockopt(fd_.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    ::setsockopt(fd_.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    connected_ = ::connect(fd_.get(), address.get(), address.length) == 0;
  }

  [[nodiscard]] bool connected() const { return connected_; }
  void close() { fd_.reset(); }

  bool send(std::string_view bytes) {
    while (!bytes.empty()) {
      ssize_t n = ::send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (n <= 0) return false;
      bytes.remove_prefix(static_cast<std::size_t>(n));
    }
    return true;
  }
  bool request(std::string_view method, std::string_view path, std::string_view fields = "") {
    return send(std::string(method) + " " + std::string(path) + " HTTP/1.1\r\nHost: agent\r\n" +
                std::string(fields) + "\r\n");
  }

  // One response. `head`: the body is announced and does not come.
  Response receive(bool head = false) {
    Response r;
    std::size_t end;
    while ((end = pending_.find("\r\n\r\n")) == std::string::npos)
      if (!more()) return r;
    r.header = pending_.substr(0, end + 2);
    pending_.erase(0, end + 4);
    r.status = std::atoi(r.header.c_str() + std::string_view("HTTP/1.1 ").size());
    auto at = r.header.find("Content-Length: ");
    std::size_t length =
        at == std::string::npos ? 0 : std::strtoull(r.header.c_str() + at + 16, nullptr, 10);
    if (head) return r;
    while (pending_.size() < length)
      if (!more()) return {};
    r.body = pending_.substr(0, length);
    pending_.erase(0, length);
    return r;
  }

  // True when the server ends the connection properly (FIN) with nothing more to read.
  bool at_end() {
    if (!pending_.empty()) return false;
    char c;
    return ::recv(fd_.get(), &c, 1, 0) == 0;
  }
  // True when the connection ends in whatever way, after whatever bytes.
  bool ends() {
    while (more()) pending_.clear();
    return errno != EAGAIN;
  }

 private:
  bool more() {
    char chunk[65536];
    errno = 0;
    ssize_t n = ::recv(fd_.get(), chunk, sizeof chunk, 0);
    if (n <= 0) return false;
    pending_.append(chunk, static_cast<std::size_t>(n));
    return true;
  }

  UniqueFd fd_;
  bool connected_ = false;
  std::string pending_;
};

inline Response get(const Endpoint& to, std::string_view path) {
  Client client(to);
  EXPECT_TRUE(client.connected());
  EXPECT_TRUE(client.request("GET", path));
  return client.receive();
}

}  // namespace mesh::metrics::test
