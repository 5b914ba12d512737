// SPDX-License-Identifier: Apache-2.0
#include "ktls/handshake.h"

#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "ktls/handshake_impl.h"
#include "ktls/kernel_stream.h"
#include "ktls/user_stream.h"

namespace mesh::ktls {
namespace {

void on_message_callback(int write, int, int type, const void* bytes, std::size_t length, SSL*,
                         void* self) {
  static_cast<HandshakeImpl*>(self)->on_message(write != 0, type,
                                                {static_cast<const unsigned char*>(bytes), length});
}

// "alert: {text}" of the oldest error, without emptying the queue.
std::string queue_text() {
  const unsigned long code = ERR_peek_error();
  if (code == 0) return "no reason given by OpenSSL";
  const char* text = ERR_reason_error_string(code);
  return text != nullptr ? text : fmt::format("OpenSSL error {:#x}", code);
}

// OpenSSL has derived them for records of its own; otherwise it is done here.
Result<TrafficKeys> keys_of(Cipher cipher, const DerivedTraffic& traffic) {
  if (traffic.keys.key.size() == traits_of(cipher).key_bytes && traffic.keys.iv.size() == kIvBytes)
    return traffic.keys;
  return traffic_keys(cipher, traffic.secret.bytes());
}

}  // namespace

std::string_view to_string(HandshakeFailure reason) {
  switch (reason) {
#define MESH_X(id, text)     \
  case HandshakeFailure::id: \
    return text;
    MESH_HANDSHAKE_FAILURES(MESH_X)
#undef MESH_X
    case HandshakeFailure::Count:
      break;
  }
  return "unknown";
}

HandshakeImpl::HandshakeImpl(ContextPtr context, int fd, ClientOptions options)
    : wire_(fd),
      fd_(fd),
      client_(true),
      context_(std::move(context)),
      options_(std::move(options)),
      sni_(options_.sni) {}

HandshakeImpl::HandshakeImpl(ChooseContext choose, int fd, std::vector<std::string> alpn)
    : wire_(fd),
      fd_(fd),
      client_(false),
      choose_(std::move(choose)),
      offered_alpn_(std::move(alpn)) {}

Status HandshakeImpl::start(SSL_CTX* ctx) {
  if (ctx == nullptr) return fail_ossl("TLS context");
  ssl_.reset(SSL_new(ctx));
  BioPtr bio = wire_.make_bio();
  if (!ssl_ || !bio || !set_handshake(ssl_.get(), this)) return fail_ossl("SSL_new");
  BIO* shared = bio.release();
  SSL_set_bio(ssl_.get(), shared, shared);  // takes the one reference for both
  SSL_set_msg_callback(ssl_.get(), &on_message_callback);
  (void)SSL_ctrl(ssl_.get(), SSL_CTRL_SET_MSG_CALLBACK_ARG, 0, this);  // the macro casts C-style
  if (client_) {
    SSL_set_connect_state(ssl_.get());
  } else {
    SSL_set_accept_state(ssl_.get());
  }
  return {};
}

Status HandshakeImpl::start_client() {
  if (options_.sni.empty() || options_.sni.size() > 255) return fail("no usable SNI");
  MESH_TRY(start(context_->client.get()), "client handshake");
  // SSL_set_tlsext_host_name(), which is a macro with a C cast.
  if (SSL_ctrl(ssl_.get(), SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name,
               options_.sni.data()) != 1) {
    return fail_ossl("SNI");
  }
  std::vector<unsigned char> protocols;
  for (const std::string& protocol : options_.alpn) {
    if (protocol.empty() || protocol.size() > 255) return fail("no usable ALPN protocol");
    protocols.push_back(static_cast<unsigned char>(protocol.size()));
    protocols.insert(protocols.end(), protocol.begin(), protocol.end());
  }
  // 0 is success here.
  if (!protocols.empty() && SSL_set_alpn_protos(ssl_.get(), protocols.data(),
                                                static_cast<unsigned>(protocols.size())) != 0) {
    return fail_ossl("ALPN");
  }
  return {};
}

Handshake::Step HandshakeImpl::failed(HandshakeFailure reason, std::string what) {
  if (!blamed_) {
    error_.reason = reason;
    error_.what = std::move(what);
  }
  state_ = State::Failed;
  ERR_clear_error();
  return Step::Failed;
}

Handshake::Step HandshakeImpl::step() {
  if (state_ == State::Done) return Step::Done;
  if (state_ != State::Going) return Step::Failed;
  if (!ssl_) {
    if (!wire_.await_header()) return Step::WantRead;
    if (wire_.trouble() != Wire::Trouble::None) return classify();
    if (auto started = start(server_entrance()); !started) {
      return failed(HandshakeFailure::Internal, started.error().what);
    }
  }
  ERR_clear_error();
  KdfScope secrets(client_traffic_, server_traffic_);  // the provider writes into it
  const int result = SSL_do_handshake(ssl_.get());
  if (result == 1) return complete();
  switch (SSL_get_error(ssl_.get(), result)) {
    case SSL_ERROR_WANT_READ:
      return Step::WantRead;
    case SSL_ERROR_WANT_WRITE:
      return Step::WantWrite;
    default:
      return classify();
  }
}

Handshake::Step HandshakeImpl::classify() {
  switch (wire_.trouble()) {
    case Wire::Trouble::NotTls:
      return failed(HandshakeFailure::NotTls, "the first bytes are no TLS record");
    case Wire::Trouble::TooLarge:
      return failed(HandshakeFailure::TooLarge, "the handshake has too many bytes");
    case Wire::Trouble::None:
    case Wire::Trouble::PeerClosed:
    case Wire::Trouble::Socket:
      break;
  }
  const unsigned long code = ERR_peek_error();
  const int reason = ERR_GET_LIB(code) == ERR_LIB_SSL ? ERR_GET_REASON(code) : 0;
  // Received alerts are numbered from 1000 (SSL_AD_REASON_OFFSET).
  if (reason >= SSL_AD_REASON_OFFSET && reason < SSL_AD_REASON_OFFSET + 256) {
    return failed(HandshakeFailure::Alert, queue_text());
  }
  switch (reason) {
    case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE:
      if (!blamed_) error_.certificate = PeerReject::NoCertificate;
      return failed(HandshakeFailure::Certificate, queue_text());
    case SSL_R_EXCESSIVE_MESSAGE_SIZE:
      return failed(HandshakeFailure::TooLarge, queue_text());
    case SSL_R_BINDER_DOES_NOT_VERIFY:
    case SSL_R_BAD_PSK:
      return failed(HandshakeFailure::Psk, queue_text());
    default:
      break;
  }
  if (blamed_) return failed(error_.reason, {});
  if (wire_.trouble() == Wire::Trouble::PeerClosed) {
    return failed(HandshakeFailure::PeerClosed, wire_.errnum() == 0
                                                    ? "the peer closed the connection"
                                                    : std::strerror(wire_.errnum()));
  }
  if (wire_.trouble() == Wire::Trouble::Socket) {
    return failed(HandshakeFailure::Internal, std::strerror(wire_.errnum()));
  }
  const bool ours = ERR_GET_REASON(code) == ERR_R_MALLOC_FAILURE ||
                    ERR_GET_REASON(code) == ERR_R_INTERNAL_ERROR || code == 0;
  return failed(ours ? HandshakeFailure::Internal : HandshakeFailure::Protocol, queue_text());
}

Handshake::Step HandshakeImpl::complete() {
  SSL* ssl = ssl_.get();
  // The streams start with the first record under the application keys, in both directions.
  if (SSL_has_pending(ssl) != 0 || later_records_[0] != 0 || later_records_[1] != 0) {
    return failed(HandshakeFailure::Internal, "OpenSSL went on after the handshake");
  }
  if (SSL_version(ssl) != TLS1_3_VERSION) {
    return failed(HandshakeFailure::Protocol, "not TLS 1.3");
  }
  const auto cipher = cipher_of(SSL_CIPHER_get_name(SSL_get_current_cipher(ssl)));
  if (!cipher) return failed(HandshakeFailure::Protocol, "a cipher that was not offered");
  cipher_ = *cipher;
  const std::size_t hash = traits_of(cipher_).hash_bytes;
  if (client_traffic_.secret.size() != hash || server_traffic_.secret.size() != hash ||
      context_ == nullptr) {
    return failed(HandshakeFailure::Internal, "no traffic secrets");
  }
  resumed_ = SSL_session_reused(ssl) == 1;
  if (resumed_ && !psk_) return failed(HandshakeFailure::Psk, "resumed, but not by our PSK");
  if (!resumed_ && !verified_) {
    error_.certificate = PeerReject::NoCertificate;
    return failed(HandshakeFailure::Certificate, "no certificate was verified");
  }
  peer_ = resumed_ ? psk_->peer : *verified_;
  if (client_ && psk_ && !resumed_) context_->psks->drop_client(psk_key(), psk_->identity);
  const unsigned char* protocol = nullptr;
  unsigned int length = 0;
  SSL_get0_alpn_selected(ssl, &protocol, &length);
  alpn_.assign(protocol, protocol + length);
  state_ = State::Done;
  return Step::Done;
}

Result<StreamState> HandshakeImpl::stream_state() const {
  auto client = keys_of(cipher_, client_traffic_);
  auto server = keys_of(cipher_, server_traffic_);
  if (!client) return tl::unexpected(client.error());
  if (!server) return tl::unexpected(server.error());
  StreamState state;
  state.cipher = cipher_;
  state.control.client = client_;
  state.limit_records = context_->options.limit_records;
  state.tx.keys = client_ ? *client : *server;
  state.rx.keys = client_ ? *server : *client;
  return state;
}

tl::expected<Established, HandshakeError> HandshakeImpl::finish() {
  if (state_ != State::Done) {
    return tl::unexpected(HandshakeError{HandshakeFailure::Internal, {}, "not done"});
  }
  auto state = stream_state();
  if (!state) {
    return tl::unexpected(HandshakeError{HandshakeFailure::Arm, {}, state.error().what});
  }
  keep_psk();
  state_ = State::UsedUp;
  Established made;
  made.peer = std::move(peer_);
  made.resumed = resumed_;
  made.sni = std::move(sni_);
  made.alpn = std::move(alpn_);
  ssl_.reset();
  client_traffic_.wipe();
  server_traffic_.wipe();
  if (context_->options.kernel) {
    auto armed = arm_kernel(fd_, *state);
    if (armed) {
      made.kernel = true;
      made.stream = std::make_unique<KernelStream>(std::move(*state));
      return made;
    }
    if (!armed.error().clean) {
      return tl::unexpected(HandshakeError{HandshakeFailure::Arm, {}, armed.error().error.what});
    }
    made.not_kernel = armed.error().error.what;
  }
  auto stream = UserStream::create(std::move(*state));
  if (!stream) {
    return tl::unexpected(HandshakeError{HandshakeFailure::Arm, {}, stream.error().what});
  }
  made.stream = std::move(*stream);
  return made;
}

void HandshakeImpl::refuse() {
  if (state_ != State::Done) return;
  state_ = State::UsedUp;
  // OpenSSL cannot be told to send this alert; its keys can.
  constexpr std::uint8_t kAccessDenied = 49;
  if (auto state = stream_state()) {
    if (auto stream = UserStream::create(std::move(*state))) {
      (*stream)->send_fatal_alert(fd_, kAccessDenied);
    }
  }
  ssl_.reset();
  client_traffic_.wipe();
  server_traffic_.wipe();
}

Result<std::unique_ptr<Handshake>> client_handshake(ContextPtr context, int fd,
                                                    ClientOptions options) {
  if (context == nullptr) return fail("client handshake: no context");
  auto handshake = std::make_unique<HandshakeImpl>(std::move(context), fd, std::move(options));
  MESH_TRY(handshake->start_client(), "client handshake");
  return std::unique_ptr<Handshake>(std::move(handshake));
}

Result<std::unique_ptr<Handshake>> server_handshake(ChooseContext choose,
                                                    std::vector<std::string> alpn, int fd) {
  if (!choose) return fail("server handshake: nobody chooses the context");
  return std::unique_ptr<Handshake>(
      std::make_unique<HandshakeImpl>(std::move(choose), fd, std::move(alpn)));
}

}  // namespace mesh::ktls
