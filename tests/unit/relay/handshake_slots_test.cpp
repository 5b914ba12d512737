// SPDX-License-Identifier: Apache-2.0
#include "agent/relay/handshake_slots.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "agent/relay/coroutine.h"

namespace mesh::relay {
namespace {

using ::testing::ElementsAre;

const Address kWeb = *Address::parse("10.0.0.1");
const Address kDb = *Address::parse("fd00::2");

class HandshakeSlotsTest : public ::testing::Test {
 protected:
  // Who is being set up. His coroutine does not outlive him.
  struct Caller {
    explicit Caller(HandshakeSlotsTest& test) : test_(test), turn(test.slots_) {}
    ~Caller() {
      turn.cancel();
      if (turn.waited() && !done) test_.resume();
    }
    HandshakeSlotsTest& test_;
    HandshakeTurn turn;
    bool done = false;
  };
  using CallerPtr = std::unique_ptr<Caller>;

  CallerPtr come(const Address& to, const std::string& name) {
    auto caller = std::make_unique<Caller>(*this);
    if (caller->turn.begin(to))
      log_.push_back(name + " begins");
    else if (caller->turn.join())
      (void)wait(*caller, to, name);
    else
      log_.push_back(name + " is too many");
    return caller;
  }
  Detached wait(Caller& caller, Address to, std::string name) {
    co_await caller.turn.wait();
    caller.done = true;
    if (const auto reason = caller.turn.hopeless())
      log_.push_back(name + ": " + std::string(to_string(*reason)));
    else
      log_.push_back(name + (caller.turn.begin(to) ? " begins" : " ends"));
  }
  void resume() {
    while (!ready_.empty())
      for (auto handle : std::exchange(ready_, {})) handle.resume();
  }
  // What has happened since the last call, once everybody had his turn.
  std::vector<std::string> log() {
    resume();
    return std::exchange(log_, {});
  }

  std::vector<std::coroutine_handle<>> ready_;
  HandshakeSlots slots_{2, 3, ready_};
  std::vector<std::string> log_;
};

TEST_F(HandshakeSlotsTest, WhoComesFirstIsServedFirst) {
  auto a = come(kWeb, "a"), b = come(kWeb, "b"), c = come(kWeb, "c"), d = come(kWeb, "d");
  EXPECT_THAT(log(), ElementsAre("a begins", "b begins"));
  EXPECT_EQ(slots_.waiting(), 2u);
  b->turn.succeeded();
  EXPECT_TRUE(log_.empty()) << "not from within whoever made room";
  EXPECT_THAT(log(), ElementsAre("c begins"));
  // A slot that is free for a moment is not for one who has just come.
  a->turn.leave();
  auto e = come(kWeb, "e");
  EXPECT_THAT(log(), ElementsAre("d begins"));
  c.reset();
  EXPECT_THAT(log(), ElementsAre("e begins"));
  EXPECT_TRUE(e->turn.waited());
  EXPECT_FALSE(a->turn.waited());
  d.reset();
  e.reset();
  EXPECT_EQ(slots_.destinations(), 0u);
}

TEST_F(HandshakeSlotsTest, ADestinationThatIsFullKeepsNobodyFromAnother) {
  auto a = come(kWeb, "a"), b = come(kWeb, "b"), c = come(kWeb, "c");
  auto d = come(kDb, "d");
  EXPECT_THAT(log(), ElementsAre("a begins", "b begins", "d begins"));
}

TEST_F(HandshakeSlotsTest, ABoundedNumberWaits) {
  std::vector<CallerPtr> callers;
  for (const char* name : {"a", "b", "c", "d", "e", "f"}) callers.push_back(come(kWeb, name));
  EXPECT_THAT(log(), ElementsAre("a begins", "b begins", "f is too many"));
  callers.front().reset();
  EXPECT_THAT(log(), ElementsAre("c begins"));
  callers.push_back(come(kWeb, "g"));
  EXPECT_EQ(slots_.waiting(), 3u);
}

TEST_F(HandshakeSlotsTest, WhoGivesUpLeavesTheLineAtOnce) {
  auto a = come(kWeb, "a"), b = come(kWeb, "b"), c = come(kWeb, "c"), d = come(kWeb, "d");
  (void)log();
  c->turn.cancel();
  EXPECT_TRUE(c->done);
  EXPECT_EQ(slots_.waiting(), 1u);
  EXPECT_THAT(std::exchange(log_, {}), ElementsAre("c ends"));
  a.reset();
  EXPECT_THAT(log(), ElementsAre("d begins"));
}

TEST_F(HandshakeSlotsTest, WhoGivesUpWhenHisTurnHasComeGivesItToTheNext) {
  auto a = come(kWeb, "a"), b = come(kWeb, "b"), c = come(kWeb, "c"), d = come(kWeb, "d");
  (void)log();
  a.reset();
  c->turn.cancel();  // he is on his way already
  EXPECT_FALSE(c->done);
  EXPECT_THAT(log(), ElementsAre("c begins"));
  c.reset();
  EXPECT_THAT(log(), ElementsAre("d begins"));
}

TEST_F(HandshakeSlotsTest, WhereNobodyAnswersThoseWhoWaitedLongerAreTold) {
  auto a = come(kWeb, "a"), b = come(kWeb, "b"), c = come(kWeb, "c"), d = come(kWeb, "d");
  (void)log();
  a->turn.unanswered(DialReason::Timeout);  // c and d came after it began
  EXPECT_THAT(log(), ElementsAre("c begins"));
  auto e = come(kWeb, "e");
  c->turn.unanswered(DialReason::Unreachable);
  EXPECT_THAT(log(), ElementsAre("d: unreachable", "e begins"));
  b.reset();
  e.reset();
  EXPECT_EQ(slots_.destinations(), 0u);
  EXPECT_EQ(slots_.waiting(), 0u);
}

TEST_F(HandshakeSlotsTest, WhereSomebodyCameThroughTheyGoOnWaiting) {
  auto a = come(kWeb, "a"), b = come(kWeb, "b"), c = come(kWeb, "c"), d = come(kWeb, "d"),
       e = come(kWeb, "e");
  a.reset();
  EXPECT_THAT(log(), ElementsAre("a begins", "b begins", "c begins"));
  b->turn.succeeded();
  EXPECT_THAT(log(), ElementsAre("d begins"));
  c->turn.unanswered(DialReason::Timeout);  // e came before it began
  EXPECT_THAT(log(), ElementsAre("e begins"));
}

TEST_F(HandshakeSlotsTest, AnotherDestinationIsAnotherSlot) {
  auto a = come(kWeb, "a");
  EXPECT_TRUE(a->turn.begin(kWeb));
  EXPECT_TRUE(a->turn.begin(kDb));
  auto b = come(kWeb, "b"), c = come(kWeb, "c");
  EXPECT_THAT(log(), ElementsAre("a begins", "b begins", "c begins"));
}

}  // namespace
}  // namespace mesh::relay
