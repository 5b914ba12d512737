// SPDX-License-Identifier: Apache-2.0
// The control side of the relay: everything here runs on the caller's thread and asks the workers.
#include "agent/relay/pool.h"

#include <fcntl.h>
#include <sched.h>

#include <algorithm>
#include <thread>
#include <utility>

#include "agent/base/log.h"
#include "agent/relay/ask_worker.h"

namespace mesh::relay {

namespace {

unsigned usable_processors() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (::sched_getaffinity(0, sizeof(set), &set) == 0)
    return std::max(1u, static_cast<unsigned>(CPU_COUNT(&set)));
  return std::max(1u, std::thread::hardware_concurrency());
}

}  // namespace

Result<std::unique_ptr<Pool>> Pool::create(const PoolOptions& options) {
  std::unique_ptr<Pool> pool(new Pool(options));
  pool->accepting_ = options.accepting;
  pool->total_ = std::make_shared<Load>(options.max_connections);
  const unsigned count = options.workers != 0 ? options.workers : usable_processors();
  for (unsigned i = 0; i < count; ++i) {
    auto worker = std::make_unique<Worker>(pool->options_, i);
    MESH_TRY(worker->start(), "relay worker");
    pool->workers_.push_back(std::move(worker));
  }
  return pool;
}

Pool::~Pool() {
  // Listeners first: once a worker has stopped nobody may hand it a connection.
  (void)close_all();
  for (auto& worker : workers_) worker->stop();
}

std::shared_ptr<Load> Pool::namespace_load(std::uint64_t netns_cookie) {
  std::erase_if(namespaces_, [](const auto& entry) { return entry.second.expired(); });
  auto& known = namespaces_[netns_cookie];
  auto load = known.lock();
  if (!load) {
    load = std::make_shared<Load>(options_.max_connections_per_namespace);
    known = load;
  }
  return load;
}

Result<ListenerId> Pool::listen(UniqueFd socket, std::uint64_t netns_cookie,
                                std::shared_ptr<Dialer> dialer) {
  const int flags = ::fcntl(socket.get(), F_GETFL);
  if (flags < 0) return fail_errno(errno, "relay listen");
  if ((flags & O_NONBLOCK) == 0) return fail("relay listen: the socket is blocking");

  auto local = local_endpoint(socket.get());
  if (!local) return context(std::move(local).error(), "relay listen");
  std::shared_ptr<Listener> listener;
  ListenerId id = 0;
  {
    const std::lock_guard lock(mutex_);
    id = next_listener_++;
    Worker& home = *workers_[id % workers_.size()];
    listener = std::make_shared<Listener>(
        home, workers_, options_, next_connection_,
        ListenerSetup{std::move(socket), id, netns_cookie, std::move(dialer), total_,
                      namespace_load(netns_cookie), *local});
    listeners_.emplace(id, listener);
  }
  auto opened = ask_worker(listener->home(), [listener, accepting = accepting_.load()] {
    auto status = listener->open();
    if (!status || !accepting) return status;
    return listener->start_accepting();
  });
  auto answer = await_answer(opened);
  Status status = answer ? std::move(*answer) : Status(tl::unexpected(std::move(answer).error()));
  if (!status) {
    (void)close_listener(id, Close::AbortConnections);
    return tl::unexpected(std::move(status).error());
  }
  return id;
}

// A listener that is registered with its worker lives until that has closed it, however late. All
// are asked before the first one answers, so that a busy worker is waited for once. `after` is
// called on each of their threads.
Status Pool::close(Listeners listeners, const std::function<void()>& after) {
  std::vector<std::future<bool>> answers;
  for (auto& listener : listeners) {
    Worker& home = listener->home();
    // Buried: an event for it may stand in the batch that is being worked off.
    answers.push_back(ask_worker(home, [listener = std::move(listener), &home, after]() mutable {
      listener->close();
      home.bury(std::move(listener));
      if (after) after();
      return true;
    }));
  }
  Patience patience;
  Status first;
  for (auto& answer : answers)
    if (auto closed = await_answer(answer, patience); !closed && first)
      first = context(std::move(closed).error(), "close a relay listener");
  return first;
}

// What a listener accepted has been handed over before it closed, so the workers see that first.
// One that closes late may have accepted meanwhile: then its worker asks for the same again.
Result<std::size_t> Pool::close_and_abort(Listeners listeners, const Which& which) {
  const auto late = std::make_shared<std::atomic<bool>>(false);
  Status closed = close(std::move(listeners), [late, which, &workers = workers_] {
    if (!*late) return;
    for (const auto& worker : workers)
      worker->post([&worker = *worker, which] { (void)worker.abort_if(which); });
  });
  if (!closed) *late = true;
  auto aborted = abort_if(which);
  if (!closed) return tl::unexpected(std::move(closed).error());
  return aborted;
}

Status Pool::close_listener(ListenerId id, Close what) {
  Listeners one;
  {
    const std::lock_guard lock(mutex_);
    const auto found = listeners_.find(id);
    if (found == listeners_.end()) return fail("no relay listener {}", id);
    one.push_back(std::move(found->second));
    listeners_.erase(found);
  }
  if (what == Close::KeepConnections) return close(std::move(one));
  MESH_TRY(
      close_and_abort(std::move(one), [id](const Connection& c) { return c.listener() == id; }),
      "relay");
  return {};
}

Result<std::size_t> Pool::drop_namespace(std::uint64_t netns_cookie) {
  Listeners gone;
  {
    const std::lock_guard lock(mutex_);
    for (auto it = listeners_.begin(); it != listeners_.end();) {
      if (it->second->netns_cookie() == netns_cookie) {
        gone.push_back(std::move(it->second));
        it = listeners_.erase(it);
      } else {
        ++it;
      }
    }
  }
  auto aborted = close_and_abort(std::move(gone), [netns_cookie](const Connection& c) {
    return c.touches_namespace(netns_cookie);
  });
  if (!aborted) return context(std::move(aborted).error(), "drop namespace");
  return aborted;
}

Status Pool::close_all() {
  Listeners all;
  {
    const std::lock_guard lock(mutex_);
    for (auto& [id, listener] : listeners_) all.push_back(std::move(listener));
    listeners_.clear();
  }
  return close(std::move(all));
}

Result<std::size_t> Pool::abort_if(Which which) {
  std::vector<std::future<std::size_t>> answers;
  for (auto& worker : workers_)
    answers.push_back(
        ask_worker(*worker, [&worker = *worker, which] { return worker.abort_if(which); }));
  std::size_t aborted = 0;
  for (auto& future : answers) {
    auto count = await_answer(future);
    if (!count) return context(std::move(count).error(), "abort relayed connections");
    aborted += *count;
  }
  return aborted;
}

Result<std::size_t> Pool::abort_where(std::function<bool(const ConnectionRecord&)> which) {
  return abort_if([which = std::move(which)](const Connection& c) { return which(c.record()); });
}

Result<std::vector<ConnectionRecord>> Pool::connections() {
  std::vector<std::future<std::vector<ConnectionRecord>>> answers;
  for (auto& worker : workers_)
    answers.push_back(ask_worker(*worker, [&worker = *worker] {
      std::vector<ConnectionRecord> rows;
      worker.for_each([&rows](const Connection& c) { rows.push_back(c.record()); });
      return rows;
    }));
  std::vector<ConnectionRecord> all;
  for (auto& future : answers) {
    auto rows = await_answer(future);
    if (!rows) return context(std::move(rows).error(), "list relayed connections");
    std::move(rows->begin(), rows->end(), std::back_inserter(all));
  }
  return all;
}

Counters Pool::counters() const {
  Counters sum;
  for (const auto& worker : workers_) sum += std::as_const(*worker).counters();
  return sum;
}

Result<Pool::DrainResult> Pool::drain(std::chrono::milliseconds deadline,
                                      const std::function<void(std::uint32_t)>& progress,
                                      const std::atomic<bool>* stop) {
  using Clock = std::chrono::steady_clock;
  constexpr std::chrono::milliseconds kLook{20};
  constexpr std::chrono::seconds kReport{1};
  const auto end = Clock::now() + deadline;
  auto report = Clock::now() + kReport;
  // What is late is done when its worker comes to it.
  if (auto closed = close_all(); !closed) log::warn("drain: {}", closed.error().what);
  for (auto& worker : workers_) worker->post([&worker = *worker] { worker.drain(); });
  if (auto idle = abort_if([](const Connection& c) { return c.idle(); }); !idle)
    log::warn("drain: {}", idle.error().what);
  while (active() != 0 && Clock::now() < end) {
    if (stop != nullptr && *stop) return DrainResult{0, true};
    std::this_thread::sleep_for(kLook);
    if (Clock::now() < report) continue;
    if (progress) progress(active());
    report += kReport;
  }
  if (active() == 0) return DrainResult{};
  auto aborted = abort_if([](const Connection&) { return true; });
  if (!aborted) return context(std::move(aborted).error(), "drain");
  return DrainResult{static_cast<std::uint32_t>(*aborted), false};
}

}  // namespace mesh::relay
