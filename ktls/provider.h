// SPDX-License-Identifier: Apache-2.0
// An OpenSSL provider inside this process, for two things that a handshake spends most of its time
// with: TLS 1.3's key derivation, which here needs no look-ups and also says the traffic secrets
// (OpenSSL has no getter for them), and X25519 key pairs. Arithmetic stays OpenSSL's. Only TLS
// contexts made with kProviderQuery use it.
#pragma once

#include <openssl/core_dispatch.h>

#include <array>
#include <cstddef>
#include <span>

#include "agent/base/result.h"
#include "ktls/hmac.h"

namespace mesh::ktls {

inline constexpr char kProviderQuery[] = "?provider=mesh";

// Once a process, before the first context; any thread.
Status load_provider();

// One direction's application traffic secret, and the key and IV that OpenSSL derives from it.
struct DerivedTraffic {
  SecretBytes secret;
  TrafficKeys keys;
  void wipe();
};

// While it lives, this thread's key derivations belong to one handshake: what follows from its
// application traffic secrets arrives in `client` and `server`, and keys used twice are set up
// once.
class KdfScope {
 public:
  KdfScope(DerivedTraffic& client, DerivedTraffic& server);
  ~KdfScope();
  KdfScope(const KdfScope&) = delete;
  KdfScope& operator=(const KdfScope&) = delete;

  static KdfScope* current();
  // Valid until the next call.
  const HmacKey& key(std::size_t hash_bytes, std::span<const std::uint8_t> secret);
  // HKDF-Expand-Label(`secret`, `label`, .) gave `out`.
  void derived(std::span<const std::uint8_t> secret, std::span<const std::uint8_t> label,
               std::span<const std::uint8_t> out);

 private:
  struct Kept {
    SecretBytes secret;
    HmacKey key;
  };
  DerivedTraffic& client_;
  DerivedTraffic& server_;
  KdfScope* const before_;
  // Two: the handshake secret is asked in between its traffic secrets.
  std::array<Kept, 2> kept_;
  std::size_t oldest_ = 0;
};

// Before the provider is used: OpenSSL's own functions.
Status find_x25519();

// The functions; provider.cpp lists them.
extern const OSSL_DISPATCH kKdfFunctions[];
extern const OSSL_DISPATCH kX25519Keys[];
extern const OSSL_DISPATCH kX25519Exchange[];

// OSSL_DISPATCH holds every function as this.
template <typename Function>
auto dispatched(Function* function) {
  return reinterpret_cast<void (*)()>(function);
}

}  // namespace mesh::ktls
