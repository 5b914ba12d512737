// SPDX-License-Identifier: Apache-2.0
// The accept path.
#include "agent/relay/listener.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <cerrno>
#include <utility>

#include "agent/relay/connection.h"
#include "agent/relay/leg.h"

namespace mesh::relay {

namespace {

// A hand-over to another thread costs a wake-up, which short connections would pay for nothing. The
// accepting worker keeps a connection unless it is this much busier than the idlest one.
constexpr std::uint32_t kLocalSlack = 16;

void refuse(UniqueFd client) {
  const linger now{1, 0};
  (void)::setsockopt(client.get(), SOL_SOCKET, SO_LINGER, &now, sizeof(now));  // cannot fail on TCP
}

}  // namespace

Listener::Listener(Worker& home, const Workers& workers, const PoolOptions& options,
                   std::atomic<std::uint64_t>& next_connection, ListenerSetup setup)
    : home_(home),
      workers_(workers),
      options_(options),
      next_connection_(next_connection),
      setup_(std::move(setup)) {}

// Level triggered and one accept a turn: a single connection costs no accept that finds nothing,
// and a flood of them cannot keep the worker from its open connections.
Status Listener::open() {
  const int fd = setup_.socket.get();
  const Address& address = setup_.at.address;
  if (address != Address() && address != Address::from_v4(INADDR_ANY)) local_ = setup_.at;
  MESH_TRY(local_.address.is_loopback() ? set_no_delay(fd) : set_leg_options(fd, options_),
           "relay listener");
  return {};
}

Status Listener::start_accepting() {
  if (accepting_ || !setup_.socket) return {};
  accepting_ = true;
  auto watched = home_.watch(setup_.socket.get(), EPOLLIN, *this);
  if (watched) return {};
  home_.arm(*this, Worker::Clock::now() + options_.accept_pause);
  return context(std::move(watched).error(), "relay listener");
}

void Listener::stop_accepting() {
  home_.disarm(*this);
  if (accepting_) home_.unwatch(setup_.socket.get());  // nothing to take out during a pause
  accepting_ = false;
}

void Listener::close() {
  // Out of the set first: a successor's duplicate would keep it there.
  stop_accepting();
  setup_.socket.reset();
}

Result<HandedListener> Listener::duplicate() const {
  UniqueFd copy(::fcntl(setup_.socket.get(), F_DUPFD_CLOEXEC, 0));
  if (!copy) return fail_errno(errno, "duplicate a relay listener");
  return HandedListener{setup_.netns_cookie, setup_.at, std::move(copy)};
}

void Listener::on_events(std::uint32_t /*events*/) {
  if (!accepting_) return;  // closed earlier in this batch
  sockaddr_storage peer{};
  socklen_t length = sizeof(peer);
  UniqueFd client(::accept4(setup_.socket.get(), reinterpret_cast<sockaddr*>(&peer), &length,
                            SOCK_NONBLOCK | SOCK_CLOEXEC));
  if (!client) {
    switch (errno) {
      case EAGAIN:
      case EINTR:
      case ECONNABORTED:
      case EPERM:
        return;  // this one is gone; a next one raises the event again
      default:
        // EMFILE, ENFILE, ENOBUFS, ENOMEM, or EINVAL after the socket was destroyed under us: the
        // event would come back at once and for ever.
        pause();
        return;
    }
  }
  NewConnection made;
  made.total = LoadTicket::enter(setup_.total);
  if (!made.total) {
    home_.counters().limit_total.add();
    return refuse(std::move(client));
  }
  made.netns = LoadTicket::enter(setup_.netns);
  if (!made.netns) {
    home_.counters().limit_namespace.add();
    return refuse(std::move(client));
  }
  made.accepted.id = next_connection_.fetch_add(1, std::memory_order_relaxed);
  made.accepted.listener = setup_.id;
  made.accepted.netns_cookie = setup_.netns_cookie;
  made.accepted.client = endpoint_of(peer);
  made.accepted.local = local_;
  if (local_.address.is_unset())
    if (auto local = local_endpoint(client.get())) made.accepted.local = *local;
  made.client = std::move(client);
  made.dialer = setup_.dialer;

  Worker& worker = choose();
  worker.add_load();
  if (&worker == &home_) {
    worker.adopt(std::make_unique<Connection>(worker, options_, std::move(made)));
  } else {
    worker.post([&worker, &options = options_, made = std::move(made)]() mutable {
      worker.adopt(std::make_unique<Connection>(worker, options, std::move(made)));
    });
  }
}

Worker& Listener::choose() const {
  Worker* idlest = &home_;
  for (const auto& worker : workers_)
    if (worker->load() < idlest->load()) idlest = worker.get();
  return home_.load() > idlest->load() + kLocalSlack ? *idlest : home_;
}

void Listener::pause() {
  home_.counters().accept_errors.add();
  home_.unwatch(setup_.socket.get());
  home_.arm(*this, Worker::Clock::now() + options_.accept_pause);
}

void Listener::on_deadline() {
  // No memory for the entry: try again later.
  if (!home_.watch(setup_.socket.get(), EPOLLIN, *this))
    home_.arm(*this, Worker::Clock::now() + options_.accept_pause);
}

}  // namespace mesh::relay
