// SPDX-License-Identifier: Apache-2.0
// The bench's client, see client.h.
#include "tests/bench/client.h"

#include <sys/epoll.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <optional>
#include <thread>

#include "tests/bench/socket.h"

namespace mesh::bench {

namespace {

constexpr std::uint64_t kMiB = 1024 * 1024;

std::uint64_t now_ns() {
  timespec time{};
  ::clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<std::uint64_t>(time.tv_sec) * 1'000'000'000 +
         static_cast<std::uint64_t>(time.tv_nsec);
}

// The fixed request of the HTTP mode, padded by one header to the wanted size.
Result<std::string> http_request(std::size_t request, std::size_t response) {
  std::string text = fmt::format("GET /{} HTTP/1.1\r\nHost: bench.test\r\nX-Pad: ", response);
  static constexpr std::string_view kEnd = "\r\n\r\n";
  if (request < text.size() + kEnd.size())
    return fail("an HTTP request has at least {} bytes", text.size() + kEnd.size());
  text.append(request - text.size() - kEnd.size(), 'p');
  return text.append(kEnd);
}

class Client {
 public:
  static Result<Client> make(const Run& run) {
    Client client(run);
    if (run.request > kMaxMessage || run.response > kMaxMessage)
      return fail("messages have at most {} bytes", kMaxMessage);
    if (run.mode == Mode::kConnect && run.request != 1 && run.request < sizeof(Hello))
      return fail("a request on a new connection has 1 or at least {} bytes", sizeof(Hello));
    const auto address = parse_socket_address(run.connect);
    if (!address) return tl::unexpected(address.error());
    client.address_ = *address;
    client.epoll_.reset(::epoll_create1(EPOLL_CLOEXEC));
    if (!client.epoll_) return fail_errno(errno, "epoll_create1");
    client.request_.assign(std::max(run.request, kBulkWrite), 'q');
    client.response_.resize(std::max<std::size_t>(run.response, 1));
    if (run.mode == Mode::kHttp) {
      auto text = http_request(run.request, run.response);
      if (!text) return tl::unexpected(text.error());
      client.request_ = std::move(*text);
    } else if (run.mode == Mode::kConnect && run.request == 1) {
      client.request_.assign(1, kWirePing);
      client.run_.response = 1;
    } else if (run.mode == Mode::kConnect) {
      client.put_hello(kWireConnect, 0);
    }
    return client;
  }

  Result<std::vector<double>> measure() {
    if (run_.mode == Mode::kRoundTrips || run_.mode == Mode::kHttp)
      if (auto status = open_stream(); !status) return tl::unexpected(status.error());
    if (run_.warmup > 0)
      if (auto status = repeat(run_.warmup); !status) return tl::unexpected(status.error());
    std::vector<double> results;
    for (unsigned i = 0; i < run_.repeats; ++i) {
      const std::uint64_t before = now_ns();
      if (auto status = repeat(run_.count); !status) return tl::unexpected(status.error());
      results.push_back(static_cast<double>(now_ns() - before) / static_cast<double>(run_.count));
    }
    return results;
  }

 private:
  explicit Client(const Run& run) : run_(run) {}

  void put_hello(char mode, std::uint64_t bytes) {
    const Hello hello{mode,
                      {},
                      static_cast<std::uint32_t>(run_.request),
                      static_cast<std::uint32_t>(run_.response),
                      0,
                      bytes};
    std::memcpy(request_.data(), &hello, sizeof hello);
  }

  Status open_connection() {
    stream_.reset();
    auto connection = Connection::open(address_, run_.io, epoll_.get());
    if (!connection) return tl::unexpected(connection.error());
    stream_.emplace(std::move(*connection));
    return run_.security == Security::kKernelTls ? stream_->arm(Side::kClient) : Status{};
  }

  Status open_stream() {
    if (auto status = open_connection(); !status) return status;
    if (run_.mode == Mode::kHttp) return {};
    put_hello(kWireRoundTrips, 0);
    return stream_->write_all(request_.data(), sizeof(Hello));
  }

  Status exchange() {
    if (auto status = stream_->write_all(request_.data(), run_.request); !status) return status;
    return stream_->read_exactly(response_.data(), run_.response);
  }

  Status repeat(std::uint64_t count) {
    if (run_.mode == Mode::kBulk) return bulk(count * kMiB);
    for (std::uint64_t i = 0; i < count; ++i) {
      if (run_.mode == Mode::kConnect)
        if (auto status = open_connection(); !status) return status;
      if (auto status = exchange(); !status) return status;
      if (run_.mode == Mode::kConnect) stream_.reset();
    }
    return {};
  }

  // Connecting is part of it, and nothing beside `bytes`.
  Status bulk(std::uint64_t bytes) {
    if (auto status = open_connection(); !status) return status;
    put_hello(kWireBulk, bytes);
    if (auto status = stream_->write_all(request_.data(), sizeof(Hello)); !status) return status;
    for (std::uint64_t sent = 0; sent < bytes; sent += kBulkWrite)
      if (auto status = stream_->write_all(request_.data(), kBulkWrite); !status) return status;
    return stream_->read_exactly(response_.data(), 1);
  }

  Run run_;
  SockAddr address_;
  UniqueFd epoll_;
  std::string request_;
  std::string response_;
  std::optional<Connection> stream_;
};

}  // namespace

Result<std::vector<double>> run_client(const Run& run) {
  auto client = Client::make(run);
  if (!client) return tl::unexpected(client.error());
  return client->measure();
}

Status hold_connections(const Run& run) {
  const auto address = parse_socket_address(run.connect);
  if (!address) return tl::unexpected(address.error());
  const UniqueFd epoll(::epoll_create1(EPOLL_CLOEXEC));
  if (!epoll) return fail_errno(errno, "epoll_create1");
  std::vector<Connection> held;
  held.reserve(run.count);
  while (held.size() < run.count) {
    auto connection = Connection::open(*address, run.io, epoll.get());
    if (!connection) return tl::unexpected(connection.error());
    if (run.security == Security::kKernelTls)
      if (auto status = connection->arm(Side::kClient); !status) return status;
    char byte = kWirePing;
    if (auto status = connection->write_all(&byte, 1); !status) return status;
    if (auto status = connection->read_exactly(&byte, 1); !status) return status;
    held.push_back(std::move(*connection));
  }
  std::puts("held");
  std::fflush(stdout);
  for (;;) ::pause();
}

Status wait_until_served(const std::string& connect, bool http, std::chrono::milliseconds limit) {
  Run run;
  run.connect = connect;
  run.io = Io::kEpoll;
  run.mode = http ? Mode::kHttp : Mode::kConnect;
  run.request = http ? 64 : 1;
  run.response = http ? 128 : 1;
  run.count = 1;
  run.warmup = 0;
  run.repeats = 1;
  const auto deadline = std::chrono::steady_clock::now() + limit;
  for (;;) {
    const auto result = run_client(run);
    if (result) return {};
    if (std::chrono::steady_clock::now() >= deadline) return context(result.error(), connect);
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
}

}  // namespace mesh::bench
