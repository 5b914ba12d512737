// SPDX-License-Identifier: Apache-2.0
// The loop of a worker.
#include "agent/relay/worker.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <cerrno>

#include "agent/base/quiet_thread.h"
#include "agent/relay/connection.h"

namespace mesh::relay {

namespace {

constexpr std::size_t kEventsBesideBulk = 16;

}  // namespace

Worker::Worker(const PoolOptions& options, unsigned index)
    : index_(index),
      work_(boost::asio::make_work_guard(context_)),
      handshake_slots_(options.max_handshakes_per_destination, options.max_handshakes_waiting,
                       ready_),
      pipes_(options.pipes_per_worker, options.pipe_bytes) {}

Worker::~Worker() { stop(); }

Status Worker::start() {
  epoll_ = UniqueFd(::epoll_create1(EPOLL_CLOEXEC));
  if (!epoll_) return fail_errno(errno, "epoll_create1");
  wake_ = UniqueFd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake_) return fail_errno(errno, "eventfd");
  // Edge triggered: every write is an edge, so nobody has to read the counter back to zero.
  epoll_event event{};
  event.events = EPOLLIN | EPOLLET;
  event.data.ptr = nullptr;
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, wake_.get(), &event) != 0)
    return fail_errno(errno, "epoll_ctl(eventfd)");
  // Splice into a dead socket raises SIGPIPE in ours.
  thread_ = quiet_thread(fmt::format("relay-{}", index_).c_str(), [this] { run(); });
  return {};
}

void Worker::stop() {
  if (!thread_.joinable()) return;
  post([this] {
    stopping_ = true;
    for (Connection* left : pick([](const Connection&) { return true; })) left->abort_at_once();
  });
  thread_.join();
}

void Worker::wake() {
  // One write for any number of posts until the loop has looked at its queue again.
  if (woken_.exchange(true, std::memory_order_acq_rel)) return;
  const std::uint64_t one = 1;
  // Fails only when the counter is full, and then the edge is pending anyway.
  (void)!::write(wake_.get(), &one, sizeof(one));
}

Status Worker::watch(int fd, std::uint32_t events, EventSink& sink) {
  epoll_event event{};
  event.events = events;
  event.data.ptr = &sink;
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0)
    return fail_errno(errno, "epoll_ctl(add)");
  return {};
}

void Worker::rewatch(int fd, std::uint32_t events, EventSink& sink) {
  epoll_event event{};
  event.events = events;
  event.data.ptr = &sink;
  // MOD of a registered descriptor allocates nothing and cannot fail.
  (void)::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, fd, &event);
}

void Worker::unwatch(int fd) {
  (void)::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);  // registered: cannot fail
}

void Worker::arm(Timed& timed, Clock::time_point when) {
  disarm(timed);
  timed.armed_ = deadlines_.emplace(when, &timed);
}

void Worker::disarm(Timed& timed) {
  if (!timed.armed_) return;
  deadlines_.erase(*timed.armed_);
  timed.armed_.reset();
}

void Worker::expire() {
  if (deadlines_.empty()) return;
  const auto now = Clock::now();
  while (!deadlines_.empty() && deadlines_.begin()->first <= now) {
    Timed& timed = *deadlines_.begin()->second;
    disarm(timed);
    timed.on_deadline();
  }
}

int Worker::timeout_ms() const {
  if (!ready_.empty()) return 0;
  if (deadlines_.empty()) return -1;
  const auto left = deadlines_.begin()->first - Clock::now();
  const auto ms = std::chrono::ceil<std::chrono::milliseconds>(left).count();
  return static_cast<int>(std::clamp<std::int64_t>(ms, 0, 60'000));
}

void Worker::adopt(std::unique_ptr<Connection> connection) {
  Connection& raw = *connection;
  raw.set_slot(connections_.size());
  connections_.push_back(std::move(connection));
  raw.start();
  // A hand-over that was on its way when stop() came.
  if (stopping_) raw.abort();
}

void Worker::bury(Connection& connection) {
  const std::size_t slot = connection.slot();
  buried_.push_back(std::move(connections_[slot]));
  if (slot + 1 != connections_.size()) {
    connections_[slot] = std::move(connections_.back());
    connections_[slot]->set_slot(slot);
  }
  connections_.pop_back();
  load_.fetch_sub(1, std::memory_order_relaxed);
}

std::size_t Worker::abort_if(const std::function<bool(const Connection&)>& which) {
  const auto picked = pick(which);
  for (Connection* connection : picked) connection->abort();
  return picked.size();
}

// Whatever ends a connection moves entries of the table around: collect first.
std::vector<Connection*> Worker::pick(const std::function<bool(const Connection&)>& which,
                                      std::size_t most) const {
  std::vector<Connection*> picked;
  for (const auto& connection : connections_) {
    if (picked.size() == most) break;
    if (which(*connection)) picked.push_back(connection.get());
  }
  return picked;
}

std::size_t Worker::being_set_up() const {
  return pick([](const Connection& c) { return !c.can_pause(); }).size();
}

std::size_t Worker::pause_established() {
  const auto picked = pick([](const Connection& c) { return c.can_pause() && !c.paused(); });
  for (Connection* connection : picked) connection->pause();
  return picked.size();
}

Result<std::vector<HandedOver>> Worker::export_paused(std::size_t most) {
  std::vector<HandedOver> batch;
  for (Connection* connection :
       pick([](const Connection& c) { return c.can_pause() && c.paused() && !c.exported(); },
            most)) {
    auto exported = connection->export_paused();
    if (!exported) return tl::unexpected(std::move(exported).error());
    batch.push_back(std::move(*exported));
  }
  return batch;
}

std::size_t Worker::resume_paused() {
  const auto picked = pick([](const Connection& c) { return c.paused(); });
  for (Connection* connection : picked) connection->resume();
  return picked.size();
}

std::size_t Worker::release_paused() {
  const auto picked =
      pick([](const Connection& c) { return c.can_pause() && c.paused() && c.exported(); });
  for (Connection* connection : picked) connection->release();
  return picked.size();
}

std::vector<HandedOver> Worker::take_established(std::size_t most) {
  std::vector<HandedOver> batch;
  // What is paused is the successor's, or about to be.
  for (Connection* connection :
       pick([](const Connection& c) { return c.can_pause() && !c.paused(); }, most)) {
    connection->pause();
    if (auto exported = connection->export_paused()) {
      batch.push_back(std::move(*exported));
      connection->release();
    } else {
      connection->resume();  // no descriptor, most likely: the next call tries again
    }
  }
  return batch;
}

void Worker::for_each(const std::function<void(const Connection&)>& visit) const {
  for (const auto& connection : connections_) visit(*connection);
}

void Worker::run_posted() {
  // Before the queue is looked at: a post that poll() does not see finds `false` and wakes us
  // again.
  woken_.store(false, std::memory_order_release);
  (void)context_.poll();
}

void Worker::run() {
  std::array<epoll_event, 128> events;
  std::vector<std::coroutine_handle<>> turn;
  // An aborted coroutine may still stand in the ready queue: it leaves the table when it has run.
  while (!stopping_ || !connections_.empty() || !ready_.empty()) {
    // What is not fetched stays in the set. Beside bulk an event may be a quantum of it, too.
    const std::size_t most = ready_.empty() ? events.size() : kEventsBesideBulk;
    const int n = ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(most), timeout_ms());
    turn.swap(ready_);
    bool posted = false;
    for (int i = 0; i < n; ++i) {
      const epoll_event& event = events[static_cast<std::size_t>(i)];
      if (event.data.ptr == nullptr)
        posted = true;
      else
        static_cast<EventSink*>(event.data.ptr)->on_events(event.events);
    }
    // Whoever asks does not wait until every bulk transfer has had its quantum. Not between events:
    // one of them may be for a connection that is halted by then.
    for (auto handle : turn) {
      handle.resume();
      if (woken_.load(std::memory_order_relaxed)) run_posted();
    }
    turn.clear();
    if (posted) run_posted();
    expire();
    buried_.clear();
    buried_sinks_.clear();
  }
}

}  // namespace mesh::relay
