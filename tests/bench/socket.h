// SPDX-License-Identifier: Apache-2.0
// Sockets of the bench: addresses, listening, connecting, and a descriptor that can wait by
// epoll.
#pragma once

#include <cstddef>
#include <string>

#include "agent/base/address.h"
#include "agent/base/result.h"
#include "agent/base/unique_fd.h"
#include "tests/bench/protocol.h"

namespace mesh::bench {

// "10.0.0.1:80" or "[::1]:80".
Result<SockAddr> parse_socket_address(const std::string& text);

Result<UniqueFd> listen_on(const SockAddr& address, Io io);

enum class Side { kClient, kServer };

// Gives a connected socket the keys of its side, TLS 1.3 with AES-128-GCM, in both directions.
// Nothing may have been read or written before.
Status arm_kernel_tls(int fd, Side side);

// A client's connection. The way it waits is what a program of that kind does: a blocking socket
// waits in read(2) and write(2); a non-blocking one tries, and asks epoll when the kernel said
// EAGAIN.
class Connection {
 public:
  // `epoll` is borrowed and may serve many connections, one after the other.
  static Result<Connection> open(const SockAddr& address, Io io, int epoll);

  Status arm(Side side) { return arm_kernel_tls(fd_.get(), side); }
  Status write_all(const char* data, std::size_t size);
  // Waits for readability before the first read when `io` is kEpoll: nothing can be there yet.
  Status read_exactly(char* data, std::size_t size);

 private:
  Connection(UniqueFd fd, Io io, int epoll) : fd_(std::move(fd)), io_(io), epoll_(epoll) {}
  Status wait_for(unsigned events);

  UniqueFd fd_;
  Io io_;
  int epoll_;
  unsigned registered_ = 0;
};

}  // namespace mesh::bench
