// SPDX-License-Identifier: Apache-2.0
// Our two sides against the openssl program, which sends tickets after the handshake. The parameter
// says whether the kernel makes our records.
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <cstdlib>
#include <fstream>

#include "tests/support/process.h"
#include "tests/support/scratch.h"
#include "tests/unit/tls/interop_suite.h"

namespace mesh::ktls::test {

using mesh::test::Process;

void InteropSuite::SetUp() {
  if (GetParam()) {
    if (const auto able = probe_kernel_tls(); !able) {
      if (std::getenv("MESH_VM") != nullptr) FAIL() << able.error().what;
      GTEST_SKIP() << "this kernel takes no TLS keys: " << able.error().what;
    }
  }
  scene_.client_options.kernel = scene_.server_options.kernel = GetParam();
  auto made =
      mesh::test::ScratchDir::create(::testing::TempDir() + "/" + mesh::test::scratch_name("tls"));
  ASSERT_TRUE(made) << made.error().what;
  dir_.emplace(std::move(*made));
  file("root.pem", scene_.ca.root_pem());
}

std::string InteropSuite::file(const std::string& name, const std::string& text) {
  const std::string path = dir_->path() + "/" + name;
  std::ofstream(path) << text;
  return path;
}

std::vector<std::string> InteropSuite::identity(const TestCa::Leaf& leaf) {
  const TestCa::Pem pem = scene_.ca.issue_pem(leaf);
  return {"-cert",       file("leaf.pem", pem.leaf),     "-key",    file("key.pem", pem.key),
          "-cert_chain", file("issuer.pem", pem.issuer), "-CAfile", dir_->path() + "/root.pem"};
}

namespace {

using Step = Handshake::Step;

Step run_alone(Handshake& handshake, int fd) {
  const auto end = std::chrono::steady_clock::now() + kPatience;
  while (std::chrono::steady_clock::now() < end) {
    const Step step = handshake.step();
    if (step == Step::Done || step == Step::Failed) return step;
    (void)wait_for(fd, step == Step::WantRead ? POLLIN : POLLOUT, std::chrono::milliseconds(500));
  }
  return Step::WantRead;
}

struct Listener {
  UniqueFd fd;
  std::uint16_t port = 0;
};

Listener listener() {
  Listener made{UniqueFd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0))};
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof(address);
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  EXPECT_EQ(::bind(made.fd.get(), generic, length), 0);
  EXPECT_EQ(::listen(made.fd.get(), 4), 0);
  EXPECT_EQ(::getsockname(made.fd.get(), generic, &length), 0);
  made.port = ntohs(address.sin_port);
  return made;
}

TEST_P(InteropSuite, ClientSurvivesTheTicketsOfOpensslsServer) {
  TestCa::Leaf leaf;
  leaf.service = "db";
  std::vector<std::string> argv{
      "openssl", "s_server", "-accept", "127.0.0.1:0",          "-tls1_3",
      "-Verify", "3",        "-rev",    "-verify_return_error", "-num_tickets",
      "5",       "-alpn",    "mesh"};
  for (const std::string& part : identity(leaf)) argv.push_back(part);
  auto server = Process::spawn(argv, {});
  ASSERT_TRUE(server) << server.error().what;
  ASSERT_TRUE(server->wait_output("ACCEPT 127.0.0.1:", kPatience)) << server->err();
  ASSERT_TRUE(server->wait_lines(2, kPatience)) << server->out();
  const std::string out = server->out();
  const std::size_t colon = out.find("127.0.0.1:");
  ASSERT_NE(colon, std::string::npos) << out;
  const int port = std::atoi(out.c_str() + colon + 10);

  const UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  ASSERT_EQ(::connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  ASSERT_EQ(::fcntl(fd.get(), F_SETFL, O_NONBLOCK), 0);
  scene_.client_alpn = {"mesh"};
  auto client = client_handshake(scene_.client_context(), fd.get(), scene_.client_target());
  ASSERT_TRUE(client);
  ASSERT_EQ(run_alone(**client, fd.get()), Step::Done) << (*client)->error().what;
  EXPECT_EQ((*client)->peer().id, scene_.ca.id("db"));
  EXPECT_EQ((*client)->alpn(), "mesh");
  auto made = (*client)->finish();
  ASSERT_TRUE(made) << made.error().what;
  ASSERT_EQ(made->kernel, GetParam()) << made->not_kernel;
  for (int i = 0; i < 200; ++i) {
    const std::string line = "line " + std::to_string(i) + std::string(i * 40, '.');
    ASSERT_TRUE(write_all(*made->stream, fd.get(), line + "\n"));
    ASSERT_EQ(read_some(*made->stream, fd.get(), line.size() + 1),
              std::string(line.rbegin(), line.rend()) + "\n");
  }
  // Five tickets and 200 lines.
  EXPECT_EQ(made->stream->info(fd.get()).records_received, 205u);
  EXPECT_TRUE(close_writing(*made->stream, fd.get()));
  EXPECT_NE(read_end(*made->stream, fd.get()).kind, Io::Kind::Blocked);
}

TEST_P(InteropSuite, ServerTalksToOpensslsClient) {
  const Listener listening = listener();
  std::vector<std::string> argv{"openssl",
                                "s_client",
                                "-connect",
                                "127.0.0.1:" + std::to_string(listening.port),
                                "-servername",
                                scene_.sni,
                                "-tls1_3",
                                "-quiet",
                                "-verify_return_error",
                                "-alpn",
                                "other,mesh"};
  for (const std::string& part : identity({})) argv.push_back(part);
  mesh::test::SpawnOptions options;
  options.stdin_text = "hello from openssl\n";
  auto client = Process::spawn(argv, options);
  ASSERT_TRUE(client) << client.error().what;
  const UniqueFd fd(::accept4(listening.fd.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
  ASSERT_TRUE(fd.valid());
  auto server =
      server_handshake([context = scene_.server_context()](std::string_view) { return context; },
                       {"mesh"}, fd.get());
  ASSERT_TRUE(server);
  ASSERT_EQ(run_alone(**server, fd.get()), Step::Done) << (*server)->error().what;
  EXPECT_EQ((*server)->peer().id, scene_.ca.id("web"));
  EXPECT_EQ((*server)->sni(), scene_.sni);
  EXPECT_EQ((*server)->alpn(), "mesh");
  auto made = (*server)->finish();
  ASSERT_TRUE(made);
  EXPECT_EQ(read_some(*made->stream, fd.get(), 19), "hello from openssl\n");
  const std::string answer = pattern(70'000, 4);
  ASSERT_TRUE(write_all(*made->stream, fd.get(), answer));
  ASSERT_TRUE(close_writing(*made->stream, fd.get()));
  auto status = client->wait(kPatience);
  ASSERT_TRUE(status) << status.error().what;
  EXPECT_TRUE(status->ok()) << client->err();
  EXPECT_TRUE(client->out() == answer) << client->out().size();
}

TEST_P(InteropSuite, ClientsThatMustNotComeInAreTold) {
  struct Case {
    std::vector<std::string> extra;
    bool with_identity;
    HandshakeFailure reason;
  };
  TestCa::Leaf large;
  large.padding = 40'000;
  const std::vector<std::string> too_large = identity(large);
  std::vector<Case> cases{
      {too_large, false, HandshakeFailure::TooLarge},  // first: the others write the same files
      {{"-tls1_3"}, false, HandshakeFailure::Certificate},
      {{"-tls1_2"}, true, HandshakeFailure::Protocol},
      {{"-noservername"}, true, HandshakeFailure::Sni},
      {{"-maxfraglen", "512"}, true, HandshakeFailure::FragmentLength},
  };
  for (const Case& refused : cases) {
    const Listener listening = listener();
    std::vector<std::string> argv{"openssl", "s_client", "-connect",
                                  "127.0.0.1:" + std::to_string(listening.port)};
    for (const std::string& part : refused.extra) argv.push_back(part);
    if (refused.extra.front() != "-noservername") {
      argv.insert(argv.end(), {"-servername", scene_.sni});
    }
    TestCa::Leaf plain;
    if (refused.with_identity) {
      for (const std::string& part : identity(plain)) argv.push_back(part);
    }
    auto client = Process::spawn(argv, {});
    ASSERT_TRUE(client) << client.error().what;
    const UniqueFd fd(
        ::accept4(listening.fd.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    auto server = server_handshake(
        [context = scene_.server_context()](std::string_view) { return context; }, {}, fd.get());
    ASSERT_TRUE(server);
    EXPECT_EQ(run_alone(**server, fd.get()), Step::Failed);
    EXPECT_EQ((*server)->error().reason, refused.reason)
        << refused.extra.front() << ": " << (*server)->error().what;
    if (refused.reason == HandshakeFailure::Certificate) {
      EXPECT_EQ((*server)->error().certificate, PeerReject::NoCertificate);
    }
    if (refused.reason == HandshakeFailure::FragmentLength) {
      auto status = client->wait(kPatience);
      ASSERT_TRUE(status) << status.error().what;
      EXPECT_FALSE(status->ok());
      EXPECT_NE(client->err().find("alert handshake failure"), std::string::npos) << client->err();
    }
  }
}

}  // namespace
}  // namespace mesh::ktls::test
