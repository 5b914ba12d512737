// SPDX-License-Identifier: Apache-2.0
// What OpenSSL reads from and writes to during a handshake: the socket, with a bound on what the
// peer may send, a look at its first bytes, and no SIGPIPE.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "ktls/ossl_ptr.h"

namespace mesh::ktls {

class Wire {
 public:
  // More handshake bytes than this nobody needs: a certificate list is bounded separately.
  static constexpr std::size_t kMaxReceived = 65536;

  enum class Trouble : std::uint8_t { None, PeerClosed, NotTls, TooLarge, Socket };

  explicit Wire(int fd) : fd_(fd) {}
  Wire(const Wire&) = delete;
  Wire& operator=(const Wire&) = delete;

  // A BIO over this, which must outlive it; null when there is no memory.
  BioPtr make_bio();

  // Receives the first record's header ahead of OpenSSL, so that a peer that says nothing costs no
  // TLS state. True when it is there (or trouble() says why it never will be), false: not yet.
  bool await_header();

  [[nodiscard]] Trouble trouble() const { return trouble_; }
  [[nodiscard]] int errnum() const { return errnum_; }  // for Socket
  [[nodiscard]] std::size_t received() const { return received_; }

 private:
  enum class Got : std::uint8_t { Bytes, Blocked, Trouble };
  Got receive(std::uint8_t* into, std::size_t size, std::size_t& got);
  static int bio_read(BIO* bio, char* into, int size);
  static int bio_write(BIO* bio, const char* from, int size);
  static long bio_ctrl(BIO* bio, int command, long number, void* pointer);
  static const BIO_METHOD* method();

  int fd_;
  std::array<std::uint8_t, 5> header_{};
  std::size_t header_have_ = 0;   // received by await_header()
  std::size_t header_given_ = 0;  // of it, to OpenSSL
  std::size_t received_ = 0;
  Trouble trouble_ = Trouble::None;
  int errnum_ = 0;
};

}  // namespace mesh::ktls
