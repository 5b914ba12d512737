// SPDX-License-Identifier: Apache-2.0
#include "agent/dns/forward.h"

#include <sys/random.h>
#include <sys/socket.h>

#include <array>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cerrno>

#include "agent/dns/limits.h"
#include "agent/dns/message.h"

namespace mesh::dns {
namespace net = boost::asio;

class Forwarder::Flight : public std::enable_shared_from_this<Flight> {
 public:
  Flight(Forwarder& owner, std::span<const std::uint8_t> question, Done done)
      : owner_(&owner),
        socket_(owner.io_),
        deadline_(owner.io_),
        question_(question.begin(), question.end()),
        client_id_(id_of(question)),
        done_(std::move(done)) {}

  // The socket is connected: the kernel drops what others send, and tells us of ICMP errors.
  bool start(UniqueFd fd) {
    boost::system::error_code failed;
    socket_.assign(fd.get(), failed);
    if (failed) return false;
    (void)fd.release();  // the descriptor closes it
    std::uint16_t id = 0;
    if (::getrandom(&id, sizeof id, 0) != sizeof id) return false;
    set_id(question_, id);
    if (::send(socket_.native_handle(), question_.data(), question_.size(), MSG_NOSIGNAL) < 0)
      return false;
    deadline_.expires_after(kForwardTimeout);
    deadline_.async_wait([self = shared_from_this()](boost::system::error_code code) {
      if (code || self->owner_ == nullptr) return;
      count(self->owner_->counters_.forward_timeout);
      self->end();
    });
    wait();
    return true;
  }

  void cancel() {
    owner_ = nullptr;
    boost::system::error_code ignored;
    socket_.close(ignored);
    deadline_.cancel();
  }

 private:
  void wait() {
    socket_.async_wait(net::posix::stream_descriptor::wait_read,
                       [self = shared_from_this()](boost::system::error_code code) {
                         if (!code && self->owner_ != nullptr) self->read();
                       });
  }

  void read() {
    thread_local std::array<std::uint8_t, kMaxMessage> buffer;
    for (;;) {
      const auto n = ::recv(socket_.native_handle(), buffer.data(), buffer.size(), MSG_DONTWAIT);
      if (n < 0 && (errno == EAGAIN || errno == EINTR)) return wait();
      if (n < 0) {
        count(owner_->counters_.forward_failed);
        return finish({});
      }
      const std::span<std::uint8_t> answer(buffer.data(), static_cast<std::size_t>(n));
      // What does not fit the question is somebody's guess: the true answer may still come.
      if (answer.size() < kHeader || !is_response(answer) || id_of(answer) != id_of(question_) ||
          !(same_question(answer, question_) || is_bare_error(answer)))
        continue;
      set_id(answer, client_id_);
      return finish(answer);
    }
  }

  void finish(std::span<const std::uint8_t> answer) {
    const Done done = std::move(done_);
    end();
    done(answer);
  }

  void end() { owner_->land(this); }

  Forwarder* owner_;  // null: the forwarder is gone
  net::posix::stream_descriptor socket_;
  net::steady_timer deadline_;
  std::vector<std::uint8_t> question_;
  const std::uint16_t client_id_;
  Done done_;
};

Forwarder::Forwarder(net::io_context& io, const NamespaceSockets& sockets, Counters& counters)
    : io_(io), sockets_(sockets), counters_(counters) {}

Forwarder::~Forwarder() {
  for (const auto& flight : flights_) flight->cancel();
}

bool Forwarder::send(std::span<const std::uint8_t> question, const Endpoint& resolver, Done done) {
  if (flights_.size() >= kMaxForwards) {
    count(counters_.overflow);
    return false;
  }
  const SockAddr address(resolver);
  auto fd = sockets_.make(address.family(), Transport::Udp);
  if (!fd || ::connect(fd->get(), address.get(), address.length) != 0) {
    count(counters_.forward_failed);
    return false;
  }
  auto flight = std::make_shared<Flight>(*this, question, std::move(done));
  flights_.push_front(flight);
  if (!flight->start(std::move(*fd))) {
    count(counters_.forward_failed);
    land(flight.get());
    return false;
  }
  count(counters_.forwarded);
  return true;
}

void Forwarder::land(Flight* flight) {
  flights_.remove_if([&](const std::shared_ptr<Flight>& other) {
    if (other.get() != flight) return false;
    other->cancel();
    return true;
  });
}

}  // namespace mesh::dns
