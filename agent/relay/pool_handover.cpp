// SPDX-License-Identifier: Apache-2.0
// Handing a whole relay over to another process, and taking one over.
#include <fcntl.h>

#include <utility>

#include "agent/relay/ask_worker.h"
#include "agent/relay/pool.h"

namespace mesh::relay {

template <typename Ask>
auto Pool::ask_all(Ask ask) {
  using Answer = std::invoke_result_t<Ask, Worker&>;
  std::vector<std::future<Answer>> answers;
  for (auto& worker : workers_)
    answers.push_back(ask_worker(*worker, [&worker = *worker, ask] { return ask(worker); }));
  return answers;
}

Result<std::size_t> Pool::count_all(std::function<std::size_t(Worker&)> ask, std::string_view what,
                                    Patience& patience) {
  auto answers = ask_all(std::move(ask));
  std::size_t sum = 0;
  Status first;
  for (auto& future : answers) {
    auto count = await_answer(future, patience);
    if (count)
      sum += *count;
    else if (first)
      first = context(std::move(count).error(), what);
  }
  if (!first) return tl::unexpected(std::move(first).error());
  return sum;
}

// All are asked before the first one answers, so that a busy worker is waited for once.
Status Pool::for_each_listener(const std::function<Status(Listener&)>& visit, std::string_view what,
                               Patience& patience) {
  std::vector<std::future<Status>> answers;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [id, listener] : listeners_)
      answers.push_back(
          ask_worker(listener->home(), [listener = listener, visit] { return visit(*listener); }));
  }
  Status first;
  for (auto& asked : answers) {
    auto answer = await_answer(asked, patience);
    Status status = answer ? std::move(*answer) : Status(tl::unexpected(std::move(answer).error()));
    if (!status && first) first = context(std::move(status).error(), what);
  }
  return first;
}

Result<std::vector<HandedListener>> Pool::listeners(Patience patience) {
  auto all = std::make_shared<std::vector<HandedListener>>();
  auto mutex = std::make_shared<std::mutex>();  // an answer may come after the time is up
  auto status = for_each_listener(
      [all, mutex](Listener& listener) -> Status {
        auto copy = listener.duplicate();
        if (!copy) return tl::unexpected(std::move(copy).error());
        const std::lock_guard lock(*mutex);
        all->push_back(std::move(*copy));
        return {};
      },
      "list the relay's listeners", patience);
  if (!status) return tl::unexpected(std::move(status).error());
  const std::lock_guard lock(*mutex);
  return std::move(*all);
}

Status Pool::stop_accepting(Patience patience) {
  return for_each_listener(
      [](Listener& listener) -> Status {
        listener.stop_accepting();
        return {};
      },
      "stop accepting", patience);
}

// Asked in the order of the posts, so that what a listener has handed to a worker is counted.
Result<std::size_t> Pool::being_set_up(Patience patience) {
  return count_all([](const Worker& worker) { return worker.being_set_up(); },
                   "count what is being set up", patience);
}

Result<std::size_t> Pool::pause(Patience patience) {
  auto stopped = stop_accepting(patience);
  if (!stopped) return tl::unexpected(std::move(stopped).error());
  return count_all([](Worker& worker) { return worker.pause_established(); }, "pause", patience);
}

Result<std::vector<HandedOver>> Pool::export_paused(std::size_t worker, std::size_t most) {
  auto asked = ask_worker(*workers_[worker],
                          [&w = *workers_[worker], most] { return w.export_paused(most); });
  auto batch = await_answer(asked);
  if (!batch) return context(std::move(batch).error(), "export relayed connections");
  if (!*batch) return context(std::move(*batch).error(), "export relayed connections");
  return std::move(**batch);
}

// The listeners are asked even when a worker is late with its connections: it does both when it
// gets to them, and nobody else would ask them again.
Status Pool::resume() {
  Patience patience;
  auto resumed =
      count_all([](Worker& worker) { return worker.resume_paused(); }, "resume", patience);
  auto accepting = start_accepting();
  if (!resumed) return context(std::move(resumed).error(), "relay");
  return accepting;
}

// Every worker is told, whichever does not answer in time: one that is late lets go before anything
// that it is asked later, so it can neither give the successor's connections again nor reset them.
Result<std::size_t> Pool::release() {
  // What is still being set up ends or is handed over; no leg is kept here for another connection.
  for (auto& worker : workers_) worker->post([&worker = *worker] { worker.drain(); });
  Patience patience;
  auto released =
      count_all([](Worker& worker) { return worker.release_paused(); }, "release", patience);
  // None accepts since pause().
  auto closed = close_all();
  if (released && !closed) return context(std::move(closed).error(), "release");
  return released;
}

std::future<std::vector<HandedOver>> Pool::take_established(std::size_t worker, std::size_t most) {
  return ask_worker(*workers_[worker], [&w = *workers_[worker], most] {
    auto batch = w.take_established(most);
    for (auto& one : batch) one.sole = true;  // released here, and nobody else's yet
    return batch;
  });
}

Status Pool::start_accepting() {
  accepting_ = true;
  Patience patience;
  return for_each_listener([](Listener& listener) { return listener.start_accepting(); },
                           "start to accept", patience);
}

Status Pool::adopt(TakenOver taken) {
  taken.from.sole = true;
  const ConnectionState& state = taken.from.state;
  NewConnection made;
  {
    const std::lock_guard lock(mutex_);
    // Whoever serves the same port of the same namespace knows what to do when it ends.
    for (const auto& [id, listener] : listeners_) {
      if (listener->netns_cookie() != state.client_netns || listener->port() != state.local.port)
        continue;
      made.accepted.listener = id;
      made.dialer = listener->dialer();
      break;
    }
    if (!made.dialer)
      return fail("no listener for connections to {} in namespace {}", state.local.to_string(),
                  state.client_netns);
    made.netns = LoadTicket::force(namespace_load(state.client_netns));
  }
  made.total = LoadTicket::force(total_);
  made.accepted.id = next_connection_.fetch_add(1, std::memory_order_relaxed);
  made.accepted.netns_cookie = state.client_netns;
  made.accepted.client = state.client;
  made.accepted.local = state.local;
  if (state.idle) {
    made.client = std::move(taken.from.client);
    made.stream = std::move(taken.stream);
    made.accepted.security = std::make_shared<const LegSecurity>(*state.security);
  }
  made.taken = std::make_unique<TakenOver>(std::move(taken));
  Worker* idlest = workers_.front().get();
  for (const auto& worker : workers_)
    if (worker->load() < idlest->load()) idlest = worker.get();
  idlest->add_load();
  idlest->post([&worker = *idlest, &options = options_, made = std::move(made)]() mutable {
    worker.adopt(std::make_unique<Connection>(worker, options, std::move(made)));
  });
  return {};
}

}  // namespace mesh::relay
