// SPDX-License-Identifier: Apache-2.0
#include "agent/dns/server.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cerrno>
#include <csignal>
#include <future>
#include <iterator>
#include <list>

#include "agent/base/log.h"
#include "agent/dns/forward.h"
#include "agent/dns/limits.h"
#include "agent/dns/rate.h"
#include "agent/dns/stream.h"

namespace mesh::dns {
namespace net = boost::asio;
using boost::system::error_code;

namespace {

constexpr int kDatagramsPerTurn = 64;  // then others have their turn
constexpr std::chrono::milliseconds kAcceptPause{100};
constexpr std::chrono::milliseconds kWatchPause{1000};

using Descriptor = net::posix::stream_descriptor;

}  // namespace

// What is served in one namespace. Its operations hold it; close() ends them all.
class Server::Namespace : public std::enable_shared_from_this<Namespace> {
 public:
  Namespace(Server& server, NamespaceSockets sockets)
      : server_(server),
        sockets_(std::move(sockets)),
        forwarder_(std::make_unique<Forwarder>(server.io_, sockets_, server.counters_)),
        rate_(server.options_.queries_per_second, server.options_.query_burst, Rate::Clock::now()),
        retry_(server.io_) {}

  void add(std::vector<UniqueFd> udp, std::vector<UniqueFd> tcp) {
    std::move(udp.begin(), udp.end(), std::back_inserter(unwatched_udp_));
    std::move(tcp.begin(), tcp.end(), std::back_inserter(unwatched_tcp_));
    watch();
  }

  void close() {
    closed_ = true;
    error_code ignored;
    retry_.cancel();
    unwatched_udp_.clear();
    unwatched_tcp_.clear();
    for (auto& socket : datagrams_) socket->close(ignored);
    for (auto& listener : listeners_) {
      listener->socket.close(ignored);
      listener->pause.cancel();
    }
    forwarder_.reset();
    while (!streams_.empty()) streams_.front()->close();
  }

 private:
  struct Listener {
    explicit Listener(net::io_context& io) : socket(io), pause(io) {}
    Descriptor socket;
    net::steady_timer pause;  // its own: arming a timer again cancels whoever waits for it
  };

  // Sockets that are not in the epoll set yet. epoll_ctl fails without memory and beyond the user's
  // max_user_watches; what is left is tried again, and meanwhile the kernel keeps its questions.
  void watch() {
    std::erase_if(unwatched_udp_, [this](UniqueFd& fd) {
      auto socket = std::make_unique<Descriptor>(server_.io_);
      if (!assign(*socket, fd)) return false;
      datagrams_.push_back(std::move(socket));
      wait_datagram(*datagrams_.back());
      return true;
    });
    std::erase_if(unwatched_tcp_, [this](UniqueFd& fd) {
      auto listener = std::make_unique<Listener>(server_.io_);
      if (!assign(listener->socket, fd)) return false;
      listeners_.push_back(std::move(listener));
      wait_accept(*listeners_.back());
      return true;
    });
    if (unwatched_udp_.empty() && unwatched_tcp_.empty()) return;
    count(server_.counters_.overflow);
    retry_.expires_after(kWatchPause);
    retry_.async_wait([self = shared_from_this()](error_code code) {
      if (!code && !self->closed_) self->watch();
    });
  }

  static bool assign(Descriptor& socket, UniqueFd& fd) {
    error_code failed;
    socket.assign(fd.get(), failed);
    if (!failed) (void)fd.release();  // the descriptor closes it
    return !failed;
  }

  void wait_datagram(Descriptor& socket) {
    socket.async_wait(Descriptor::wait_read, [self = shared_from_this(), &socket](error_code code) {
      if (code || self->closed_) return;
      self->read_datagrams(socket);
      if (!self->closed_) self->wait_datagram(socket);
    });
  }

  void read_datagrams(Descriptor& socket) {
    std::array<std::uint8_t, kMaxQuery> buffer;
    for (int i = 0; i < kDatagramsPerTurn; ++i) {
      SockAddr client;
      client.length = sizeof client.storage;
      const auto n = ::recvfrom(socket.native_handle(), buffer.data(), buffer.size(),
                                MSG_DONTWAIT | MSG_TRUNC, client.get(), &client.length);
      if (n < 0) return;  // nothing left, or an ICMP error for an answer of ours
      if (static_cast<std::size_t>(n) > buffer.size()) {
        count(server_.counters_.malformed);
        continue;
      }
      on_datagram(socket, {buffer.data(), static_cast<std::size_t>(n)}, client);
    }
  }

  void on_datagram(Descriptor& socket, std::span<const std::uint8_t> question,
                   const SockAddr& client) {
    if (!rate_.take(Rate::Clock::now())) return count(server_.counters_.rate_limited);
    const auto verdict = server_.responder_.handle(question, /*udp=*/true);
    if (const auto* answer = std::get_if<std::vector<std::uint8_t>>(&verdict))
      return reply(socket, *answer, client);
    if (std::holds_alternative<Drop>(verdict)) return;
    const auto resolver = sockets_.resolver_of(endpoint_of(client.storage), Transport::Udp);
    if (!resolver) {
      count(server_.counters_.no_resolver);
      return reply(socket, server_.responder_.fail(question, Rcode::Refused), client);
    }
    auto done = [self = shared_from_this(), &socket, client,
                 asked = std::vector<std::uint8_t>(question.begin(), question.end())](
                    std::span<const std::uint8_t> answer) {
      if (answer.empty())
        self->reply(socket, self->server_.responder_.fail(asked, Rcode::ServFail), client);
      else
        self->reply(socket, answer, client);
    };
    if (!forwarder_->send(question, *resolver, std::move(done)))
      reply(socket, server_.responder_.fail(question, Rcode::ServFail), client);
  }

  void reply(Descriptor& socket, std::span<const std::uint8_t> answer, const SockAddr& client) {
    if (closed_ || answer.empty()) return;
    // A full socket buffer loses it, as any network may; the client asks again.
    (void)::sendto(socket.native_handle(), answer.data(), answer.size(),
                   MSG_DONTWAIT | MSG_NOSIGNAL, client.get(), client.length);
  }

  void wait_accept(Listener& listener) {
    listener.socket.async_wait(Descriptor::wait_read,
                               [self = shared_from_this(), &listener](error_code code) {
                                 if (code || self->closed_) return;
                                 self->accept_all(listener);
                               });
  }

  void accept_all(Listener& listener) {
    for (;;) {
      SockAddr client;
      client.length = sizeof client.storage;
      UniqueFd fd(::accept4(listener.socket.native_handle(), client.get(), &client.length,
                            SOCK_NONBLOCK | SOCK_CLOEXEC));
      if (!fd && (errno == ECONNABORTED || errno == EINTR)) continue;
      if (!fd && errno != EAGAIN) return pause_accepting(listener);
      if (!fd) return wait_accept(listener);
      if (streams_.size() >= kMaxStreams) {
        count(server_.counters_.overflow);
        continue;  // closed
      }
      const auto resolver = sockets_.resolver_of(endpoint_of(client.storage), Transport::Tcp);
      auto stream = std::make_shared<Stream>(
          Stream::Environment{server_.io_, server_.responder_, server_.counters_, rate_, sockets_},
          client.family(), std::move(fd), resolver, [self = shared_from_this()](Stream& closed) {
            self->streams_.remove_if([&](const auto& other) { return other.get() == &closed; });
          });
      streams_.push_back(stream);
      stream->start();
    }
  }

  // Out of descriptors, say: the listener stays readable, and waiting for that would spin.
  void pause_accepting(Listener& listener) {
    count(server_.counters_.overflow);
    listener.pause.expires_after(kAcceptPause);
    listener.pause.async_wait([self = shared_from_this(), &listener](error_code code) {
      if (!code && !self->closed_) self->accept_all(listener);
    });
  }

  Server& server_;
  const NamespaceSockets sockets_;
  std::unique_ptr<Forwarder> forwarder_;
  Rate rate_;
  net::steady_timer retry_;
  std::vector<UniqueFd> unwatched_udp_, unwatched_tcp_;
  std::vector<std::unique_ptr<Descriptor>> datagrams_;
  std::vector<std::unique_ptr<Listener>> listeners_;
  std::list<std::shared_ptr<Stream>> streams_;
  bool closed_ = false;
};

Server::Server(ServerOptions options)
    : options_(std::move(options)),
      responder_(counters_),
      work_(net::make_work_guard(io_)),
      thread_([this] { run(); }) {}

// Signals belong to the main thread.
void Server::run() {
  sigset_t all;
  sigfillset(&all);
  (void)::pthread_sigmask(SIG_BLOCK, &all, nullptr);
  io_.run();
}

Server::~Server() {
  net::post(io_, [this] {
    for (auto& [cookie, served] : namespaces_) served->close();
    namespaces_.clear();
    work_.reset();
  });
  thread_.join();
}

void Server::set_catalog(std::shared_ptr<const catalog::Catalog> catalog, Zone::Usable usable) {
  responder_.publish(
      std::make_shared<const Zone>(options_.zone, std::move(catalog), std::move(usable)));
}

void Server::serve(std::uint64_t netns_cookie, NamespaceSockets sockets, std::vector<UniqueFd> udp,
                   std::vector<UniqueFd> tcp) {
  struct Work {
    NamespaceSockets sockets;
    std::vector<UniqueFd> udp, tcp;
  };
  auto work = std::make_shared<Work>(Work{std::move(sockets), std::move(udp), std::move(tcp)});
  net::post(io_, [this, netns_cookie, work] {
    auto& served = namespaces_[netns_cookie];
    if (!served) served = std::make_shared<Namespace>(*this, std::move(work->sockets));
    served->add(std::move(work->udp), std::move(work->tcp));
    served_.store(namespaces_.size(), std::memory_order_relaxed);
  });
}

void Server::drop(std::uint64_t netns_cookie) {
  std::promise<void> dropped;
  net::post(io_, [&] {
    if (const auto it = namespaces_.find(netns_cookie); it != namespaces_.end()) {
      it->second->close();
      namespaces_.erase(it);
    }
    served_.store(namespaces_.size(), std::memory_order_relaxed);
    dropped.set_value();
  });
  dropped.get_future().wait();
}

}  // namespace mesh::dns
