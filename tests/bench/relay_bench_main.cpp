// SPDX-License-Identifier: Apache-2.0
// The bare relay as a program: listens on one address, dials another, nothing else of the agent. It
// is what the bench compares with one-hop TCP proxies.
#include <sys/socket.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <memory>
#include <string>

#include "agent/base/address.h"
#include "agent/relay/pool.h"

namespace {

using mesh::Endpoint;

class FixedDialer final : public mesh::relay::Dialer {
 public:
  explicit FixedDialer(const Endpoint& target) : target_(target), address_(target) {}

  tl::expected<mesh::relay::Dialed, mesh::relay::DialFailure> dial(
      const mesh::relay::Accepted&) override {
    using mesh::relay::DialReason;
    mesh::UniqueFd fd(::socket(address_.family(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!fd) return failure(DialReason::Resources, "socket");
    if (::connect(fd.get(), address_.get(), address_.length) != 0 && errno != EINPROGRESS)
      return failure(DialReason::Unreachable, "connect");
    return mesh::relay::Dialed{std::move(fd), target_, 0, nullptr};
  }

 private:
  static tl::unexpected<mesh::relay::DialFailure> failure(mesh::relay::DialReason reason,
                                                          const char* what) {
    const int errnum = errno;
    return tl::unexpected(mesh::relay::DialFailure{reason, mesh::fail_errno(errnum, what).value()});
  }

  Endpoint target_;
  mesh::SockAddr address_;
};

mesh::Result<Endpoint> parse_endpoint(const std::string& text) {
  const auto colon = text.rfind(':');
  if (colon == std::string::npos) return mesh::fail("{}: expected ADDRESS:PORT", text);
  std::string host = text.substr(0, colon);
  if (host.size() > 1 && host.front() == '[' && host.back() == ']')
    host = host.substr(1, host.size() - 2);
  auto address = mesh::Address::parse(host);
  if (!address) return tl::unexpected(std::move(address).error());
  const std::string digits = text.substr(colon + 1);
  char* end = nullptr;
  const unsigned long port = std::strtoul(digits.c_str(), &end, 10);
  if (digits.empty() || *end != '\0' || port == 0 || port > 65535)
    return mesh::fail("{}: bad port", text);
  return Endpoint{*address, static_cast<std::uint16_t>(port)};
}

mesh::Result<mesh::UniqueFd> listening_socket(const Endpoint& at) {
  const mesh::SockAddr address(at);
  mesh::UniqueFd fd(::socket(address.family(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  const int on = 1;
  if (!fd || ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0 ||
      ::bind(fd.get(), address.get(), address.length) != 0 || ::listen(fd.get(), 4096) != 0)
    return mesh::fail_errno(errno, at.to_string());
  return fd;
}

mesh::Status run(const std::string& listen, const std::string& connect, unsigned workers) {
  auto at = parse_endpoint(listen);
  if (!at) return tl::unexpected(std::move(at).error());
  auto to = parse_endpoint(connect);
  if (!to) return tl::unexpected(std::move(to).error());
  auto socket = listening_socket(*at);
  if (!socket) return mesh::context(std::move(socket).error(), "listen");

  // Blocked before the workers start, so that only sigwait below sees them.
  sigset_t stop;
  sigemptyset(&stop);
  sigaddset(&stop, SIGTERM);
  sigaddset(&stop, SIGINT);
  pthread_sigmask(SIG_BLOCK, &stop, nullptr);

  mesh::relay::PoolOptions options;
  options.workers = workers;
  auto pool = mesh::relay::Pool::create(options);
  if (!pool) return tl::unexpected(std::move(pool).error());
  MESH_TRY((*pool)->listen(std::move(*socket), 0, std::make_shared<FixedDialer>(*to)), "listen");
  std::puts("ready");
  std::fflush(stdout);
  int signal = 0;
  sigwait(&stop, &signal);
  const auto counters = (*pool)->counters();
  std::printf("accepted %lu completed %lu reset %lu to_server %lu to_client %lu spliced %lu\n",
              counters.accepted.get(), counters.completed.get(), counters.reset.get(),
              counters.bytes_to_server.get(), counters.bytes_to_client.get(),
              counters.splice_bytes.get());
  return {};
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"The bare mesh relay between two TCP addresses"};
  std::string listen;
  std::string connect;
  unsigned workers = 1;
  app.add_option("--listen", listen, "ADDRESS:PORT to accept on")->required();
  app.add_option("--connect", connect, "ADDRESS:PORT to relay to")->required();
  app.add_option("--workers", workers, "threads; 0 = one for each processor");
  CLI11_PARSE(app, argc, argv);
  if (auto status = run(listen, connect, workers); !status) {
    std::fprintf(stderr, "mesh-relay-bench: %s\n", status.error().what.c_str());
    return 1;
  }
  return 0;
}
