// SPDX-License-Identifier: Apache-2.0
// Many namespaces, many processes, many changes: still on time, and cheap.
#include <gmock/gmock.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <thread>

#include "tests/unit/workload/node.h"

namespace mesh::workload::testing_node {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

using ScaleTest = NodeTest;

double thread_seconds() {
  rusage usage{};
  EXPECT_EQ(::getrusage(RUSAGE_THREAD, &usage), 0);
  auto of = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
  };
  return of(usage.ru_utime) + of(usage.ru_stime);
}

// A file for `ip -batch`, removed at the end.
class Batch {
 public:
  Batch() : name_("/tmp/mesh-batch-XXXXXX") { fd_.reset(::mkstemp(name_.data())); }
  ~Batch() { (void)::unlink(name_.c_str()); }
  Batch& line(const std::string& text) {
    EXPECT_EQ(::write(fd_.get(), (text + "\n").data(), text.size() + 1),
              static_cast<ssize_t>(text.size() + 1));
    return *this;
  }
  void ip(const Arguments& options = {}) const {
    Arguments line{"ip"};
    line.insert(line.end(), options.begin(), options.end());
    line.insert(line.end(), {"-force", "-batch", name_});
    run(line);
  }

 private:
  std::string name_;
  UniqueFd fd_;
};

TEST_F(ScaleTest, ThreeHundredNamespacesAtOnce) {
  constexpr unsigned kCount = 300;
  start();
  struct Crowd {
    Batch add;
    Batch del;
    bool removed = false;
    ~Crowd() { remove(); }
    void remove() {
      if (!std::exchange(removed, true)) del.ip();
    }
  } crowd;
  for (unsigned n = 1; n <= kCount; ++n) {
    crowd.add.line(fmt::format("netns add mw{}-c{}", ::getpid(), n));
    crowd.del.line(fmt::format("netns del mw{}-c{}", ::getpid(), n));
  }
  std::map<Address, Clock::time_point> added;
  std::atomic<bool> made{false};
  std::thread maker([&] {
    crowd.add.ip();
    for (unsigned n = 1; n <= kCount; ++n) {
      auto at_time = Clock::now();
      run({"ip", "-n", fmt::format("mw{}-c{}", ::getpid(), n), "addr", "add", v4(n), "dev", "lo"});
      added[at(v4(n))] = at_time;
    }
    made = true;
  });
  await(
      "made", [&] { return made.load(); }, seconds(60));
  maker.join();
  auto rest = await("all found", [&] { return known_.size() == kCount; });
  milliseconds worst{0};
  for (const Event& event : events_)
    if (event.kind == Event::Kind::Found)
      worst = std::max(worst, std::chrono::duration_cast<milliseconds>(
                                  event.at - added[event.workload.addresses.front()]));
  EXPECT_LT(worst, promised());
  auto counters = discovery_->counters();
  EXPECT_EQ(counters.scan_errors_total, 0u);

  std::atomic<bool> removed{false};
  std::thread remover([&] {
    crowd.remove();
    removed = true;
  });
  await(
      "removed", [&] { return removed.load(); }, seconds(60));
  remover.join();
  auto gone = await("all gone", [&] { return known_.empty(); });
  std::printf(
      "worst from address to found %d ms, last found %d ms after, last gone %d ms after, "
      "longest scan %.1f ms\n",
      static_cast<int>(worst.count()), static_cast<int>(rest.count()),
      static_cast<int>(gone.count()),
      static_cast<double>(discovery_->counters().scan_nanoseconds_max) / 1e6);
}

TEST_F(ScaleTest, ThreeHundredNamespacesBeforeTheStart) {
  constexpr unsigned kCount = 300;
  std::vector<Process> crowd;
  for (unsigned n = 0; n < kCount; ++n)
    crowd.emplace_back(Arguments{"unshare", "-n", "sleep", "120"});
  for (const Process& process : crowd) await_unshared(process);
  auto begin = Clock::now();
  start();
  auto took = std::chrono::duration_cast<milliseconds>(Clock::now() - begin);
  EXPECT_GE(discovery_->counters().namespaces, kCount);
  EXPECT_TRUE(known_.empty());
  EXPECT_LT(took, seconds(2));
  crowd.clear();
  auto gone = await("all gone", [&] { return discovery_->counters().namespaces < kCount / 2; });
  std::printf("start with %u namespaces took %d ms, gone after %d ms\n", kCount,
              static_cast<int>(took.count()), static_cast<int>(gone.count()));
}

TEST_F(ScaleTest, AThousandProcessesCostLittle) {
  // An emulated guest takes minutes to start a thousand, and its shares of a CPU say nothing.
  const bool emulated = std::getenv("MESH_VM") != nullptr;
  const std::size_t crowd_size = emulated ? 50 : 1000;
  std::vector<Process> crowd;
  for (std::size_t n = 0; n < crowd_size; ++n) crowd.emplace_back(Arguments{"sleep", "120"});
  start();
  run_for(milliseconds(1500));  // all are old
  EXPECT_GE(discovery_->counters().processes, crowd_size);
  auto scans = discovery_->counters().scans_total;
  double before = thread_seconds();
  auto begin = Clock::now();
  run_for(seconds(4));
  double wall = std::chrono::duration<double>(Clock::now() - begin).count();
  double share = (thread_seconds() - before) / wall;
  auto done = discovery_->counters().scans_total - scans;
  std::printf("%zu processes: %.2f %% of a CPU, %.2f ms a scan\n", discovery_->counters().processes,
              100 * share, share * wall * 1e3 / static_cast<double>(done));
  EXPECT_GE(done, emulated ? 2u : 5u);  // of 20, beside two guests
  if (!emulated) {
    EXPECT_LT(share, 0.15);  // a loose bound: sanitizers and a busy machine
  }

  auto process = unshared();
  process.ip({"addr", "add", v4(5), "dev", "lo"});
  await("found among many", [&] { return holder(v4(5)); });
  process.stop();
  await("gone among many", [&] { return !holder(v4(5)); });
}

// More changes than the socket's buffer holds: ENOBUFS, and the end result is right all the same.
TEST_F(ScaleTest, LostNotificationsAreMadeUpFor) {
  NamedNetns blue;
  start();
  Batch storm;
  for (unsigned round = 0; round < 3; ++round) {
    for (unsigned n = 0; n < 1000; ++n)
      storm.line(fmt::format("addr add 198.18.{}.{}/32 dev lo", n / 250, n % 250 + 1));
    storm.line("addr flush dev lo");
  }
  storm.line(fmt::format("addr add {} dev lo", v4(5)));
  storm.ip({"-n", blue.name()});  // discovery does not read meanwhile
  await("found", [&] { return holder(v4(5)); });
  run_for(milliseconds(300));
  ASSERT_NE(holder(v4(5)), nullptr);
  EXPECT_THAT(holder(v4(5))->addresses, testing::ElementsAre(at(v4(5))));
  EXPECT_GE(discovery_->counters().overruns_total, 1u);
  // In an emulated guest a dump may run into its time limit first; it is made again.
  EXPECT_LE(discovery_->counters().scan_errors_total, std::getenv("MESH_VM") != nullptr ? 2u : 0u);
}

}  // namespace
}  // namespace mesh::workload::testing_node
