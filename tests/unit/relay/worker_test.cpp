// SPDX-License-Identifier: Apache-2.0
// In which order a worker does what it has to do.
#include "agent/relay/worker.h"

#include <gtest/gtest.h>

#include <future>
#include <string>
#include <vector>

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

}  // namespace
}  // namespace mesh::relay::test
