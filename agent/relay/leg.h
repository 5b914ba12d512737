// SPDX-License-Identifier: Apache-2.0
// One side of a relayed connection: owns the socket, knows how to read, write, splice, shut down
// and abort it, and lets a coroutine wait until it can. A leg belongs to one worker's thread.
#pragma once

#include <sys/types.h>

#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>

#include "agent/base/io.h"
#include "agent/base/result.h"
#include "agent/base/unique_fd.h"
#include "agent/relay/options.h"
#include "agent/relay/worker.h"
#include "ktls/stream.h"

namespace mesh::relay {

class Leg;

// TCP_NODELAY and keep-alive. On a listener the accepted sockets inherit them.
Status set_leg_options(int fd, const PoolOptions& options);
// TCP_NODELAY alone: when the other end is on the loopback, it cannot vanish unnoticed.
Status set_no_delay(int fd);

// Told when the kernel reports an error on a leg, whether or not anybody reads or writes it.
class LegOwner {
 public:
  virtual void leg_failed(Leg& leg, int errnum) = 0;

 protected:
  ~LegOwner() = default;
};

class Leg final : public EventSink {
 public:
  Leg(Worker& worker, LegOwner& owner) : worker_(worker), owner_(owner) {}
  Leg(const Leg&) = delete;
  Leg& operator=(const Leg&) = delete;

  // Takes the socket and puts it into the worker's epoll set. With `connecting` the first
  // until_writable() ends when the connect does.
  Status open(UniqueFd socket, bool connecting);

  // From here on everything goes through TLS.
  void secure(std::unique_ptr<ktls::Stream> stream) { stream_ = std::move(stream); }
  [[nodiscard]] ktls::Stream* stream() const { return stream_.get(); }

  Io read(std::span<std::byte> into);
  Io write(std::span<const std::byte> from);
  [[nodiscard]] bool can_splice_in() const { return !stream_ || stream_->can_splice(); }
  Io splice_in(int pipe_write_end, std::size_t max);  // socket -> pipe
  // pipe -> socket; never into TLS, which loses bytes when it does not block.
  Io splice_out(int pipe_read_end, std::size_t max);
  // Bytes that TLS has taken and the socket has not.
  [[nodiscard]] bool unsent() const { return stream_ && stream_->unsent(); }
  Io flush();

  // Somebody else (the handshake) read or wrote until the socket would have blocked.
  void read_blocked() { readable_ = false; }
  // Something may be there of which no event has told yet.
  void try_read() { readable_ = true; }
  void write_blocked() { writable_ = false; }

  // The end of our direction. On a TLS leg Blocked means: again when writable. `reusable` ends the
  // connection and not the leg.
  enum class Ending : std::uint8_t { Close, Reusable };
  Io end_write(Ending ending);
  void shutdown_write();
  // Another process has a descriptor of the same socket: closing ours does not take it out of the
  // set, and ends nothing, so both are done by hand before it is closed.
  void share() { shared_ = true; }
  [[nodiscard]] bool shared() const { return shared_; }
  // Out of the worker's set, so that no event comes, and into it again.
  void suspend();
  Status resume();
  // The socket and what secures it, out of the worker's set; the leg is closed then.
  std::pair<UniqueFd, std::unique_ptr<ktls::Stream>> detach();
  // The socket of a plain leg whose two directions have ended, free to connect again; nothing when
  // the peer has not acknowledged all of it, or another process has it too. The leg is closed then,
  // or as it was.
  UniqueFd disconnect();
  void acknowledge();   // at once what waits for data to go with
  void close();         // orderly: what was written still goes out
  void abort();         // RST, whoever else has the socket
  void forget();        // the same, and open() may follow; in a later turn of the worker's loop
  void end_in_order();  // takes back that the last close of the socket is an RST
  [[nodiscard]] bool is_open() const { return fd_.valid(); }
  [[nodiscard]] int fd() const { return fd_.get(); }  // for socket options only
  [[nodiscard]] bool readable() const { return readable_ || (stream_ && stream_->buffered()); }
  [[nodiscard]] bool writable() const { return writable_; }
  // Urgent data was announced: splice stops at the mark for good, recv steps over the byte.
  [[nodiscard]] bool urgent() const { return urgent_; }
  void set_urgent() { urgent_ = true; }
  // Result of a connect that has ended, 0 = connected.
  [[nodiscard]] int connect_error() const;

  // Both return at once on a leg that is not open, and are resumed when it is closed under them.
  auto until_readable() { return Wait{*this, &Leg::reader_, readable_ || !is_open()}; }
  auto until_writable() {
    if (!writable_) watch_writable();
    return Wait{*this, &Leg::writer_, writable_ || !is_open()};
  }
  // Resumes whoever waits. The caller has closed the leg before.
  void wake_all();

  void on_events(std::uint32_t events) override;

 private:
  struct Wait {
    Leg& leg;
    std::coroutine_handle<> Leg::*slot;
    bool ready;
    [[nodiscard]] bool await_ready() const noexcept { return ready; }
    void await_suspend(std::coroutine_handle<> handle) const noexcept { leg.*slot = handle; }
    void await_resume() const noexcept {}
  };

  void watch_writable();
  void leave();
  void end_for_all();
  Io classify(ssize_t n, bool reading);
  Io tls(Io io, bool reading);

  Worker& worker_;
  LegOwner& owner_;
  UniqueFd fd_;
  std::unique_ptr<ktls::Stream> stream_;  // null: plain TCP
  std::coroutine_handle<> reader_;
  std::coroutine_handle<> writer_;
  // The set is edge triggered: these remember the edges until an operation finds them used up.
  bool readable_ = false;
  bool writable_ = true;
  bool watches_writable_ = false;
  bool hangup_ = false;  // the peer's FIN is in the queue: a short read is not the end
  bool urgent_ = false;
  bool shared_ = false;
};

}  // namespace mesh::relay
