// SPDX-License-Identifier: Apache-2.0
#include "ktls/context.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>

#include "ktls/handshake_impl.h"
#include "ktls/provider.h"

namespace mesh::ktls {
namespace {

// A list of an SVID and its intermediates; several RSA certificates fit.
constexpr long kMaxCertificateList = 32 * 1024;
constexpr unsigned char kSessionContext[] = "mesh";

int ex_index() {
  static const int index = SSL_get_ex_new_index(0, nullptr, nullptr, nullptr, nullptr);
  return index;
}

void on_keylog(const SSL* ssl, const char* line) {
  if (HandshakeImpl* handshake = handshake_of(ssl)) handshake->on_keylog(line);
}

int on_verify(X509_STORE_CTX* store, void*) {
  const auto* ssl = static_cast<const SSL*>(
      X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx()));
  HandshakeImpl* handshake = ssl == nullptr ? nullptr : handshake_of(ssl);
  return handshake != nullptr && handshake->on_verify(store) ? 1 : 0;
}

int on_client_hello(SSL* ssl, int* alert, void*) {
  HandshakeImpl* handshake = handshake_of(ssl);
  return handshake != nullptr && handshake->on_client_hello(ssl, alert) ? SSL_CLIENT_HELLO_SUCCESS
                                                                        : SSL_CLIENT_HELLO_ERROR;
}

int on_alpn(SSL* ssl, const unsigned char** out, unsigned char* out_length, const unsigned char* in,
            unsigned int in_length, void*) {
  const HandshakeImpl* handshake = handshake_of(ssl);
  return handshake != nullptr && handshake->choose_alpn({in, in_length}, out, out_length)
             ? SSL_TLSEXT_ERR_OK
             : SSL_TLSEXT_ERR_NOACK;
}

int on_psk_client(SSL* ssl, const EVP_MD* md, const unsigned char** id, std::size_t* id_length,
                  SSL_SESSION** session) {
  HandshakeImpl* handshake = handshake_of(ssl);
  return handshake == nullptr || handshake->on_psk_client(ssl, md, id, id_length, session) ? 1 : 0;
}

int on_psk_server(SSL* ssl, const unsigned char* id, std::size_t id_length, SSL_SESSION** session) {
  HandshakeImpl* handshake = handshake_of(ssl);
  *session = nullptr;  // not known: a full handshake
  if (handshake != nullptr) *session = handshake->on_psk_server(ssl, {id, id_length});
  return 1;
}

// What every context here has in common.
Result<SslCtxPtr> new_context(bool server) {
  MESH_TRY(load_provider(), "TLS context");
  SslCtxPtr ctx(
      SSL_CTX_new_ex(nullptr, kProviderQuery, server ? TLS_server_method() : TLS_client_method()));
  if (!ctx) return fail_ossl("SSL_CTX_new");
  SSL_CTX* c = ctx.get();
  SSL_CTX_clear_options(c, SSL_OP_ENABLE_MIDDLEBOX_COMPAT);  // no records that say nothing
  SSL_CTX_set_options(c, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                             SSL_OP_CIPHER_SERVER_PREFERENCE);
  SSL_CTX_set_mode(c, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_NO_AUTO_CHAIN);
  SSL_CTX_set_read_ahead(c, 0);
  SSL_CTX_set_session_cache_mode(c, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_max_early_data(c, 0);
  SSL_CTX_set_max_cert_list(c, kMaxCertificateList);
  SSL_CTX_set_verify(c, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
  SSL_CTX_set_cert_verify_callback(c, &on_verify, nullptr);
  if (SSL_CTX_set_min_proto_version(c, TLS1_3_VERSION) != 1 ||
      SSL_CTX_set_max_proto_version(c, TLS1_3_VERSION) != 1 ||
      SSL_CTX_set1_groups_list(c, "X25519:P-256") != 1 || SSL_CTX_set_num_tickets(c, 0) != 1) {
    return fail_ossl("TLS context");
  }
  if (server) {
    // A server that verifies and resumes must have one; a client must not, since the sessions that
    // are made for PSKs have none.
    if (SSL_CTX_set_session_id_context(c, kSessionContext, sizeof(kSessionContext) - 1) != 1) {
      return fail_ossl("session context");
    }
    SSL_CTX_set_client_hello_cb(c, &on_client_hello, nullptr);
    SSL_CTX_set_alpn_select_cb(c, &on_alpn, nullptr);
    SSL_CTX_set_psk_find_session_callback(c, &on_psk_server);
  } else {
    SSL_CTX_set_psk_use_session_callback(c, &on_psk_client);
  }
  return ctx;
}

Status use_svid(SSL_CTX* ctx, const Svid& svid, const std::string& suites) {
  if (SSL_CTX_set_ciphersuites(ctx, suites.c_str()) != 1) return fail_ossl("cipher suites");
  if (SSL_CTX_use_certificate(ctx, svid.leaf.get()) != 1 ||
      SSL_CTX_use_PrivateKey(ctx, svid.key.get()) != 1) {
    return fail_ossl("certificate and key");
  }
  for (const X509Ptr& intermediate : svid.intermediates) {
    if (SSL_CTX_add1_chain_cert(ctx, intermediate.get()) != 1) return fail_ossl("chain");
  }
  return {};
}

}  // namespace

std::chrono::sys_seconds Context::now() const {
  if (options.now) return options.now();
  return std::chrono::floor<std::chrono::seconds>(std::chrono::system_clock::now());
}

std::vector<Cipher> default_ciphers() {
  return {Cipher::Aes128Gcm, Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305};
}

SSL_CTX* server_entrance() {
  static const Result<SslCtxPtr> entrance = new_context(true);
  return entrance ? entrance->get() : nullptr;
}

bool set_handshake(SSL* ssl, HandshakeImpl* handshake) {
  return ex_index() >= 0 && SSL_set_ex_data(ssl, ex_index(), handshake) == 1;
}

HandshakeImpl* handshake_of(const SSL* ssl) {
  return static_cast<HandshakeImpl*>(SSL_get_ex_data(ssl, ex_index()));
}

Result<ContextPtr> make_context(SvidPtr svid, TrustBundlePtr bundle, std::shared_ptr<PskStore> psks,
                                std::uint64_t epoch, ContextOptions options) {
  if (svid == nullptr || bundle == nullptr) return fail("TLS context: no SVID or no bundle");
  if (options.ciphers.empty()) return fail("TLS context: no cipher");
  auto context = std::make_shared<Context>();
  for (const Cipher cipher : options.ciphers) {
    if (!context->suites.empty()) context->suites += ':';
    context->suites += traits_of(cipher).suite;
  }
  if (options.psk) context->psks = std::move(psks);
  context->epoch = epoch;
  if (!options.keylog_file.empty()) {
    context->keylog.reset(
        ::open(options.keylog_file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
    if (!context->keylog) return fail_errno(errno, "key log " + options.keylog_file);
  }
  for (const bool server : {false, true}) {
    auto ctx = new_context(server);
    if (!ctx) return tl::unexpected(ctx.error());
    MESH_TRY(use_svid(ctx->get(), *svid, context->suites), svid->id.uri());
    // Only then: OpenSSL makes the text byte by byte, with sprintf.
    if (context->keylog) SSL_CTX_set_keylog_callback(ctx->get(), &on_keylog);
    (server ? context->server : context->client) = std::move(*ctx);
  }
  context->svid = std::move(svid);
  context->bundle = std::move(bundle);
  context->options = std::move(options);
  return ContextPtr(std::move(context));
}

const SvidPtr& svid_of(const Context& context) { return context.svid; }

bool trusts(const TrustBundle& bundle, const Peer& peer) {
  return std::find(bundle.ids.begin(), bundle.ids.end(), peer.root) != bundle.ids.end();
}

}  // namespace mesh::ktls
