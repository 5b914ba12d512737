// SPDX-License-Identifier: Apache-2.0
#include "agent/health/probe.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/health/server.h"

namespace mesh::health {
namespace {

using namespace std::chrono_literals;
using catalog::CheckKind;
using catalog::HealthCheck;
using test::Server;
using ::testing::HasSubstr;
using ::testing::Not;

HealthCheck check_of(CheckKind kind, const std::string& target) {
  HealthCheck check;
  check.kind = kind;
  check.target = target;
  check.timeout = 5s;
  return check;
}

Outcome outcome_of(const HealthCheck& check) {
  boost::asio::io_context io;
  std::optional<Outcome> result;
  Probe::make(io, check, {}, test::plain_socket)->start([&](Outcome o) {
    EXPECT_FALSE(result) << "twice";
    result = std::move(o);
  });
  io.run_for(20s);
  EXPECT_TRUE(result);
  return result.value_or(Outcome{});
}

TEST(HealthProbe, HttpStatusesMeanWhatConsulSaysTheyMean) {
  struct Row {
    const char* answer;
    CheckStatus status;
  };
  for (const auto& [answer, status] : {
           Row{"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", CheckStatus::Passing},
           Row{"HTTP/1.1 204 No Content\r\n\r\n", CheckStatus::Passing},
           Row{"HTTP/1.0 200 OK\r\n\r\nuntil the end", CheckStatus::Passing},
           Row{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
               CheckStatus::Passing},
           Row{"HTTP/1.1 429 Slow\r\nContent-Length: 0\r\n\r\n", CheckStatus::Warning},
           Row{"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n", CheckStatus::Critical},
           Row{"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n", CheckStatus::Critical},
           Row{"HTTP/1.1 503 No\r\nContent-Length: 4\r\n\r\nsick", CheckStatus::Critical},
           Row{"HTTP/1.1 200 OK\r\nContent-Length: 200\r\n\r\ncut", CheckStatus::Critical},
           Row{"SSH-2.0-OpenSSH\r\n", CheckStatus::Critical},
       }) {
    Server server([answer = answer](const std::string&) { return answer; });
    const auto outcome = outcome_of(check_of(CheckKind::Http, "http://" + server.at() + "/h"));
    EXPECT_EQ(outcome.status, status) << answer << outcome.output;
  }
}

TEST(HealthProbe, HttpSendsWhatTheDefinitionSays) {
  std::string seen;
  Server server([&](const std::string& request) {
    seen = request;
    return std::string("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine");
  });
  auto check = check_of(CheckKind::Http, "http://" + server.at() + "/health?deep");
  check.method = "POST";
  check.body = "are you well";
  check.header = {{"X-Token", {"a", "b"}}, {"Host", {"named.example"}}};
  EXPECT_THAT(outcome_of(check).output, HasSubstr("200 Output: fine"));
  EXPECT_THAT(seen, ::testing::StartsWith("POST /health?deep HTTP/1.1\r\n"));
  for (const auto* part : {"X-Token: a\r\n", "X-Token: b\r\n", "Host: named.example\r\n",
                           "Content-Length: 12\r\n", "\r\n\r\nare you well"})
    EXPECT_THAT(seen, HasSubstr(part));
}

TEST(HealthProbe, TheServerNameIsNeverAnAddress) {
  std::string hello;
  Server server([&](const std::string& bytes) {
    hello = bytes;
    return std::string("no TLS");
  });
  auto check = check_of(CheckKind::Http, "https://" + server.at() + "/");
  (void)outcome_of(check);
  EXPECT_EQ(hello.front(), '\x16');
  EXPECT_THAT(hello, Not(HasSubstr("127.0.0.1")));
  check.tls_server_name = "named.example";
  (void)outcome_of(check);
  EXPECT_THAT(hello, HasSubstr("named.example"));
}

TEST(HealthProbe, ConnectsBySocketsOfTheWorkloadsNamespaceOnly) {
  Server server([](const std::string&) { return std::string("HTTP/1.1 200 OK\r\n\r\n"); });
  // One that epoll refuses, as it refuses every socket beyond the user's max_user_watches.
  constexpr int kClosed = 900;
  ASSERT_EQ(::fcntl(kClosed, F_GETFD), -1);
  for (const std::string scheme : {"http://", "https://"}) {
    boost::asio::io_context io;
    std::optional<Outcome> result;
    Probe::make(io, check_of(CheckKind::Http, scheme + server.at()), {}, [&](const Endpoint&) {
      return Result<UniqueFd>(UniqueFd(kClosed));
    })->start([&](Outcome o) { result = std::move(o); });
    io.run_for(20s);
    ASSERT_TRUE(result);
    EXPECT_EQ(result->status, CheckStatus::Critical);
    EXPECT_THAT(result->output, HasSubstr("Bad file descriptor"));
  }
  EXPECT_EQ(server.asked(), 0u);
}

TEST(HealthProbe, RedirectsAreFollowedFiveTimesAndNotToStrangers) {
  Server good([](const std::string& request) {
    return request.starts_with("GET /start")
               ? std::string("HTTP/1.1 302 F\r\nLocation: /end\r\nContent-Length: 0\r\n\r\n")
               : std::string("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
  });
  auto check = check_of(CheckKind::Http, "http://" + good.at() + "/start");
  EXPECT_EQ(outcome_of(check).status, CheckStatus::Passing);
  EXPECT_EQ(good.asked(), 2u);
  check.follow_redirects = false;
  EXPECT_EQ(outcome_of(check).status, CheckStatus::Critical);
  Server loop([](const std::string&) {
    return std::string("HTTP/1.1 302 F\r\nLocation: /\r\nContent-Length: 0\r\n\r\n");
  });
  EXPECT_THAT(outcome_of(check_of(CheckKind::Http, "http://" + loop.at())).output,
              HasSubstr("redirects"));
  EXPECT_EQ(loop.asked(), 6u);
  Server stranger([](const std::string&) {
    return std::string(
        "HTTP/1.1 302 F\r\nLocation: http://192.0.2.1/\r\nContent-Length: 0\r\n\r\n");
  });
  EXPECT_THAT(outcome_of(check_of(CheckKind::Http, "http://" + stranger.at())).output,
              HasSubstr("not an address of the workload"));
}

TEST(HealthProbe, TcpIsAboutTheConnection) {
  std::string at;
  {
    Server server([](const std::string&) { return std::string("x"); });
    at = server.at();
    EXPECT_EQ(outcome_of(check_of(CheckKind::Tcp, at)).status, CheckStatus::Passing);
  }
  EXPECT_EQ(outcome_of(check_of(CheckKind::Tcp, at)).status, CheckStatus::Critical);
}

TEST(HealthProbe, NoAnswerInTimeIsCritical) {
  Server server([](const std::string&) { return std::string(); });
  for (const auto kind : {CheckKind::Http, CheckKind::Grpc}) {
    auto check = check_of(kind, (kind == CheckKind::Http ? "http://" : "") + server.at());
    check.timeout = 200ms;
    const auto outcome = outcome_of(check);
    EXPECT_EQ(outcome.status, CheckStatus::Critical);
    EXPECT_EQ(outcome.output, "no answer in time");
  }
}

TEST(HealthProbe, WhatIsNoHttp2IsCritical) {
  Server server([](const std::string&) {
    return std::string("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
  });
  EXPECT_EQ(outcome_of(check_of(CheckKind::Grpc, server.at())).status, CheckStatus::Critical);
  // TLS to a server that has none.
  auto check = check_of(CheckKind::Tcp, server.at());
  check.tls = true;
  EXPECT_THAT(outcome_of(check).output, HasSubstr("TLS"));
}

TEST(HealthProbe, ACancelledProbeSaysNothing) {
  Server server([](const std::string&) { return std::string(); });
  boost::asio::io_context io;
  auto probe =
      Probe::make(io, check_of(CheckKind::Http, "http://" + server.at()), {}, test::plain_socket);
  probe->start([](Outcome) { ADD_FAILURE() << "called"; });
  io.run_for(100ms);
  probe->cancel();
  io.run_for(100ms);
  EXPECT_TRUE(io.stopped()) << "nothing is left to wait for";
}

}  // namespace
}  // namespace mesh::health
