// SPDX-License-Identifier: Apache-2.0
// Answers as etcd 3.4's gateway gives them, and those that it would never give.
#include "agent/store/etcd_codec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "agent/store/base64.h"

namespace mesh::store::etcd {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

constexpr std::string_view kHeader =
    R"("header":{"cluster_id":"14841639068965178418","member_id":"10276657743932975437","revision":"7","raft_term":"2"})";

std::string with_header(const std::string& rest) {
  return fmt::format("{{{}{}}}", kHeader, rest.empty() ? "" : "," + rest);
}

TEST(Base64, IsTheInverseOfItself) {
  std::string bytes;
  for (int i = 0; i < 300; ++i) {
    EXPECT_EQ(from_base64(base64(bytes)), bytes);
    bytes += static_cast<char>(i * 7);
  }
  EXPECT_EQ(base64("foobar"), "Zm9vYmFy");
  EXPECT_EQ(base64("fooba"), "Zm9vYmE=");
  EXPECT_EQ(base64("foob"), "Zm9vYg==");
  for (const char* text : {"Z", "Zg", "Zg=", "Z===", "====", "Zm9v====", "Zg==Zg==", "Zh==",
                           "Zm9vYmF=", "Zm-v", "Zm9 ", "=m9v"})
    EXPECT_FALSE(from_base64(text)) << text;
}

TEST(EtcdCodec, EndsRangesBehindTheLastKeyWithThePrefix) {
  EXPECT_EQ(range_end("a/"), "a0");
  EXPECT_EQ(range_end("a\xff"), "b");
  EXPECT_EQ(range_end("\xff\xff"), std::string(1, '\0'));
  EXPECT_EQ(range_end(""), std::string(1, '\0'));
}

TEST(EtcdCodec, ReadsARange) {
  auto range = read_range(with_header(
      R"("kvs":[{"key":"YQ==","create_revision":"2","mod_revision":"3","version":"1","value":"YmFy","lease":"-5"},
                {"key":"Yg==","create_revision":"2","mod_revision":"3","version":"1"}],"more":true,"count":"9")"));
  ASSERT_TRUE(range) << range.error().what;
  EXPECT_EQ(range->header.cluster, 14841639068965178418u);
  EXPECT_EQ(range->header.revision, 7);
  EXPECT_EQ(range->header.term, 2u);
  EXPECT_TRUE(range->more);
  ASSERT_EQ(range->entries.size(), 2u);
  EXPECT_EQ(range->entries[0].key, "a");
  EXPECT_EQ(range->entries[0].value, "bar");
  EXPECT_EQ(range->entries[0].created, 2);
  EXPECT_EQ(range->entries[0].modified, 3);
  EXPECT_EQ(range->entries[0].lease, -5);
  EXPECT_EQ(range->entries[1].value, "");
  auto empty = read_range(with_header(""));
  ASSERT_TRUE(empty);
  EXPECT_TRUE(empty->entries.empty());
  EXPECT_FALSE(empty->more);
}

TEST(EtcdCodec, RefusesWhatIsNoRange) {
  for (const auto& text :
       {std::string(), std::string("{"), std::string("[]"), std::string("null"), std::string("{}"),
        std::string(R"({"header":[]})"), std::string(R"({"header":{"revision":"x"}})"),
        std::string(R"({"header":{"revision":"-1"}})"),
        std::string(R"({"header":{"revision":"99999999999999999999"}})"),
        std::string(R"({"header":{"revision":1.5}})"), with_header(R"("more":1)"),
        with_header(R"("kvs":{})"), with_header(R"("kvs":[1])"),
        with_header(R"("kvs":[{"key":1}])"), with_header(R"("kvs":[{"key":"%%%%"}])"),
        with_header(R"("kvs":[{"key":"YQ==","value":"Y"}])"),
        with_header(R"("kvs":[{"key":"YQ==","mod_revision":"-1"}])")})
    EXPECT_FALSE(read_range(text)) << text;
}

TEST(EtcdCodec, MarksValuesThatAreTooLarge) {
  for (const auto& [size, large] :
       {std::pair{kMaxValueBytes, false}, std::pair{kMaxValueBytes + 1, true},
        std::pair{2 * kMaxValueBytes, true}}) {
    auto range = read_range(with_header(R"("kvs":[{"key":"YQ==","value":")" +
                                        base64(std::string(size, 'x')) + R"("}])"));
    ASSERT_TRUE(range);
    EXPECT_EQ(range->entries[0].too_large, large) << size;
    EXPECT_EQ(range->entries[0].value.size(), large ? 0 : size);
  }
}

TEST(EtcdCodec, ReadsWhatATransactionFound) {
  auto done = read_txn(with_header(
      R"("succeeded":true,"responses":[{"response_put":{"header":{"revision":"4"}}}])"));
  ASSERT_TRUE(done);
  EXPECT_TRUE(done->succeeded);
  auto lost = read_txn(with_header(
      R"("responses":[{"response_range":{"header":{"revision":"4"},"kvs":[{"key":"YQ==","mod_revision":"4","value":"eA=="}],"count":"1"}}])"));
  ASSERT_TRUE(lost);
  EXPECT_FALSE(lost->succeeded);
  ASSERT_EQ(lost->present.size(), 1u);
  EXPECT_EQ(lost->present[0].value, "x");
}

TEST(EtcdCodec, WritesWhatTheGatewayReads) {
  const auto txn =
      json::parse(txn_request("p/", {{{"a", 0}}, {{"a", "1", 9}}, {"b"}, {{"c/", "c0", 41}}}));
  EXPECT_EQ(txn["compare"][0]["key"], base64("p/a"));
  EXPECT_EQ(txn["compare"][0]["target"], "MOD");
  EXPECT_EQ(txn["compare"][1]["key"], base64("p/c/"));
  EXPECT_EQ(txn["compare"][1]["range_end"], base64("p/c0"));
  EXPECT_EQ(txn["compare"][1]["result"], "LESS");
  EXPECT_EQ(txn["compare"][1]["mod_revision"], "42");
  EXPECT_EQ(txn["success"][0]["request_put"]["lease"], "9");
  EXPECT_EQ(txn["success"][1]["request_delete_range"]["key"], base64("p/b"));
  ASSERT_EQ(txn["failure"].size(), 1u);
  EXPECT_EQ(txn["failure"][0]["request_range"]["key"], base64("p/a"));
  const auto watch = json::parse(watch_request("p/", 12));
  EXPECT_EQ(watch["create_request"]["start_revision"], "12");
  EXPECT_EQ(watch["create_request"]["range_end"], base64("p0"));
  // Neither may break out of the text.
  EXPECT_TRUE(json::parse(login_request("a\"\\\n", "\xff\""), nullptr, false).is_object());
}

TEST(EtcdCodec, ReadsLeases) {
  auto lease = read_grant(with_header(R"("ID":"2324035670804896779","TTL":"5")"));
  ASSERT_TRUE(lease);
  EXPECT_EQ(lease->id, 2324035670804896779);
  EXPECT_FALSE(read_grant(with_header("")));
  auto left = read_renewal("{\"result\":" + with_header(R"("ID":"1","TTL":"4")") + "}\n");
  ASSERT_TRUE(left);
  EXPECT_EQ(left->ttl, std::chrono::seconds(4));
  auto gone = read_renewal("{\"result\":" + with_header(R"("ID":"1")") + "}");
  ASSERT_TRUE(gone);
  EXPECT_EQ(gone->ttl, std::chrono::seconds(0));
  auto error = read_renewal(R"({"error":{"grpc_code":16,"message":"no"}})");
  ASSERT_FALSE(error);
  EXPECT_THAT(error.error().what, HasSubstr("no"));
}

TEST(EtcdCodec, ReadsErrorsInEveryShape) {
  auto plain = read_error(
      400,
      R"({"error":"etcdserver: mvcc: required revision has been compacted","message":"etcdserver: mvcc: required revision has been compacted","code":11})");
  EXPECT_EQ(plain.code, 11);
  EXPECT_EQ(plain.message, "etcdserver: mvcc: required revision has been compacted");
  auto stream = read_error(
      200, R"({"error":{"grpc_code":14,"http_code":503,"message":"etcdserver: no leader"}})");
  EXPECT_EQ(stream.code, 14);
  EXPECT_EQ(stream.message, "etcdserver: no leader");
  EXPECT_TRUE(
      read_error(401, R"({"error":"etcdserver: invalid auth token","code":16})").wants_login());
  EXPECT_TRUE(read_error(404, R"({"message":"etcdserver: requested lease not found","code":5})")
                  .lease_is_gone());
  EXPECT_EQ(read_error(404, "Not Found").message, "HTTP status 404");
  EXPECT_EQ(read_error(500, R"({"error":"a\nb"})").message, "a\\x0ab");
}

TEST(EtcdCodec, TakesOnlyTokensThatAHeaderMayHold) {
  EXPECT_EQ(*read_token(R"({"token":"abc.12-_/+=~"})"), "abc.12-_/+=~");
  for (const char* text : {R"({"token":""})", R"({"token":"a\r\nX: y"})", R"({"token":1})", "{}"})
    EXPECT_FALSE(read_token(text)) << text;
}

TEST(EtcdCodec, ReadsAWatchLineByLine) {
  LineReader lines(1000);
  ASSERT_TRUE(lines.feed("{\"a\":1}\n\n{\"b\""));
  EXPECT_EQ(lines.next(), "{\"a\":1}");
  EXPECT_EQ(lines.next(), std::nullopt);
  ASSERT_TRUE(lines.feed(":2}\n"));
  EXPECT_EQ(lines.next(), "{\"b\":2}");
  EXPECT_EQ(lines.next(), std::nullopt);
  EXPECT_TRUE(lines.feed(std::string(1000, 'x')));
  EXPECT_EQ(lines.next(), std::nullopt);
  EXPECT_FALSE(lines.feed("x"));
}

std::string event(const std::string& key, int revision, bool deleted = false) {
  return fmt::format(R"({{{}"kv":{{"key":"{}","mod_revision":"{}"}}}})",
                     deleted ? R"("type":"DELETE",)" : "", base64(key), revision);
}

WatchAnswer answer(const std::string& rest) {
  auto read = read_watch("{\"result\":" + with_header(rest) + "}");
  EXPECT_TRUE(read);
  return read ? *read : WatchAnswer{};
}

TEST(EtcdCodec, TellsWhyAWatchWasCanceled) {
  EXPECT_TRUE(answer(R"("created":true)").created);
  auto compacted = answer(R"("canceled":true,"compact_revision":"4")");
  EXPECT_TRUE(compacted.canceled);
  EXPECT_EQ(compacted.compacted, 4);
  EXPECT_EQ(answer(R"("canceled":true,"cancel_reason":"why")").reason, "why");
  auto error = read_watch(R"({"error":{"grpc_code":14,"message":"etcdserver: no leader"}})");
  ASSERT_TRUE(error);
  EXPECT_TRUE(error->canceled);
  EXPECT_EQ(error->reason, "etcdserver: no leader");
  for (const char* text : {"{}", R"({"result":{}})", R"({"result":[]})", "x"})
    EXPECT_FALSE(read_watch(text)) << text;
  EXPECT_FALSE(read_watch("{\"result\":" + with_header(R"("events":[{}])") + "}"));
  EXPECT_FALSE(
      read_watch("{\"result\":" + with_header(R"("events":[{"kv":{"key":"YQ=="}}])") + "}"));
}

TEST(EtcdCodec, PutsFragmentsTogetherToWholeRevisions) {
  BatchBuilder builder;
  ASSERT_TRUE(builder.add(
      answer(R"("fragment":true,"events":[)" + event("a", 3) + "," + event("b", 4) + "]")));
  EXPECT_TRUE(builder.take().empty());
  ASSERT_TRUE(
      builder.add(answer(R"("events":[)" + event("c", 4, true) + "," + event("d", 6) + "]")));
  auto batches = builder.take();
  ASSERT_EQ(batches.size(), 3u);
  EXPECT_EQ(batches[0].revision, 3);
  EXPECT_EQ(batches[1].revision, 4);
  ASSERT_EQ(batches[1].changes.size(), 2u);
  EXPECT_FALSE(batches[1].changes[0].deleted);
  EXPECT_TRUE(batches[1].changes[1].deleted);
  EXPECT_EQ(batches[2].revision, 6);
  EXPECT_FALSE(builder.add(answer(R"("events":[)" + event("a", 5) + "]")));
}

TEST(EtcdCodec, BoundsWhatItHoldsOfFragments) {
  BatchBuilder builder;
  WatchAnswer endless;
  endless.fragment = true;
  endless.changes.resize(BatchBuilder::kMaxChanges);
  EXPECT_TRUE(builder.add(endless));
  endless.changes.resize(1);
  EXPECT_FALSE(builder.add(endless));
}

TEST(KeyText, IsAsciiAndShort) {
  EXPECT_EQ(key_text("a/b"), "a/b");
  EXPECT_EQ(key_text(std::string("\0\x1b\xff\\", 4)), "\\x00\\x1b\\xff\\x5c");
  EXPECT_LE(key_text(std::string(10'000, '\xff')).size(), 400u);
}

}  // namespace
}  // namespace mesh::store::etcd
