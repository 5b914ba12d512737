// SPDX-License-Identifier: Apache-2.0
#include "agent/admin/kernel_report.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/base/netns.h"

namespace mesh::admin {
namespace {

using nlohmann::json;
using namespace std::chrono_literals;

// A connection of this process, in its own namespace.
class KernelReportTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const SockAddr any({*Address::parse("127.0.0.1"), 0});
    UniqueFd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    ASSERT_EQ(::bind(listener.get(), any.get(), any.length), 0);
    ASSERT_EQ(::listen(listener.get(), 1), 0);
    client_ = UniqueFd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const SockAddr to(*local_endpoint(listener.get()));
    ASSERT_EQ(::connect(client_.get(), to.get(), to.length), 0);
    server_ = UniqueFd(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    leg_ = {*netns_cookie(client_.get()),
            {*local_endpoint(client_.get()), *peer_endpoint(client_.get())}};
    directory_.publish({{*Address::parse("10.0.1.2"),
                         std::make_shared<capture::NetnsHandle>(leg_.netns, *open_own_netns())}});
  }
  json leg(const KernelReport& report) const {
    json into = json::object();
    report.put(leg_, into);
    return into;
  }
  json own_namespace(const KernelReport& report) const {
    return report.namespaces().at(std::to_string(leg_.netns));
  }

  UniqueFd client_;
  UniqueFd server_;
  LegSocket leg_;
  capture::NetnsDirectory directory_;
};

TEST_F(KernelReportTest, ASocketWithoutAUlpHasNull) {
  KernelReport report;
  report.ask(directory_, std::span(&leg_, 1));
  if (::geteuid() != 0) {
    // Not even setns(2).
    EXPECT_TRUE(leg(report).contains("ulp_unknown")) << leg(report);
    EXPECT_TRUE(own_namespace(report).contains("tls_stat_unknown"));
    return;
  }
  EXPECT_EQ(leg(report), (json{{"ulp", nullptr}}));
  const bool counts = ::access("/proc/net/tls_stat", F_OK) == 0;
  EXPECT_EQ(own_namespace(report).contains("tls_stat"), counts);
  EXPECT_FALSE(own_namespace(report).contains("tls_stat_unknown")) << own_namespace(report);
}

TEST_F(KernelReportTest, OfANamespaceThatIsGoneNothingIsKnown) {
  KernelReport report;
  directory_.publish({});
  report.ask(directory_, std::span(&leg_, 1));
  const std::string why = "its network namespace is no pod's any more";
  EXPECT_EQ(leg(report), (json{{"ulp_unknown", why}}));
  EXPECT_EQ(own_namespace(report), (json{{"tls_stat_unknown", why}}));
}

TEST_F(KernelReportTest, AnotherConnectionsAnswerIsNotTaken) {
  KernelReport report;
  LegSocket other = leg_;
  other.tuple.local.port = 1;
  report.ask(directory_, std::span(&other, 1));
  EXPECT_EQ(leg(report), (json{{"ulp_unknown", "not asked"}}));
  json into;
  report.put(other, into);
  EXPECT_FALSE(into.contains("ulp")) << into;
  EXPECT_TRUE(into.contains("ulp_unknown")) << into;
}

TEST_F(KernelReportTest, WhatIsBeyondTheTimeIsUnknown) {
  KernelReport report;
  report.ask(directory_, std::span(&leg_, 1), 0ms);
  const std::string why = "not asked: the others took the time there is";
  EXPECT_EQ(leg(report), (json{{"ulp_unknown", why}}));
  EXPECT_EQ(own_namespace(report), (json{{"tls_stat_unknown", why}}));
}

TEST_F(KernelReportTest, WithoutLegsNobodyIsAsked) {
  KernelReport report;
  report.ask(directory_, {});
  EXPECT_EQ(report.namespaces(), json::object());
}

TEST(TlsStat, HasTheKernelsNamesAndNumbers) {
  EXPECT_EQ(
      parse_tls_stat("TlsCurrTxSw                     \t3\n"
                     "TlsCurrRxSw                     \t18446744073709551615\n"
                     "TlsDecryptError                 \t0\n"),
      (json{{"TlsCurrTxSw", 3}, {"TlsCurrRxSw", 18446744073709551615u}, {"TlsDecryptError", 0}}));
}

TEST(TlsStat, LeavesOutWhatIsNoCounter) {
  EXPECT_EQ(parse_tls_stat("TlsTxSw\t1\nnonsense\n\nTlsRxSw \t-1\nTlsRxDevice \t2x\nTlsTxDevice 4"),
            (json{{"TlsTxSw", 1}, {"TlsTxDevice", 4}}));
  EXPECT_EQ(parse_tls_stat(""), json());
}

}  // namespace
}  // namespace mesh::admin
