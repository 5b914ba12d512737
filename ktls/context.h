// SPDX-License-Identifier: Apache-2.0
// What is behind ContextPtr: OpenSSL contexts of one identity. The callbacks that they carry find
// their handshake through the SSL object.
#pragma once

#include <string>

#include "agent/base/unique_fd.h"
#include "ktls/handshake.h"
#include "ktls/ossl_ptr.h"
#include "ktls/svid.h"
#include "ktls/verify.h"

namespace mesh::ktls {

class HandshakeImpl;

class Context {
 public:
  SvidPtr svid;
  TrustBundlePtr bundle;
  std::shared_ptr<PskStore> psks;  // null when options.psk is false
  ContextOptions options;
  std::uint64_t epoch = 0;  // of psks before the bundle was looked up
  std::string suites;       // options.ciphers as OpenSSL wants them
  SslCtxPtr client;
  SslCtxPtr server;
  UniqueFd keylog;

  [[nodiscard]] std::chrono::sys_seconds now() const;
};

// For servers that do not know yet which identity is asked for; has no certificate. Null when
// OpenSSL cannot make one.
SSL_CTX* server_entrance();

// Ties an SSL object to its handshake.
bool set_handshake(SSL* ssl, HandshakeImpl* handshake);
HandshakeImpl* handshake_of(const SSL* ssl);

}  // namespace mesh::ktls
