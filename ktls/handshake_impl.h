// SPDX-License-Identifier: Apache-2.0
// One handshake over OpenSSL. The on_ functions are called by OpenSSL from within step().
#pragma once

#include <array>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "ktls/context.h"
#include "ktls/handshake.h"
#include "ktls/provider.h"
#include "ktls/wire.h"

namespace mesh::ktls {

class HandshakeImpl final : public Handshake {
 public:
  // A client: `context` is set. A server: it is null until `choose` has given one.
  HandshakeImpl(ContextPtr context, int fd, ClientOptions options);
  HandshakeImpl(ChooseContext choose, int fd, std::vector<std::string> alpn);
  ~HandshakeImpl() override = default;
  Status start_client();

  Step step() override;
  [[nodiscard]] const HandshakeError& error() const override { return error_; }
  [[nodiscard]] const Peer& peer() const override { return peer_; }
  [[nodiscard]] bool resumed() const override { return resumed_; }
  [[nodiscard]] const std::string& sni() const override { return sni_; }
  [[nodiscard]] const std::string& alpn() const override { return alpn_; }
  tl::expected<Established, HandshakeError> finish() override;
  void refuse() override;

  void on_keylog(std::string_view line) const;
  bool on_verify(X509_STORE_CTX* store);
  bool on_client_hello(SSL* ssl, int* alert);
  bool choose_alpn(std::span<const unsigned char> offered, const unsigned char** chosen,
                   unsigned char* length) const;
  // False ends the handshake; no session means no PSK is offered.
  bool on_psk_client(SSL* ssl, const EVP_MD* md, const unsigned char** id, std::size_t* id_length,
                     SSL_SESSION** session);
  SSL_SESSION* on_psk_server(SSL* ssl, std::span<const unsigned char> id);
  void on_message(bool write, int type, std::span<const unsigned char> bytes);

 private:
  enum class State : std::uint8_t { Going, Done, Failed, UsedUp };

  Status start(SSL_CTX* ctx);
  Step failed(HandshakeFailure reason, std::string what);
  Step classify();
  Step complete();
  // Keys and counters of the finished handshake.
  Result<StreamState> stream_state() const;
  void keep_psk();
  [[nodiscard]] PskKey psk_key() const;

  Wire wire_;
  const int fd_;
  const bool client_;
  ContextPtr context_;
  ClientOptions options_;  // of a client
  ChooseContext choose_;   // of a server
  std::vector<std::string> offered_alpn_;
  SslPtr ssl_;  // after wire_, which its BIO uses
  State state_ = State::Going;
  HandshakeError error_;
  bool blamed_ = false;  // error_ was set by a callback, which knows better than OpenSSL

  std::optional<Peer> verified_;  // by certificate
  std::optional<PskEntry> psk_;   // offered (client) or found (server)
  DerivedTraffic client_traffic_;
  DerivedTraffic server_traffic_;
  std::array<bool, 2> finished_{};           // a Finished message was read, written
  std::array<unsigned, 2> later_records_{};  // records read, written after it

  Peer peer_;
  Cipher cipher_ = Cipher::Aes128Gcm;
  bool resumed_ = false;
  std::string sni_;
  std::string alpn_;
};

}  // namespace mesh::ktls
