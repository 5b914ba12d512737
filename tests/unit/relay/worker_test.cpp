// SPDX-License-Identifier: Apache-2.0
// In which order a worker does what it has to do.
#include "agent/relay/worker.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>
#include <string>
#include <vector>

#include "agent/relay/ask_worker.h"
#include "agent/relay/coroutine.h"
#include "agent/relay/options.h"

namespace mesh::relay::test {
namespace {

struct Seen {
  std::vector<std::string> all;
  std::promise<void> done;
};

// Yields as bulk does after its quantum; the first one is asked something while it is at work.
Detached transfer(Worker& worker, Seen& seen, std::string name, bool asked) {
  co_await worker.yield();
  seen.all.push_back(name);
  if (asked) worker.post([&seen] { seen.all.emplace_back("answer"); });
  co_await worker.yield();
  seen.all.push_back(name + " again");
  if (name == "third") seen.done.set_value();
}

TEST(WorkerTest, AnswersBetweenTwoTransfers) {
  const PoolOptions options;
  Worker worker(options, 0);
  ASSERT_TRUE(worker.start());
  Seen seen;
  auto done = seen.done.get_future();
  worker.post([&] {
    (void)transfer(worker, seen, "first", true);
    (void)transfer(worker, seen, "second", false);
    (void)transfer(worker, seen, "third", false);
  });
  ASSERT_EQ(done.wait_for(std::chrono::seconds(20)), std::future_status::ready);
  worker.stop();
  EXPECT_EQ(seen.all, (std::vector<std::string>{"first", "answer", "second", "third", "first again",
                                                "second again", "third again"}));
}

// One that is busy for longer than anybody else waits.
TEST(WorkerTest, IsWaitedForAsLongAsOneSays) {
  const PoolOptions options;
  Worker worker(options, 0);
  ASSERT_TRUE(worker.start());
  std::promise<void> go_on;
  worker.post([busy = go_on.get_future().share()] { busy.wait(); });
  auto first = ask_worker(worker, [] { return 1; });
  const auto given_up = await_answer(first);
  ASSERT_FALSE(given_up);
  EXPECT_THAT(given_up.error().what, ::testing::HasSubstr("within 2 s"));

  std::vector<std::chrono::seconds> said;
  Patience patience(Patience::Clock::now() + std::chrono::seconds(60), [&](auto waited) {
    said.push_back(waited);
    if (said.size() == 1) go_on.set_value();
  });
  auto second = ask_worker(worker, [] { return 2; });
  const auto answer = await_answer(second, patience);
  ASSERT_TRUE(answer) << answer.error().what;
  EXPECT_EQ(*answer, 2);
  ASSERT_FALSE(said.empty());
  EXPECT_GE(said.front(), Patience::kAnswer);

  Patience over(Patience::Clock::now(), [&](auto) { ADD_FAILURE() << "there is no time"; });
  std::promise<int> never;
  auto nothing = never.get_future();
  EXPECT_FALSE(await_answer(nothing, over));
}

}  // namespace
}  // namespace mesh::relay::test
