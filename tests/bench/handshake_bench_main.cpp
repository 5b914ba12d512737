// SPDX-License-Identifier: Apache-2.0
// Handshakes between two ends in one process, nothing else: for callgrind, perf and the guest's
// clock. Records in user space, so that it runs on every kernel.
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <string>

#include "tests/unit/tls/fixture.h"

namespace {

using namespace mesh::ktls;
using mesh::ktls::test::Scene;

// One handshake up to the streams; whether it was by PSK, or nothing when it failed.
std::optional<bool> handshake(const ContextPtr& at_client, const ContextPtr& at_server,
                              const Scene& scene, test::TcpPair& pair) {
  auto client = client_handshake(at_client, pair.client.get(), scene.client_target());
  auto server = server_handshake([&](std::string_view) { return at_server; }, scene.server_alpn,
                                 pair.server.get());
  if (!client || !server) return std::nullopt;
  const auto outcome = test::drive(**client, **server, pair);
  if (outcome.client != Handshake::Step::Done || outcome.server != Handshake::Step::Done) {
    std::fprintf(stderr, "client: %s, server: %s\n", (*client)->error().what.c_str(),
                 (*server)->error().what.c_str());
    return std::nullopt;
  }
  auto client_done = (*client)->finish();
  auto server_done = (*server)->finish();
  if (!client_done || !server_done) return std::nullopt;
  return client_done->resumed && server_done->resumed;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Handshakes by PSK (or by certificates) between two ends in one process.");
  int count = 100;
  bool full = false;
  app.add_option("--count", count, "how many, after one by certificates")
      ->check(CLI::Range(1, 1000000));
  app.add_flag("--full", full, "by certificates");
  CLI11_PARSE(app, argc, argv);

  Scene scene;
  scene.client_alpn = scene.server_alpn = {"mesh-leg/1"};
  scene.client_options.psk = scene.server_options.psk = !full;
  const ContextPtr at_client = scene.client_context();
  const ContextPtr at_server = scene.server_context();
  if (!at_client || !at_server) return 1;
  // A pair serves all of them: the streams are thrown away before they say anything.
  auto pair = test::tcp_pair();
  const int on = 1;
  for (const int fd : {pair.client.get(), pair.server.get()})
    (void)::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  std::chrono::nanoseconds spent{0};
  for (int i = 0; i <= count; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    const auto by_psk = handshake(at_client, at_server, scene, pair);
    if (i > 0) spent += std::chrono::steady_clock::now() - begin;
    if (!by_psk || *by_psk != (i > 0 && !full)) {
      std::fprintf(stderr, "handshake %d failed or was of the wrong kind\n", i);
      return 1;
    }
  }
  std::printf("%d handshakes, %.1f us each, both ends\n", count,
              static_cast<double>(spent.count()) / 1000 / count);
  return 0;
}
