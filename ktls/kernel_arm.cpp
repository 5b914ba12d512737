// SPDX-License-Identifier: Apache-2.0
// Installing keys into a socket, and finding out whether this kernel takes them.
#include <arpa/inet.h>
#include <linux/tls.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "agent/base/unique_fd.h"
#include "ktls/handshake.h"
#include "ktls/kernel_stream.h"

#ifndef SOL_TLS
#define SOL_TLS 282
#endif

namespace mesh::ktls {
namespace {

union CryptoInfo {
  tls_crypto_info info;
  tls12_crypto_info_aes_gcm_128 aes128;
  tls12_crypto_info_aes_gcm_256 aes256;
  tls12_crypto_info_chacha20_poly1305 chacha;
};

// Fills `info` (RFC 8446 IV: salt and iv in one) and returns its length.
template <typename T>
socklen_t fill(T& info, std::uint16_t cipher, const StreamState::Direction& direction) {
  info.info.version = TLS_1_3_VERSION;
  info.info.cipher_type = cipher;
  std::memcpy(info.key, direction.keys.key.data(), sizeof(info.key));
  if constexpr (sizeof(info.iv) == kIvBytes) {
    std::memcpy(info.iv, direction.keys.iv.data(), kIvBytes);
  } else {
    std::memcpy(info.salt, direction.keys.iv.data(), sizeof(info.salt));
    std::memcpy(info.iv, direction.keys.iv.data() + sizeof(info.salt), sizeof(info.iv));
  }
  for (std::size_t i = 0; i < 8; ++i) {
    info.rec_seq[i] = static_cast<unsigned char>(direction.sequence >> (8 * (7 - i)));
  }
  return sizeof(info);
}

Status install(int fd, int option, Cipher cipher, const StreamState::Direction& direction) {
  CryptoInfo crypto{};
  socklen_t length = 0;
  switch (cipher) {
    case Cipher::Aes128Gcm:
      length = fill(crypto.aes128, TLS_CIPHER_AES_GCM_128, direction);
      break;
    case Cipher::Aes256Gcm:
      length = fill(crypto.aes256, TLS_CIPHER_AES_GCM_256, direction);
      break;
    case Cipher::ChaCha20Poly1305:
      length = fill(crypto.chacha, TLS_CIPHER_CHACHA20_POLY1305, direction);
      break;
  }
  const int result = ::setsockopt(fd, SOL_TLS, option, &crypto, length);
  const int errnum = errno;
  OPENSSL_cleanse(&crypto, sizeof(crypto));
  if (result == 0) return {};
  const std::string what =
      fmt::format("{} with {}", option == TLS_TX ? "TLS_TX" : "TLS_RX", traits_of(cipher).suite);
  if (errnum == ENOENT) {
    return fail_errno(errnum, what + ": the kernel has no crypto module for this cipher");
  }
  return fail_errno(errnum, what);
}

// The kernel attaches the ULP to an established socket only (tls_init). A peer that said all that
// it had to say, FIN included, with the end of its handshake has moved ours on; nothing else is
// wrong with it.
bool only_peer_closed(int fd) {
  tcp_info info{};
  socklen_t length = sizeof(info);
  return ::getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length) == 0 &&
         info.tcpi_state == TCP_CLOSE_WAIT;
}

struct LoopbackPair {
  UniqueFd client;
  UniqueFd server;
};

Result<LoopbackPair> loopback_pair() {
  UniqueFd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof(address);
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  if (!listener || ::bind(listener.get(), generic, length) != 0 ||
      ::listen(listener.get(), 1) != 0 || ::getsockname(listener.get(), generic, &length) != 0) {
    return fail_errno(errno, "a listener on 127.0.0.1");
  }
  LoopbackPair pair;
  pair.client.reset(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  // A connect to the loopback device does not wait for anybody.
  if (!pair.client || ::connect(pair.client.get(), generic, length) != 0) {
    return fail_errno(errno, "connect to 127.0.0.1");
  }
  pair.server.reset(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  if (!pair.server) return fail_errno(errno, "accept from 127.0.0.1");
  return pair;
}

Status move_bytes(KernelStream& from, int from_fd, KernelStream& to, int to_fd) {
  std::array<std::byte, 100> sent;
  sent.fill(std::byte{0x5a});
  std::array<std::byte, 200> got{};
  const Io written = from.write(from_fd, sent);
  if (written.kind != Io::Kind::Bytes || written.bytes != sent.size()) {
    return fail_errno(written.errnum, "send over TLS");
  }
  pollfd entry{to_fd, POLLIN, 0};
  if (::poll(&entry, 1, 2000) != 1) return fail_errno(ETIMEDOUT, "receive over TLS");
  const Io read = to.read(to_fd, got);
  if (read.kind != Io::Kind::Bytes || read.bytes != sent.size() ||
      !std::equal(sent.begin(), sent.end(), got.begin())) {
    return fail_errno(read.kind == Io::Kind::Failed ? read.errnum : EBADMSG, "receive over TLS");
  }
  return {};
}

}  // namespace

tl::expected<void, ArmError> arm_kernel(int fd, const StreamState& state) {
  if (::setsockopt(fd, IPPROTO_TCP, TCP_ULP, "tls", 4) != 0) {
    const int errnum = errno;
    const auto error =
        errnum == ENOENT
            ? fail_errno(errnum, "TCP_ULP tls: the kernel has no tls module (CONFIG_TLS)")
            : fail_errno(errnum, "TCP_ULP tls");
    return tl::unexpected(ArmError{error.value(), errnum != ENOTCONN || only_peer_closed(fd)});
  }
  // Without keys the ULP passes everything through: the first refusal leaves a usable socket.
  if (auto rx = install(fd, TLS_RX, state.cipher, state.rx); !rx) {
    return tl::unexpected(ArmError{rx.error(), true});
  }
  if (auto tx = install(fd, TLS_TX, state.cipher, state.tx); !tx) {
    return tl::unexpected(ArmError{tx.error(), false});
  }
#ifdef TLS_RX_EXPECT_NO_PAD
  // Saves a copy when the peer does not pad, and only costs a second decryption when it does.
  // Absent before Linux 6.0, where nothing is lost without it.
  const int one = 1;
  (void)::setsockopt(fd, SOL_TLS, TLS_RX_EXPECT_NO_PAD, &one, sizeof(one));
#endif
  return {};
}

KernelKeys kernel_keys(int fd) {
  const auto has = [fd](int direction) {
    tls_crypto_info info{};  // no longer, and the kernel keeps the key to itself
    socklen_t length = sizeof(info);
    return ::getsockopt(fd, SOL_TLS, direction, &info, &length) == 0;
  };
  return {has(TLS_TX), has(TLS_RX)};
}

Status probe_kernel_cipher(Cipher cipher) {
  auto pair = loopback_pair();
  if (!pair) return context(pair.error(), "probe of kernel TLS");
  StreamState client;
  client.cipher = cipher;
  client.limit_records = KeyLimit::kGcmRecords;
  for (auto* direction : {&client.tx, &client.rx}) {
    direction->keys.key.resize(traits_of(cipher).key_bytes);
    direction->keys.iv.resize(kIvBytes);
    for (auto* secret : {&direction->keys.key, &direction->keys.iv}) {
      if (RAND_bytes(secret->data(), static_cast<int>(secret->size())) != 1) {
        return fail("probe of kernel TLS: no random bytes");
      }
    }
  }
  StreamState server = client;
  std::swap(server.tx, server.rx);
  if (auto armed = arm_kernel(pair->client.get(), client); !armed) {
    return tl::unexpected(armed.error().error);
  }
  if (auto armed = arm_kernel(pair->server.get(), server); !armed) {
    return tl::unexpected(armed.error().error);
  }
  KernelStream at_client(std::move(client));
  KernelStream at_server(std::move(server));
  MESH_TRY(move_bytes(at_client, pair->client.get(), at_server, pair->server.get()),
           traits_of(cipher).suite);
  MESH_TRY(move_bytes(at_server, pair->server.get(), at_client, pair->client.get()),
           traits_of(cipher).suite);
  return {};
}

Status probe_kernel_tls() {
  for (const Cipher cipher : {Cipher::Aes128Gcm, Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305}) {
    MESH_TRY(probe_kernel_cipher(cipher), "kernel TLS");
  }
  return {};
}

}  // namespace mesh::ktls
