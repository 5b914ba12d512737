// SPDX-License-Identifier: Apache-2.0
#include "agent/dns/stream.h"

#include <sys/socket.h>

#include <boost/asio/read.hpp>
#include <boost/asio/write.hpp>

#include "agent/dns/limits.h"

namespace mesh::dns {
namespace net = boost::asio;
using boost::system::error_code;
namespace {

constexpr std::size_t kMaxQueued = 256 * 1024;  // bytes in one direction, and one message more

net::generic::stream_protocol protocol(int family) { return {family, IPPROTO_TCP}; }

}  // namespace

Stream::Stream(const Environment& environment, int family, UniqueFd client,
               std::optional<Endpoint> resolver, Closed closed)
    : env_(environment),
      resolver_(resolver),
      closed_(std::move(closed)),
      client_(env_.io),
      upstream_(env_.io),
      idle_(env_.io) {
  error_code code;
  client_.socket.assign(protocol(family), client.get(), code);
  if (!code) (void)client.release();
}

void Stream::start() {
  touch();
  read(client_);
}

void Stream::close() {
  if (!closed_) return;
  const Closed closed = std::exchange(closed_, nullptr);
  error_code ignored;
  client_.socket.close(ignored);
  upstream_.socket.close(ignored);
  idle_.cancel();
  closed(*this);
}

void Stream::touch() {
  idle_.expires_after(kStreamIdle);
  idle_.async_wait([self = shared_from_this()](error_code code) {
    if (!code) self->close();
  });
}

void Stream::read(End& end) {
  if (end.reading || end.ended || !closed_) return;
  End& other = &end == &client_ ? upstream_ : client_;
  if (client_.queued > kMaxQueued || other.queued > kMaxQueued) return;  // resume() comes again
  end.reading = true;
  net::async_read(
      end.socket, net::buffer(end.length),
      [self = shared_from_this(), &end](error_code code, std::size_t) {
        if (code) {
          end.reading = false;
          return self->on_end(end);
        }
        end.incoming.resize(static_cast<std::size_t>(end.length[0] << 8 | end.length[1]));
        net::async_read(end.socket, net::buffer(end.incoming),
                        [self, &end](error_code failed, std::size_t) {
                          end.reading = false;
                          if (failed) return self->on_end(end);
                          self->on_message(end);
                        });
      });
}

void Stream::on_message(End& end) {
  if (!closed_) return;
  touch();
  Message message = std::exchange(end.incoming, {});
  if (&end == &client_)
    from_client(std::move(message));
  else
    write(client_, message);
  read(end);
}

void Stream::from_client(Message message) {
  if (!env_.rate.take(Rate::Clock::now())) {
    count(env_.counters.rate_limited);
    return close();
  }
  const auto verdict = env_.responder.handle(message, /*udp=*/false);
  if (const auto* answer = std::get_if<std::vector<std::uint8_t>>(&verdict))
    write(client_, *answer);
  else if (std::holds_alternative<Drop>(verdict))
    close();
  else
    to_resolver(std::move(message));
}

void Stream::to_resolver(Message message) {
  if (!resolver_) {
    count(env_.counters.no_resolver);
    return write(client_, env_.responder.fail(message, Rcode::Refused));
  }
  count(env_.counters.forwarded);
  write(upstream_, message);
  if (!connected_ && !connecting_) connect_resolver();
}

void Stream::connect_resolver() {
  const SockAddr address(*resolver_);
  auto fd = env_.sockets.make(address.family(), Transport::Tcp);
  error_code code;
  if (fd) upstream_.socket.assign(protocol(address.family()), fd->get(), code);
  if (!fd || code) {
    count(env_.counters.forward_failed);
    return close();
  }
  (void)fd->release();
  connecting_ = true;
  const net::generic::stream_protocol::endpoint target(address.get(), address.length);
  upstream_.socket.async_connect(target, [self = shared_from_this()](error_code failed) {
    self->connecting_ = false;
    if (failed) {
      if (self->closed_) count(self->env_.counters.forward_failed);
      return self->close();  // as if the resolver had refused the client itself
    }
    self->connected_ = true;
    self->flush(self->upstream_);
    self->read(self->upstream_);
  });
}

void Stream::write(End& end, std::span<const std::uint8_t> message) {
  if (!closed_ || message.empty() || message.size() > kMaxMessage) return;
  Message framed;
  framed.reserve(message.size() + 2);
  framed.push_back(static_cast<std::uint8_t>(message.size() >> 8));
  framed.push_back(static_cast<std::uint8_t>(message.size()));
  framed.insert(framed.end(), message.begin(), message.end());
  end.queued += framed.size();
  end.queue.push_back(std::move(framed));
  flush(end);
}

void Stream::flush(End& end) {
  if (end.writing || end.queue.empty() || (&end == &upstream_ && !connected_)) return;
  end.writing = true;
  net::async_write(end.socket, net::buffer(end.queue.front()),
                   [self = shared_from_this(), &end](error_code code, std::size_t) {
                     end.writing = false;
                     if (code) return self->close();
                     end.queued -= end.queue.front().size();
                     end.queue.pop_front();
                     self->flush(end);
                     self->resume();
                   });
}

void Stream::resume() {
  if (!closed_) return;
  if (client_.ended && client_.queue.empty() && upstream_.queue.empty() && !connected_ &&
      !connecting_)
    return close();
  if (upstream_.ended && client_.queue.empty()) return close();
  read(client_);
  if (connected_) read(upstream_);
}

// A client that has said all may still wait for answers; a resolver that has is done.
void Stream::on_end(End& end) {
  if (!closed_) return;
  end.ended = true;
  if (&end == &client_ && connected_ && upstream_.queue.empty()) {
    error_code ignored;
    upstream_.socket.shutdown(Socket::shutdown_send, ignored);
  }
  resume();
}

}  // namespace mesh::dns
