// SPDX-License-Identifier: Apache-2.0
// A server and a client that are sent any bytes, and a real client and server with somebody between
// them who changes, drops and repeats bytes. Invariants: both come to an end, only verified peers
// come in, and no change of a handshake goes unnoticed by both.
#include <sys/socket.h>

#include <array>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "agent/base/unique_fd.h"
#include "ktls/handshake.h"
#include "tests/fuzz/fuzz_view.h"
#include "tests/unit/tls/pki.h"

namespace {

using namespace mesh::ktls;
using mesh::UniqueFd;
using Step = Handshake::Step;

void require(bool condition) {
  if (!condition) std::abort();
}

constexpr const char* kName = "db.default.dc1.internal.mesh.test";

struct World {
  test::TestCa ca;
  std::shared_ptr<PskStore> client_psks = std::make_shared<PskStore>(4);
  std::shared_ptr<PskStore> server_psks = std::make_shared<PskStore>(4);
  ContextPtr client;
  ContextPtr server;
  mesh::capture::MeshView view = mesh::test::view_of({"db"});

  World() {
    ContextOptions options;
    options.kernel = false;
    client = *make_context(ca.issue("web"), ca.bundle(), client_psks, 0, options);
    server = *make_context(ca.issue("db"), ca.bundle(), server_psks, 0, options);
  }
};

struct Sockets {
  UniqueFd near;
  UniqueFd far;
  Sockets() {
    int fds[2];
    require(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) == 0);
    near.reset(fds[0]);
    far.reset(fds[1]);
  }
};

bool over(Step step) { return step == Step::Done || step == Step::Failed; }

std::unique_ptr<Handshake> new_server(const World& world, int fd) {
  auto made = server_handshake(
      [&world](std::string_view sni) {
        const auto* service = mesh::capture::service_of_sni(world.view, sni, mesh::test::kServer);
        return service != nullptr ? world.server : nullptr;
      },
      {"mesh"}, fd);
  require(made.has_value());
  return std::move(*made);
}

std::unique_ptr<Handshake> new_client(const World& world, int fd) {
  ClientOptions options;
  options.sni = kName;
  options.alpn = {"mesh"};
  options.expected_node = "node-a";
  options.expected_peer = svid_of(*world.server)->id;
  auto made = client_handshake(world.client, fd, options);
  require(made.has_value());
  return std::move(*made);
}

// Nobody comes in, or is taken for the server, by luck.
void any_bytes(Handshake& handshake, int far, const std::uint8_t* data, std::size_t size) {
  std::array<char, 20'000> out;
  for (std::size_t at = 0; at < size;) {
    const std::size_t part = std::min<std::size_t>(1 + data[at] * 8u, size - at);
    (void)!::send(far, data + at, part, MSG_NOSIGNAL);
    at += part;
    const Step step = handshake.step();
    require(step != Step::Done);
    (void)!::recv(far, out.data(), out.size(), 0);
    if (step == Step::Failed) return;
  }
  ::shutdown(far, SHUT_WR);
  require(handshake.step() == Step::Failed);
  require(!handshake.error().what.empty());
}

void any_bytes_to_server(const World& world, const std::uint8_t* data, std::size_t size) {
  Sockets sockets;
  any_bytes(*new_server(world, sockets.near.get()), sockets.far.get(), data, size);
}

// `data`: what is said, as it is, or (`hello`) behind the beginning of a ServerHello that answers
// this client's: cipher, and extensions with their length, are the data's.
void any_bytes_to_client(const World& world, const std::uint8_t* data, std::size_t size,
                         bool hello) {
  Sockets sockets;
  const auto client = new_client(world, sockets.near.get());
  require(client->step() == Step::WantRead);
  std::array<char, 20'000> said;
  const ssize_t got = ::recv(sockets.far.get(), said.data(), said.size(), 0);
  // Record and message header, version, random, then the length of the session ID.
  constexpr std::size_t kSession = 5 + 4 + 2 + 32;
  require(got > static_cast<ssize_t>(kSession));
  std::string bytes;
  if (hello && size >= 3) {
    const auto session = static_cast<unsigned char>(said[kSession]);
    const std::size_t extensions = std::min<std::size_t>(data[2], size - 3);
    std::string body("\x03\x03", 2);
    body += std::string(32, 'r');
    body.append(said.data() + kSession, 1u + session);
    body += '\x13';
    body += static_cast<char>(data[0]);
    body += '\0';
    body += '\0';
    body += static_cast<char>(extensions);
    body.append(reinterpret_cast<const char*>(data) + 3, extensions);
    const auto u16 = [](std::size_t n) {
      return std::string{static_cast<char>(n >> 8), static_cast<char>(n & 0xff)};
    };
    const std::string message = std::string("\x02\0", 2) + u16(body.size()) + body;
    bytes = std::string("\x16\x03\x03", 3) + u16(message.size()) + message;
    (void)!::send(sockets.far.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    data += 3 + extensions;
    size -= 3 + extensions;
  }
  any_bytes(*client, sockets.far.get(), data, size);
}

// `data`: pairs of (where the next change is, what it is).
void changed_bytes(const World& world, const std::uint8_t* data, std::size_t size) {
  Sockets to_client;
  Sockets to_server;
  const auto client = new_client(world, to_client.near.get());
  const auto server = new_server(world, to_server.near.get());
  Step client_step = Step::WantRead;
  Step server_step = Step::WantRead;
  std::size_t until = size >= 1 ? data[0] * 8u : SIZE_MAX;
  std::size_t next = 1;
  bool changed = false;
  std::array<char, 20'000> bytes;
  for (int turn = 0; turn < 40 && (!over(client_step) || !over(server_step)); ++turn) {
    if (!over(client_step)) client_step = client->step();
    if (!over(server_step)) server_step = server->step();
    for (const bool up : {true, false}) {
      const int from = up ? to_client.far.get() : to_server.far.get();
      const int to = up ? to_server.far.get() : to_client.far.get();
      const ssize_t got = ::recv(from, bytes.data(), bytes.size(), 0);
      if (got <= 0) {
        if ((up ? client_step : server_step) == Step::Failed) ::shutdown(to, SHUT_WR);
        continue;
      }
      std::string part(bytes.data(), static_cast<std::size_t>(got));
      while (until < part.size() && next < size) {
        // The version in a record's header may be anything on the way in (RFC 8446 5.1): not
        // counted, so bytes 1 and 2 of a flight are left alone.
        if (until != 1 && until != 2 && data[next] != 0) {
          part[until] = static_cast<char>(part[until] ^ data[next]);
          changed = true;
        }
        until = next + 1 < size ? until + 1 + data[next + 1] * 4u : SIZE_MAX;
        next += 2;
      }
      until -= std::min(until, part.size());
      (void)!::send(to, part.data(), part.size(), MSG_NOSIGNAL);
    }
  }
  require((client_step == Step::Done && server_step == Step::Done) != changed);
  if (server_step == Step::Done) require(server->peer().id == svid_of(*world.client)->id);
  if (client_step == Step::Done) {
    require(client->peer().id == svid_of(*world.server)->id);
    auto made = client->finish();
    require(made.has_value() && made->stream != nullptr);
  }
  if (server_step == Step::Done) require(server->finish().has_value());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const World world;
  if (size == 0) return 0;
  switch (data[0] % 8) {
    case 0:
    case 1:
      any_bytes_to_server(world, data + 1, size - 1);
      break;
    case 2:
    case 3:
      any_bytes_to_client(world, data + 1, size - 1, data[0] % 8 == 3);
      break;
    case 4:
      world.client_psks->drop_identity(svid_of(*world.client)->id);
      [[fallthrough]];
    default:
      changed_bytes(world, data + 1, size - 1);
  }
  return 0;
}
