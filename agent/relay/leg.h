// SPDX-License-Identifier: Apache-2.0
// One side of a relayed connection: owns the socket, knows how to read, write, splice, shut down
// and abort it, and lets a coroutine wait until it can. A leg belongs to one worker's thread.
#pragma once

#include <sys/types.h>

#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <span>

#include "agent/base/result.h"
#include "agent/base/unique_fd.h"
#include "agent/relay/options.h"
#include "agent/relay/worker.h"

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

// Outcome of one non-blocking operation: bytes > 0, or why there are none.
struct Io {
  enum class Kind : std::uint8_t { Bytes, Blocked, Eof, Failed };
  Kind kind = Kind::Blocked;
  int errnum = 0;  // for Failed
  std::size_t bytes = 0;
};

class Leg final : public EventSink {
 public:
  Leg(Worker& worker, LegOwner& owner) : worker_(worker), owner_(owner) {}
  Leg(const Leg&) = delete;
  Leg& operator=(const Leg&) = delete;

  // Takes the socket and puts it into the worker's epoll set. With `connecting` the first
  // until_writable() ends when the connect does.
  Status open(UniqueFd socket, bool connecting);

  Io read(std::span<std::byte> into);
  Io write(std::span<const std::byte> from);
  Io splice_in(int pipe_write_end, std::size_t max);  // socket -> pipe
  Io splice_out(int pipe_read_end, std::size_t max);  // pipe -> socket

  void shutdown_write();
  void close();  // orderly: what was written still goes out
  void abort();  // RST
  [[nodiscard]] bool is_open() const { return fd_.valid(); }
  [[nodiscard]] int fd() const { return fd_.get(); }  // for socket options only
  [[nodiscard]] bool readable() const { return readable_; }
  [[nodiscard]] bool writable() const { return writable_; }
  // Urgent data was announced: splice stops at the mark for good, recv steps over the byte.
  [[nodiscard]] bool urgent() const { return urgent_; }
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
  Io classify(ssize_t n, bool reading);

  Worker& worker_;
  LegOwner& owner_;
  UniqueFd fd_;
  std::coroutine_handle<> reader_;
  std::coroutine_handle<> writer_;
  // The set is edge triggered: these remember the edges until an operation finds them used up.
  bool readable_ = false;
  bool writable_ = true;
  bool watches_writable_ = false;
  bool hangup_ = false;  // the peer's FIN is in the queue: a short read is not the end
  bool urgent_ = false;
};

}  // namespace mesh::relay
