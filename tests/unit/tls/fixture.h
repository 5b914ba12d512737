// SPDX-License-Identifier: Apache-2.0
// Two ends of a loopback TCP connection that do handshakes and then talk, in one process.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "agent/base/unique_fd.h"
#include "ktls/handshake.h"
#include "tests/unit/tls/pki.h"

namespace mesh::ktls::test {

inline constexpr std::chrono::seconds kPatience{20};  // when something is called hanging

struct TcpPair {
  UniqueFd client;  // both non-blocking
  UniqueFd server;
};
// `buffer` bytes for each socket buffer of both ends; 0: the system's.
TcpPair tcp_pair(int buffer = 0);

// Waits until `fd` is ready for `events` (poll's) or `limit` is over.
bool wait_for(int fd, short events, std::chrono::milliseconds limit = kPatience);

struct Outcome {
  Handshake::Step client = Handshake::Step::Failed;
  Handshake::Step server = Handshake::Step::Failed;
};
// Steps both ends until each is Done or Failed.
Outcome drive(Handshake& client, Handshake& server, TcpPair& pair);

struct Scene {
  TestCa ca;
  std::shared_ptr<PskStore> client_psks = std::make_shared<PskStore>();
  std::shared_ptr<PskStore> server_psks = std::make_shared<PskStore>();
  std::optional<std::uint64_t> client_epoch;  // none: what the PSKs have
  std::optional<std::uint64_t> server_epoch;
  ContextOptions client_options;
  ContextOptions server_options;
  std::vector<std::string> client_alpn;
  std::vector<std::string> server_alpn;
  std::string sni = "db.default.dc1.internal.mesh.test";
  SvidPtr client_svid = ca.issue("web");
  SvidPtr server_svid = ca.issue("db");
  TrustBundlePtr client_bundle = ca.bundle();
  TrustBundlePtr server_bundle = ca.bundle();

  // User-space records unless a test says otherwise.
  Scene() { client_options.kernel = server_options.kernel = false; }
  [[nodiscard]] ContextPtr client_context() const;
  [[nodiscard]] ContextPtr server_context() const;
  [[nodiscard]] ClientOptions client_target() const;
};

// Two handshakes on a pair, not yet driven.
struct Ends {
  TcpPair pair;
  std::unique_ptr<Handshake> client;
  std::unique_ptr<Handshake> server;

  explicit Ends(const Scene& scene, int buffer = 0);
  Outcome run() { return drive(*client, *server, pair); }
};

// A pair with its streams.
struct Connected {
  TcpPair pair;
  Established client;
  Established server;
};
// Fails the test and returns none when something does not work.
std::optional<Connected> connect(const Scene& scene, int buffer = 0);

// Writes all of it, waiting for room. False: it failed or hangs.
bool write_all(Stream& stream, int fd, std::string_view data);
// Reads `size` bytes, waiting for them; less when the stream ended or failed.
std::string read_some(Stream& stream, int fd, std::size_t size);
// Reads until the stream is not Blocked any more and has no bytes: Eof or Failed.
Io read_end(Stream& stream, int fd);
// close_notify until it is out, then shutdown(SHUT_WR).
bool close_writing(Stream& stream, int fd);
// Bytes that differ by `seed`, the same on each call.
std::string pattern(std::size_t size, std::uint64_t seed);

}  // namespace mesh::ktls::test
