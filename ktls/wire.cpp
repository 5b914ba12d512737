// SPDX-License-Identifier: Apache-2.0
#include "ktls/wire.h"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace mesh::ktls {

Wire::Got Wire::receive(std::uint8_t* into, std::size_t size, std::size_t& got) {
  if (trouble_ != Trouble::None) return Got::Trouble;
  size = std::min(size, kMaxReceived - received_);
  if (size == 0) {
    trouble_ = Trouble::TooLarge;
    return Got::Trouble;
  }
  ssize_t n = 0;
  do {
    n = ::recv(fd_, into, size, MSG_DONTWAIT);
  } while (n < 0 && errno == EINTR);
  if (n < 0) {
    if (errno == EAGAIN) return Got::Blocked;
    errnum_ = errno;
    trouble_ = errnum_ == ECONNRESET ? Trouble::PeerClosed : Trouble::Socket;
    return Got::Trouble;
  }
  if (n == 0) {
    trouble_ = Trouble::PeerClosed;
    return Got::Trouble;
  }
  got = static_cast<std::size_t>(n);
  // Handshake or alert, then a version 3.x: anything else is no TLS record.
  for (std::size_t i = 0; i < got && received_ + i < 2; ++i) {
    const bool fits = received_ + i == 0 ? into[i] == 22 || into[i] == 21 : into[i] == 3;
    if (!fits) {
      trouble_ = Trouble::NotTls;
      return Got::Trouble;
    }
  }
  received_ += got;
  return Got::Bytes;
}

bool Wire::await_header() {
  while (header_have_ < header_.size()) {
    std::size_t got = 0;
    switch (receive(header_.data() + header_have_, header_.size() - header_have_, got)) {
      case Got::Bytes:
        header_have_ += got;
        break;
      case Got::Blocked:
        return false;
      case Got::Trouble:
        return true;
    }
  }
  return true;
}

int Wire::bio_read(BIO* bio, char* into, int size) {
  BIO_clear_retry_flags(bio);
  auto* self = static_cast<Wire*>(BIO_get_data(bio));
  if (size <= 0) return 0;
  const auto room = static_cast<std::size_t>(size);
  if (self->header_given_ < self->header_have_) {
    const std::size_t count = std::min(room, self->header_have_ - self->header_given_);
    std::memcpy(into, self->header_.data() + self->header_given_, count);
    self->header_given_ += count;
    return static_cast<int>(count);
  }
  std::size_t got = 0;
  switch (self->receive(reinterpret_cast<std::uint8_t*>(into), room, got)) {
    case Got::Bytes:
      return static_cast<int>(got);
    case Got::Blocked:
      BIO_set_retry_read(bio);
      return -1;
    case Got::Trouble:
      break;
  }
  return -1;
}

int Wire::bio_write(BIO* bio, const char* from, int size) {
  BIO_clear_retry_flags(bio);
  auto* self = static_cast<Wire*>(BIO_get_data(bio));
  if (size <= 0) return 0;
  ssize_t n = 0;
  do {
    n = ::send(self->fd_, from, static_cast<std::size_t>(size), MSG_DONTWAIT | MSG_NOSIGNAL);
  } while (n < 0 && errno == EINTR);
  if (n >= 0) return static_cast<int>(n);
  if (errno == EAGAIN) {
    BIO_set_retry_write(bio);
  } else if (self->trouble_ == Trouble::None) {
    self->errnum_ = errno;
    self->trouble_ = errno == EPIPE || errno == ECONNRESET ? Trouble::PeerClosed : Trouble::Socket;
  }
  return -1;
}

long Wire::bio_ctrl(BIO*, int command, long, void*) {
  return command == BIO_CTRL_FLUSH ? 1 : 0;  // nothing is held back here
}

const BIO_METHOD* Wire::method() {
  struct Free {
    void operator()(BIO_METHOD* method) const { BIO_meth_free(method); }
  };
  static const std::unique_ptr<BIO_METHOD, Free> made = [] {
    std::unique_ptr<BIO_METHOD, Free> fresh(
        BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "mesh wire"));
    if (fresh) {
      BIO_meth_set_read(fresh.get(), &Wire::bio_read);
      BIO_meth_set_write(fresh.get(), &Wire::bio_write);
      BIO_meth_set_ctrl(fresh.get(), &Wire::bio_ctrl);
    }
    return fresh;
  }();
  return made.get();
}

BioPtr Wire::make_bio() {
  BioPtr bio(method() == nullptr ? nullptr : BIO_new(method()));
  if (bio) {
    BIO_set_data(bio.get(), this);
    BIO_set_init(bio.get(), 1);
  }
  return bio;
}

}  // namespace mesh::ktls
