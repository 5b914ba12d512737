// SPDX-License-Identifier: Apache-2.0
// A mutual TLS 1.3 handshake on a non-blocking socket, driven by whoever knows when the socket is
// ready (the relay's coroutines). Nothing is read beyond the handshake, no ticket and no KeyUpdate
// is sent. No OpenSSL in this header.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <vector>

#include "agent/base/result.h"
#include "ktls/cipher.h"
#include "ktls/fwd.h"
#include "ktls/peer.h"
#include "ktls/psk_store.h"
#include "ktls/stream.h"

namespace mesh::ktls {

// X(id, text of the metric label)
#define MESH_HANDSHAKE_FAILURES(X)                                                    \
  X(Timeout, "timeout")                                                               \
  X(PeerClosed, "peer_closed")  /* FIN or RST in the middle */                        \
  X(NotTls, "not_tls")          /* the first bytes are no TLS record */               \
  X(Protocol, "protocol")       /* malformed messages, no common version or cipher */ \
  X(Alert, "alert")             /* the peer refused us */                             \
  X(TooLarge, "too_large")      /* more handshake bytes than anybody needs */         \
  X(Sni, "sni")                 /* missing, or not for us */                          \
  X(Certificate, "certificate") /* see PeerReject */                                  \
  X(Psk, "psk")                                                                       \
  X(Arm, "arm") /* keys could not be installed */                                     \
  X(Internal, "internal")                                                             \
  X(FragmentLength, "fragment_length") /* it asks for shorter records than ours */

enum class HandshakeFailure : std::uint8_t {
#define MESH_X(id, text) id,
  MESH_HANDSHAKE_FAILURES(MESH_X)
#undef MESH_X
      Count
};
std::string_view to_string(HandshakeFailure reason);

struct HandshakeError {
  HandshakeFailure reason = HandshakeFailure::Internal;
  std::optional<PeerReject> certificate;  // for Certificate
  std::string what;
};

// AES-128-GCM, AES-256-GCM, ChaCha20-Poly1305.
std::vector<Cipher> default_ciphers();

struct ContextOptions {
  std::vector<Cipher> ciphers = default_ciphers();  // in order of preference
  bool kernel = true;  // false: the user-space record layer even where the kernel has tls
  bool psk = true;
  std::uint64_t limit_records = KeyLimit::kGcmRecords;  // see KeyLimit; smaller in tests only
  std::string keylog_file;                              // NSS key log; tests only
  std::function<std::chrono::sys_seconds()> now;        // null: the system clock
};

// What one identity needs to do handshakes: its SVID, the roots, the PSKs (null: none). Immutable;
// a renewed SVID makes a new one, open connections keep theirs. Any thread. `epoch` is what `psks`
// had before the bundle was looked up: PSKs of another one are neither used nor kept, so that roots
// which are replaced in between leave nothing behind.
class Context;
using ContextPtr = std::shared_ptr<const Context>;
Result<ContextPtr> make_context(SvidPtr svid, TrustBundlePtr bundle, std::shared_ptr<PskStore> psks,
                                std::uint64_t epoch, ContextOptions options);
const SvidPtr& svid_of(const Context& context);
// Whether the root by which the peer was verified, at whatever time, is one of these.
bool trusts(const TrustBundle& bundle, const Peer& peer);

// What a finished handshake came to.
struct Established {
  std::unique_ptr<Stream> stream;
  Peer peer;
  bool resumed = false;  // by PSK
  bool kernel = false;
  std::string not_kernel;  // why not, though options.kernel is set
  std::string sni;
  std::string alpn;
};

struct ClientOptions {
  std::string sni;
  std::vector<std::string> alpn;
  std::string expected_node;  // with the peer's ID: which PSK may be offered
  SpiffeId expected_peer;
};

class Handshake {
 public:
  enum class Step : std::uint8_t { WantRead, WantWrite, Done, Failed };
  virtual ~Handshake() = default;

  // Goes on as far as the socket allows. A client is Done before the server has judged its
  // certificate: a refusal then is the first thing that the stream reads (ECONNRESET).
  virtual Step step() = 0;
  [[nodiscard]] virtual const HandshakeError& error() const = 0;  // after Failed

  // After Done: who the peer is, by a certificate that has been verified or by the PSK's entry.
  [[nodiscard]] virtual const Peer& peer() const = 0;
  [[nodiscard]] virtual bool resumed() const = 0;
  [[nodiscard]] virtual const std::string& sni() const = 0;
  [[nodiscard]] virtual const std::string& alpn() const = 0;

  // The caller has accepted the peer: installs the keys (kernel, else user space), keeps a PSK for
  // next time. The handshake is used up.
  virtual tl::expected<Established, HandshakeError> finish() = 0;
  // The caller has refused the peer: an alert (access_denied) is sent if the socket takes it.
  virtual void refuse() = 0;
};

// `fd` is borrowed, non-blocking and connected, and must outlive the handshake.
Result<std::unique_ptr<Handshake>> client_handshake(ContextPtr context, int fd,
                                                    ClientOptions options);

// The server learns from the SNI which identity is asked for: `choose` gives its context, or null
// to refuse (HandshakeFailure::Sni).
using ChooseContext = std::function<ContextPtr(std::string_view sni)>;
Result<std::unique_ptr<Handshake>> server_handshake(ChooseContext choose,
                                                    std::vector<std::string> alpn, int fd);

// Whether this kernel takes TLS keys (tried on a loopback pair, not on a version); the reason if
// not.
Status probe_kernel_tls();

}  // namespace mesh::ktls
