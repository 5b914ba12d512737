// SPDX-License-Identifier: Apache-2.0
// What OpenSSL asks and tells during a handshake: SNI, ALPN, certificates, PSKs, secrets.
#include <openssl/rand.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>

#include "ktls/handshake_impl.h"

namespace mesh::ktls {
namespace {

constexpr std::string_view kPskLabel = "EXPORTER-mesh-agent-psk";
constexpr std::string_view kPskIdentityLabel = "EXPORTER-mesh-agent-psk-identity";

struct SessionDeleter {
  void operator()(SSL_SESSION* session) const { SSL_SESSION_free(session); }
};

// The only host_name of a server_name extension (RFC 6066 3), or empty.
std::string parse_server_name(std::span<const unsigned char> in) {
  constexpr std::size_t kFixed = 5;  // list length, type, name length
  if (in.size() < kFixed) return {};
  const std::size_t list = (std::size_t{in[0]} << 8) | in[1];
  const std::size_t name = (std::size_t{in[3]} << 8) | in[4];
  if (list != in.size() - 2 || in[2] != 0 || name != in.size() - kFixed || name == 0 ||
      name > 255) {
    return {};
  }
  std::string text(in.begin() + kFixed, in.end());
  for (char& c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte <= 0x20 || byte >= 0x7f) return {};
    c = static_cast<char>(std::tolower(byte));
  }
  return text;
}

// The error that gives the peer the fitting alert.
int x509_error(PeerReject reason) {
  switch (reason) {
    case PeerReject::Expired:
      return X509_V_ERR_CERT_HAS_EXPIRED;
    case PeerReject::NotYetValid:
      return X509_V_ERR_CERT_NOT_YET_VALID;
    case PeerReject::UntrustedChain:
      return X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY;
    default:
      return X509_V_ERR_CERT_REJECTED;
  }
}

// A session that stands for the entry; null when its suite is not known or there is no memory.
SSL_SESSION* session_of(SSL* ssl, const PskEntry& entry) {
  const std::string suite(traits_of(entry.cipher).suite);
  const SSL_CIPHER* cipher = nullptr;
  STACK_OF(SSL_CIPHER)* known = SSL_get_ciphers(ssl);
  for (int i = 0; i < sk_SSL_CIPHER_num(known); ++i) {
    const SSL_CIPHER* candidate = sk_SSL_CIPHER_value(known, i);
    if (suite == SSL_CIPHER_get_name(candidate)) cipher = candidate;
  }
  std::unique_ptr<SSL_SESSION, SessionDeleter> session(SSL_SESSION_new());
  if (cipher == nullptr || !session ||
      SSL_SESSION_set1_master_key(session.get(), entry.secret.data(), entry.secret.size()) != 1 ||
      SSL_SESSION_set_cipher(session.get(), cipher) != 1 ||
      SSL_SESSION_set_protocol_version(session.get(), TLS1_3_VERSION) != 1) {
    return nullptr;
  }
  return session.release();
}

}  // namespace

void HandshakeImpl::on_message(bool write, int type, std::span<const unsigned char> bytes) {
  const std::size_t side = write ? 1 : 0;
  if (type == SSL3_RT_HEADER) {
    if (finished_[side]) ++later_records_[side];
  } else if (type == SSL3_RT_HANDSHAKE && !bytes.empty() && bytes[0] == SSL3_MT_FINISHED) {
    finished_[side] = true;
  }
}

void HandshakeImpl::on_keylog(std::string_view line) const {
  if (context_ != nullptr && context_->keylog) {
    std::string text(line);
    text += '\n';
    // One write to a file that is appended to; a key log that cannot be written harms nobody.
    (void)!::write(context_->keylog.get(), text.data(), text.size());
  }
}

bool HandshakeImpl::on_verify(X509_STORE_CTX* store) {
  X509* leaf = X509_STORE_CTX_get0_cert(store);
  STACK_OF(X509)* sent = X509_STORE_CTX_get0_untrusted(store);
  PeerRejection rejection{PeerReject::NoCertificate, "no certificate"};
  if (leaf != nullptr && context_ != nullptr) {
    // OpenSSL's list begins with the leaf.
    STACK_OF(X509)* behind = sent == nullptr ? nullptr : sk_X509_dup(sent);
    if (behind != nullptr && sk_X509_num(behind) > 0) (void)sk_X509_shift(behind);
    auto peer = verify_peer(leaf, behind, *context_->bundle, context_->now());
    sk_X509_free(behind);
    if (peer) {
      verified_ = std::move(*peer);
      X509_STORE_CTX_set_error(store, X509_V_OK);
      return true;
    }
    rejection = std::move(peer.error());
  }
  blamed_ = true;
  error_.reason = HandshakeFailure::Certificate;
  error_.certificate = rejection.reason;
  error_.what = std::move(rejection.what);
  X509_STORE_CTX_set_error(store, x509_error(rejection.reason));
  return false;
}

bool HandshakeImpl::on_client_hello(SSL* ssl, int* alert) {
  const unsigned char* extension = nullptr;
  std::size_t length = 0;
  // OpenSSL would agree to it (RFC 6066 4), but our streams and the kernel cut records at 16 KiB,
  // which such a client answers with record_overflow in the middle of the data.
  if (SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_max_fragment_length, &extension, &length) == 1) {
    blamed_ = true;
    error_.reason = HandshakeFailure::FragmentLength;
    error_.what = "the client asks for records of less than 16 KiB (max_fragment_length)";
    *alert = SSL_AD_HANDSHAKE_FAILURE;
    return false;
  }
  std::string name;
  if (SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_server_name, &extension, &length) == 1) {
    name = parse_server_name({extension, length});
  }
  // Called again after a HelloRetryRequest: the name must stay (RFC 8446 4.1.2).
  if (context_ != nullptr && name == sni_) return true;
  ContextPtr chosen = name.empty() || context_ != nullptr ? nullptr : choose_(name);
  sni_ = std::move(name);
  if (chosen == nullptr) {
    blamed_ = true;
    error_.reason = HandshakeFailure::Sni;
    error_.what = sni_.empty() ? "no server name" : "server name not for us: " + sni_;
    *alert = SSL_AD_UNRECOGNIZED_NAME;
    return false;
  }
  context_ = std::move(chosen);
  if (SSL_set_SSL_CTX(ssl, context_->server.get()) == nullptr ||
      SSL_set_ciphersuites(ssl, context_->suites.c_str()) != 1) {
    blamed_ = true;
    error_.reason = HandshakeFailure::Internal;
    error_.what = fail_ossl("choose the context").value().what;
    *alert = SSL_AD_INTERNAL_ERROR;
    return false;
  }
  return true;
}

bool HandshakeImpl::choose_alpn(std::span<const unsigned char> offered,
                                const unsigned char** chosen, unsigned char* length) const {
  for (const std::string& wanted : offered_alpn_) {
    for (std::size_t at = 0; at < offered.size();) {
      const std::size_t size = offered[at];
      if (size > offered.size() - at - 1) return false;
      const auto entry = offered.subspan(at + 1, size);
      if (std::equal(entry.begin(), entry.end(), wanted.begin(), wanted.end(),
                     [](unsigned char a, char b) { return a == static_cast<unsigned char>(b); })) {
        *chosen = entry.data();
        *length = static_cast<unsigned char>(size);
        return true;
      }
      at += 1 + size;
    }
  }
  return false;
}

PskKey HandshakeImpl::psk_key() const {
  return {context_->svid->id.uri(), options_.expected_peer.uri(), options_.expected_node};
}

bool HandshakeImpl::on_psk_client(SSL* ssl, const EVP_MD* md, const unsigned char** id,
                                  std::size_t* id_length, SSL_SESSION** session) {
  *session = nullptr;
  *id = nullptr;
  *id_length = 0;
  if (context_->psks == nullptr || options_.expected_peer.empty()) return true;
  // Called again after a HelloRetryRequest, then with the hash that the server chose.
  if (!psk_) {
    psk_ = context_->psks->find_client(psk_key(), context_->now());
    if (psk_ && psk_->epoch != context_->epoch) psk_.reset();
  }
  if (!psk_) return true;
  if (md != nullptr &&
      static_cast<std::size_t>(EVP_MD_get_size(md)) != traits_of(psk_->cipher).hash_bytes) {
    return true;
  }
  *session = session_of(ssl, *psk_);
  if (*session == nullptr) {
    ERR_clear_error();
    psk_.reset();
    return true;
  }
  *id = psk_->identity.data();
  *id_length = psk_->identity.size();
  return true;
}

SSL_SESSION* HandshakeImpl::on_psk_server(SSL* ssl, std::span<const unsigned char> id) {
  if (context_ == nullptr || context_->psks == nullptr) return nullptr;
  auto entry = context_->psks->find_server(id, context_->now());
  // Another identity of ours than the client asks for now must not answer.
  if (!entry || entry->own != context_->svid->id || entry->epoch != context_->epoch) {
    return nullptr;
  }
  SSL_SESSION* session = session_of(ssl, *entry);
  if (session == nullptr) {
    ERR_clear_error();
    return nullptr;
  }
  psk_ = std::move(entry);
  return session;
}

void HandshakeImpl::keep_psk() {
  if (resumed_ || context_->psks == nullptr) return;
  PskEntry entry;
  entry.cipher = cipher_;
  entry.own = context_->svid->id;
  entry.peer = peer_;
  entry.expires = std::min(context_->svid->not_after, peer_.not_after);
  entry.epoch = context_->epoch;
  // Both sides say the same: who was the client, who the server, under which suite.
  std::string bound(client_ ? entry.own.uri() : peer_.id.uri());
  bound += '\0';
  bound += client_ ? peer_.id.uri() : entry.own.uri();
  bound += '\0';
  bound += traits_of(cipher_).suite;
  const auto* bytes = reinterpret_cast<const unsigned char*>(bound.data());
  entry.secret.resize(traits_of(cipher_).hash_bytes);
  if (SSL_export_keying_material(ssl_.get(), entry.secret.data(), entry.secret.size(),
                                 kPskLabel.data(), kPskLabel.size(), bytes, bound.size(), 1) != 1 ||
      SSL_export_keying_material(ssl_.get(), entry.identity.data(), entry.identity.size(),
                                 kPskIdentityLabel.data(), kPskIdentityLabel.size(), bytes,
                                 bound.size(), 1) != 1) {
    ERR_clear_error();  // the next handshake is a full one
    return;
  }
  if (client_) {
    const PskKey key{entry.own.uri(), entry.peer.id.uri(), entry.peer.node};
    context_->psks->put_client(key, std::move(entry));
  } else {
    context_->psks->put_server(std::move(entry));
  }
}

}  // namespace mesh::ktls
