// SPDX-License-Identifier: Apache-2.0
// The control side of the relay: everything here runs on the caller's thread and asks the workers.
#include "agent/relay/pool.h"

#include <fcntl.h>
#include <sched.h>

#include <algorithm>
#include <thread>
#include <utility>

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

Status Pool::close(std::shared_ptr<Listener> listener) {
  Worker& home = listener->home();
  // Buried: an event for it may stand in the batch that is being worked off.
  auto closed = ask_worker(home, [listener = std::move(listener), &home]() mutable {
    listener->close();
    home.bury(std::move(listener));
    return true;
  });
  MESH_TRY(await_answer(closed), "close relay listener");
  return {};
}

Status Pool::close_listener(ListenerId id, Close what) {
  std::shared_ptr<Listener> listener;
  {
    const std::lock_guard lock(mutex_);
    const auto found = listeners_.find(id);
    if (found == listeners_.end()) return fail("no relay listener {}", id);
    listener = std::move(found->second);
    listeners_.erase(found);
  }
  MESH_TRY(close(std::move(listener)), "relay");
  // What it accepted has been handed over before it closed, so the workers see that first.
  if (what == Close::AbortConnections)
    MESH_TRY(abort_if([id](const Connection& c) { return c.listener() == id; }), "relay");
  return {};
}

Result<std::size_t> Pool::drop_namespace(std::uint64_t netns_cookie) {
  std::vector<std::shared_ptr<Listener>> gone;
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
  for (auto& listener : gone) MESH_TRY(close(std::move(listener)), "drop namespace");
  return abort_if(
      [netns_cookie](const Connection& c) { return c.touches_namespace(netns_cookie); });
}

Status Pool::close_all() {
  std::map<ListenerId, std::shared_ptr<Listener>> all;
  {
    const std::lock_guard lock(mutex_);
    all.swap(listeners_);
  }
  Status first;
  for (auto& [id, listener] : all) {
    Status closed = close(std::move(listener));
    if (!closed && first) first = std::move(closed);
  }
  return first;
}

Result<std::size_t> Pool::abort_if(std::function<bool(const Connection&)> which) {
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
  MESH_TRY(close_all(), "drain");
  for (auto& worker : workers_) worker->post([&worker = *worker] { worker.drain(); });
  MESH_TRY(abort_if([](const Connection& c) { return c.idle(); }), "drain");
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
