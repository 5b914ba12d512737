// SPDX-License-Identifier: Apache-2.0
// Sockets and result lines of mesh-test-peer. It uses plain system calls, as an application would.
#pragma once

#include <sys/socket.h>

#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "agent/base/result.h"
#include "agent/base/unique_fd.h"

namespace mesh::peer {

// Writes one line of JSON to stdout at once. Any thread.
void emit(const nlohmann::json& line);

std::string errno_name(int error);  // "ECONNREFUSED"

// {"ok":false,"stage":...,"errno":...} and exit code 1.
int emit_failure(std::string_view stage, int error);

// "1.2.3.4:80" or "[::ffff:1.2.3.4]:80": the form shows the family that the socket has.
std::string show(const sockaddr_storage& address);
// The soft limit of descriptors up to the hard one; EMFILE is reported if that is not enough.
void raise_file_limit();
std::string own_name(int fd);   // getsockname
std::string peer_name(int fd);  // getpeername; the errno's name if it fails

struct ListenOptions {
  std::string bind = "::";  // dual-stack
  std::uint16_t port = 0;   // 0: any, shown in the "listening" line
  bool v6only = false;
  bool mptcp = false;  // IPPROTO_MPTCP
  int backlog = 1024;
  bool quiet = false;      // no lines for single connections
  unsigned threads = 512;  // connections served at a time, others wait in the backlog
};

struct ConnectOptions {
  std::string to;
  std::uint16_t port = 0;
  bool mapped = false;    // IPv4 by an AF_INET6 socket
  bool mptcp = false;     // IPPROTO_MPTCP
  std::string bind;       // own address
  std::string device;     // SO_BINDTODEVICE
  bool nonblock = false;  // connect with O_NONBLOCK and poll
  bool poll = false;      // wait in poll(2) and read without waiting; else wait in recv(2)
  unsigned timeout_ms = 10000;
};

Result<UniqueFd> open_listener(const ListenOptions& options);  // and emits "listening"
Result<UniqueFd> connect_to(const ConnectOptions& options);    // blocking again afterwards
Result<UniqueFd> udp_socket(const std::string& bind, std::uint16_t port);
Result<sockaddr_storage> parse_address(const std::string& text, std::uint16_t port, bool mapped);
socklen_t length_of(const sockaddr_storage& address);

// Accepts for ever; each connection is served by `handler(fd, number)` on a thread of its own.
int serve(const ListenOptions& options,
          const std::function<void(int fd, unsigned number)>& handler);

// Blocking helpers; 0 or the errno.
int send_all(int fd, std::string_view bytes);
void set_timeouts(int fd, unsigned ms);

// Waits for bytes as `options` say. 0 at the end of the stream, or minus the errno: ETIMEDOUT only
// after the time limit. A recv(2) that gives up earlier, as on sockets in a sockmap, is EAGAIN.
ssize_t receive(int fd, void* buffer, std::size_t size, const ConnectOptions& options);

void reset_on_close(int fd);  // SO_LINGER 0
void set_nonblocking(int fd, bool on);
void wait_stdin_eof();

}  // namespace mesh::peer
