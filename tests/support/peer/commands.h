// SPDX-License-Identifier: Apache-2.0
// The sub-commands of mesh-test-peer. Each gives the exit code: 0 if what it did succeeded.
#pragma once

#include <cstdint>
#include <string>

#include "tests/support/peer/sockets.h"

namespace mesh::peer {

struct EchoOptions {
  ListenOptions listen;
  bool epoll = false;  // one thread, non-blocking
  std::string name;    // put before the first reply of a connection, with a colon
};
int echo_server(const EchoOptions& options);

struct GreeterOptions {
  ListenOptions listen;
  std::string text = "welcome\n";
};
int greeter(const GreeterOptions& options);

struct RstOptions {
  ListenOptions listen;    // server, unless
  ConnectOptions connect;  // `to` is set
  std::size_t after = 1;   // bytes: the server reads them, the client sends them
};
int rst(const RstOptions& options);

struct SinkOptions {
  ListenOptions listen;
  unsigned readers = 1;  // threads on one connection
  bool poll = false;     // they wait in poll(2) and read without waiting
  unsigned slow_us = 0;  // pause after each read of 4 KiB
};
int sink(const SinkOptions& options);

struct NoReadOptions {
  ListenOptions listen;
  bool shut_read = false;  // shutdown(SHUT_RD), then send "shut\n"
};
int no_read(const NoReadOptions& options);

struct ClientOptions {
  ConnectOptions connect;
  std::string text = "hello";
  bool read_first = false;   // the server speaks first
  bool no_shutdown = false;  // closes only after the reply, which then is as long as the text
  bool interactive = false;  // a line of stdin a message, until it ends
  unsigned repeat = 1;       // connections, one after the other
  unsigned pause_ms = 0;     // between two of them
  bool brief = false;        // of each a '+' when the text came back, else a '-', and nothing more
};
int client(const ClientOptions& options);

struct SourceOptions {
  ConnectOptions connect;
  std::uint64_t bytes = 1 << 20;
  std::size_t write_size = 65536;
  unsigned until_blocked_ms = 0;  // > 0: send until nothing can be queued for so long, then hold
  std::string text = "s";         // what is sent, again and again
  unsigned repeat = 1;            // connections, one after the other
  unsigned pause_ms = 0;          // between two of them
};
int source(const SourceOptions& options);

struct DuplexOptions {
  ListenOptions listen;
  ConnectOptions connect;  // client if `to` is set
  std::uint64_t seed = 1;
  std::uint64_t send = 1 << 20;
  std::uint64_t receive = 1 << 20;
  std::size_t max_chunk = 65536;
  bool nonblock = false;
  bool half_close =
      false;  // FIN as soon as everything is sent; else also after everything is received
  std::uint64_t hold_back = 0;  // of `send`, until the other side has ended its direction
  unsigned slow_us = 0;         // pause after each read
  unsigned connections = 1;     // at a time (client); before it ends (server)
};
int duplex(const DuplexOptions& options);

struct ManyOptions {
  ConnectOptions connect;
  unsigned count = 1;
  unsigned parallel = 1;
  bool echo = false;     // hold: a byte each and its echo
  unsigned at_once = 0;  // hold: so many wait for their echo at a time; 0: all
  // hold: once all are open, sends to all of them until nothing can be queued for so many ms
  unsigned fill_ms = 0;
};
int hold(const ManyOptions& options);
int shortlived(const ManyOptions& options);

struct LoadOptions {
  ConnectOptions connect;
  unsigned count = 1;
  unsigned chunk = 256;       // bytes a send
  unsigned interval_ms = 20;  // between two sends of a connection; 0: as much as it takes
  unsigned at_once = 0;       // at first, so many wait for their first echo at a time; 0: all
  unsigned connects = 0;      // threads that connect, exchange a text and close all the time
};
int load(const LoadOptions& options);

struct UdpOptions {
  std::string bind = "::";
  ConnectOptions connect;
  std::uint16_t port = 0;
  std::string text = "hello";
  bool connected = false;  // connect(2) before sending
};
int udp_server(const UdpOptions& options);
int udp_client(const UdpOptions& options);

}  // namespace mesh::peer
