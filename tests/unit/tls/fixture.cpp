// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/tls/fixture.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <random>

namespace mesh::ktls::test {
namespace {

using Clock = std::chrono::steady_clock;

std::span<const std::byte> bytes_of(std::string_view text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

}  // namespace

TcpPair tcp_pair(int buffer) {
  UniqueFd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof(address);
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  TcpPair pair;
  pair.client.reset(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  for (const int fd : {listener.get(), pair.client.get()}) {
    if (buffer == 0) break;
    EXPECT_EQ(::setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof(buffer)), 0);
    EXPECT_EQ(::setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof(buffer)), 0);
  }
  EXPECT_EQ(::bind(listener.get(), generic, length), 0);
  EXPECT_EQ(::listen(listener.get(), 1), 0);
  EXPECT_EQ(::getsockname(listener.get(), generic, &length), 0);
  EXPECT_EQ(::connect(pair.client.get(), generic, length), 0);
  pair.server.reset(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  EXPECT_TRUE(pair.server.valid());
  EXPECT_EQ(::fcntl(pair.client.get(), F_SETFL, O_NONBLOCK), 0);
  return pair;
}

bool wait_for(int fd, short events, std::chrono::milliseconds limit) {
  pollfd entry{fd, events, 0};
  return ::poll(&entry, 1, static_cast<int>(limit.count())) == 1;
}

Outcome drive(Handshake& client, Handshake& server, TcpPair& pair) {
  using Step = Handshake::Step;
  const auto over = [](Step step) { return step == Step::Done || step == Step::Failed; };
  const auto end = Clock::now() + kPatience;
  Outcome outcome{Step::WantRead, Step::WantRead};
  while (!over(outcome.client) || !over(outcome.server)) {
    if (Clock::now() > end) {
      ADD_FAILURE() << "the handshake hangs";
      break;
    }
    const Outcome before = outcome;
    if (!over(outcome.client)) outcome.client = client.step();
    if (!over(outcome.server)) outcome.server = server.step();
    // A side that failed is closed by whoever owns it; the other one must not wait for it.
    if (outcome.client == Step::Failed) ::shutdown(pair.client.get(), SHUT_RDWR);
    if (outcome.server == Step::Failed) ::shutdown(pair.server.get(), SHUT_RDWR);
    if (before.client == outcome.client && before.server == outcome.server) {
      pollfd entries[2] = {
          {pair.client.get(), static_cast<short>(over(outcome.client) ? 0 : POLLIN), 0},
          {pair.server.get(), static_cast<short>(over(outcome.server) ? 0 : POLLIN), 0}};
      ::poll(entries, 2, 10);
    }
  }
  return outcome;
}

static std::uint64_t epoch_of(const std::optional<std::uint64_t>& given,
                              const std::shared_ptr<PskStore>& psks) {
  return given.value_or(psks ? psks->epoch() : 0);
}

ContextPtr Scene::client_context() const {
  auto context = make_context(client_svid, client_bundle, client_psks,
                              epoch_of(client_epoch, client_psks), client_options);
  EXPECT_TRUE(context) << context.error().what;
  return context ? *context : nullptr;
}

ContextPtr Scene::server_context() const {
  auto context = make_context(server_svid, server_bundle, server_psks,
                              epoch_of(server_epoch, server_psks), server_options);
  EXPECT_TRUE(context) << context.error().what;
  return context ? *context : nullptr;
}

ClientOptions Scene::client_target() const { return {sni, client_alpn, "node-a", server_svid->id}; }

Ends::Ends(const Scene& scene, int buffer) : pair(tcp_pair(buffer)) {
  auto made_client =
      client_handshake(scene.client_context(), pair.client.get(), scene.client_target());
  EXPECT_TRUE(made_client) << made_client.error().what;
  auto made_server =
      server_handshake([context = scene.server_context(), name = scene.sni](
                           std::string_view sni) { return sni == name ? context : nullptr; },
                       scene.server_alpn, pair.server.get());
  EXPECT_TRUE(made_server) << made_server.error().what;
  client = std::move(*made_client);
  server = std::move(*made_server);
}

std::optional<Connected> connect(const Scene& scene, int buffer) {
  Ends ends(scene, buffer);
  const Outcome outcome = ends.run();
  if (outcome.client != Handshake::Step::Done || outcome.server != Handshake::Step::Done) {
    ADD_FAILURE() << "client: " << ends.client->error().what
                  << ", server: " << ends.server->error().what;
    return std::nullopt;
  }
  auto client = ends.client->finish();
  auto server = ends.server->finish();
  if (!client || !server) {
    ADD_FAILURE() << (client ? "" : client.error().what) << (server ? "" : server.error().what);
    return std::nullopt;
  }
  return Connected{std::move(ends.pair), std::move(*client), std::move(*server)};
}

bool write_all(Stream& stream, int fd, std::string_view data) {
  const auto end = Clock::now() + kPatience;
  while (!data.empty() || stream.unsent()) {
    if (Clock::now() > end) return false;
    const Io io = data.empty() ? stream.flush(fd) : stream.write(fd, bytes_of(data));
    if (io.kind == Io::Kind::Failed) return false;
    if (io.kind == Io::Kind::Bytes && !data.empty()) data.remove_prefix(io.bytes);
    if (io.kind == Io::Kind::Blocked) (void)wait_for(fd, POLLOUT);
  }
  return true;
}

std::string read_some(Stream& stream, int fd, std::size_t size) {
  const auto end = Clock::now() + kPatience;
  std::string data(size, '\0');
  std::size_t have = 0;
  while (have < size && Clock::now() < end) {
    const Io io = stream.read(fd, std::as_writable_bytes(std::span(data)).subspan(have));
    if (io.kind == Io::Kind::Bytes) {
      have += io.bytes;
    } else if (io.kind == Io::Kind::Blocked) {
      EXPECT_FALSE(stream.buffered());
      (void)wait_for(fd, POLLIN);
    } else {
      break;
    }
  }
  data.resize(have);
  return data;
}

Io read_end(Stream& stream, int fd) {
  const auto end = Clock::now() + kPatience;
  std::byte buffer[4096];
  while (Clock::now() < end) {
    const Io io = stream.read(fd, buffer);
    if (io.kind == Io::Kind::Eof || io.kind == Io::Kind::Failed) return io;
    if (io.kind == Io::Kind::Blocked) (void)wait_for(fd, POLLIN);
  }
  return {};
}

bool close_writing(Stream& stream, int fd) {
  const auto end = Clock::now() + kPatience;
  while (Clock::now() < end) {
    const Io io = stream.close_notify(fd);
    if (io.kind == Io::Kind::Failed) return false;
    if (io.kind == Io::Kind::Bytes) return ::shutdown(fd, SHUT_WR) == 0;
    (void)wait_for(fd, POLLOUT);
  }
  return false;
}

std::string pattern(std::size_t size, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::string data(size + 8, '\0');
  for (std::size_t at = 0; at < size; at += 8) {
    const std::uint64_t word = random();
    std::memcpy(data.data() + at, &word, sizeof(word));
  }
  data.resize(size);
  return data;
}

}  // namespace mesh::ktls::test
