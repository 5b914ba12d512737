// SPDX-License-Identifier: Apache-2.0
// What waits for the next start: whom it is for, and that nothing of it is used when it is not
// whole.
#include "agent/takeover/kept.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "agent/takeover/wire_bytes.h"

namespace mesh::takeover {
namespace {

using ::testing::HasSubstr;
using Clock = std::chrono::steady_clock;

const Common kOwn{7, "1.2.3", "/sys/fs/bpf/mesh-agent", 42};

KeptHeader header() { return {kOwn, Clock::now() + std::chrono::minutes(1), 3}; }

class KeptTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto pair = make_kept_pair();
    ASSERT_TRUE(pair) << pair.error().what;
    write_.emplace(std::move(pair->write));
    read_ = std::move(pair->read);
  }
  void put(FrameType type, const std::vector<std::uint8_t>& payload) {
    ASSERT_TRUE(write_->send(type, payload, {}, Channel::Limit(0)));
  }
  static std::vector<std::uint8_t> number(std::uint32_t value) {
    Writer out;
    out.number(value);
    return out.take();
  }
  std::string refused(const KeptHeader& theirs) {
    put(FrameType::Kept, write_kept_header(theirs));
    Kept kept(std::move(read_));
    const auto opened = kept.open(kOwn);
    return opened ? "" : opened.error().what;
  }
  std::optional<Channel> write_;
  UniqueFd read_;
};

TEST_F(KeptTest, IsKeptAsLongAsSomebodyHasTheOtherEnd) {
  auto pair = make_kept_pair();
  ASSERT_TRUE(pair);
  EXPECT_TRUE(is_kept(pair->write));
  pair->read.reset();
  EXPECT_FALSE(is_kept(pair->write));
}

TEST_F(KeptTest, WaitsInTheSocketAfterItsWriterHasGone) {
  put(FrameType::Kept, write_kept_header(header()));
  put(FrameType::ListenersEnd, number(0));
  put(FrameType::ConnectionsEnd, number(0));
  write_.reset();
  Kept kept(std::move(read_));
  ASSERT_TRUE(kept.open(kOwn));
  EXPECT_EQ(kept.connections(), 3u);
  EXPECT_TRUE(kept.listeners());
  std::string why;
  EXPECT_TRUE(kept.take(why).empty());
  EXPECT_EQ(why, "");
}

TEST_F(KeptTest, IsForTheSameAbi) {
  auto theirs = header();
  theirs.common.abi = 8;
  EXPECT_THAT(refused(theirs), HasSubstr("ABI 8"));
}

TEST_F(KeptTest, IsForTheSameMaps) {
  auto theirs = header();
  theirs.common.maps = 43;
  EXPECT_THAT(refused(theirs), HasSubstr("maps"));
}

TEST_F(KeptTest, IsForTheSamePins) {
  auto theirs = header();
  theirs.common.pin_dir = "/elsewhere";
  EXPECT_THAT(refused(theirs), HasSubstr("/elsewhere"));
}

TEST_F(KeptTest, HasATime) {
  auto theirs = header();
  theirs.deadline = Clock::now() - std::chrono::milliseconds(1);
  EXPECT_THAT(refused(theirs), HasSubstr("1 s too late"));
}

TEST_F(KeptTest, OfAnotherProtocolIsNamed) {
  auto bytes = write_kept_header(header());
  bytes[0] = 99;
  bytes.resize(10);  // whatever it has behind
  put(FrameType::Kept, bytes);
  Kept kept(std::move(read_));
  const auto opened = kept.open(kOwn);
  ASSERT_FALSE(opened);
  EXPECT_THAT(opened.error().what, HasSubstr("protocol 99"));
}

TEST_F(KeptTest, WithoutItsEndIsNotUsed) {
  put(FrameType::Kept, write_kept_header(header()));
  put(FrameType::ListenersEnd, number(0));
  write_.reset();
  Kept kept(std::move(read_));
  ASSERT_TRUE(kept.open(kOwn));
  ASSERT_TRUE(kept.listeners());
  std::string why;
  EXPECT_TRUE(kept.take(why).empty());
  EXPECT_NE(why, "");
}

TEST_F(KeptTest, WithFewerConnectionsThanItSaysIsNotUsed) {
  put(FrameType::Kept, write_kept_header(header()));
  put(FrameType::ListenersEnd, number(0));
  put(FrameType::ConnectionsEnd, number(3));
  Kept kept(std::move(read_));
  ASSERT_TRUE(kept.open(kOwn));
  ASSERT_TRUE(kept.listeners());
  std::string why;
  EXPECT_TRUE(kept.take(why).empty());
  EXPECT_THAT(why, HasSubstr("missing"));
}

TEST_F(KeptTest, WhatIsNotAFrameIsNoState) {
  write_.reset();
  Kept kept(std::move(read_));
  EXPECT_FALSE(kept.open(kOwn)) << "nothing was written";
}

TEST(KeptHeaderTest, IsCheckedToTheByte) {
  const auto bytes = write_kept_header(header());
  const auto back = parse_kept_header(bytes);
  ASSERT_TRUE(back) << back.error().what;
  EXPECT_EQ(write_kept_header(*back), bytes);
  for (std::size_t size = 0; size < bytes.size(); ++size)
    EXPECT_FALSE(parse_kept_header(std::span(bytes).first(size))) << size;
  auto longer = bytes;
  longer.push_back(0);
  EXPECT_FALSE(parse_kept_header(longer));
  // Whatever is accepted says the same again.
  for (std::size_t at = 0; at < bytes.size(); ++at)
    for (const int value : {0, 1, 0x7f, 0x80, 0xff}) {
      auto other = bytes;
      other[at] = static_cast<std::uint8_t>(value);
      const auto parsed = parse_kept_header(other);
      EXPECT_TRUE(!parsed || write_kept_header(*parsed) == other) << at;
    }
}

}  // namespace
}  // namespace mesh::takeover
