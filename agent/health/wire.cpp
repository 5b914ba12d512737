// SPDX-License-Identifier: Apache-2.0
#include "agent/health/wire.h"

#include <netinet/in.h>

#include <boost/asio/post.hpp>
#include <boost/asio/ssl/host_name_verification.hpp>
#include <boost/asio/write.hpp>

namespace mesh::health {
namespace net = boost::asio;
namespace ssl = boost::asio::ssl;
using boost::system::error_code;
using Socket = net::generic::stream_protocol::socket;

namespace {

std::string text(const error_code& code) { return code ? code.message() : std::string(); }

// What both kinds have in common; Stream is Socket or ssl::stream<Socket>.
template <typename Stream>
class WireOf : public Wire {
 public:
  template <typename... Args>
  explicit WireOf(Args&&... args) : stream_(std::forward<Args>(args)...) {}

  void write(std::vector<std::uint8_t> bytes, Step done) override {
    out_ = std::move(bytes);
    net::async_write(stream_, net::buffer(out_),
                     [self = this->shared_from_this(), this, done = std::move(done)](
                         error_code code, std::size_t) {
                       if (!closed_) done(text(code));
                     });
  }

  void read(Read done) override {
    stream_.async_read_some(
        net::buffer(in_), [self = this->shared_from_this(), this, done = std::move(done)](
                              error_code code, std::size_t n) {
          if (closed_) return;
          const bool ended = code == net::error::eof || code == ssl::error::stream_truncated;
          done({in_.data(), ended ? 0 : n}, ended ? std::string() : text(code));
        });
  }

  void close() override {
    closed_ = true;
    error_code ignored;
    stream_.lowest_layer().close(ignored);
  }

 protected:
  void assign(UniqueFd fd, int family) {
    stream_.lowest_layer().assign(net::generic::stream_protocol(family, IPPROTO_TCP), fd.get(),
                                  unusable_);
    if (!unusable_) (void)fd.release();
  }

  // Without the socket that it was given it must not connect at all: async_connect would open one
  // of its own, in the agent's namespace.
  void connect_socket(const Endpoint& to, std::function<void(error_code)> done) {
    if (unusable_) {
      net::post(stream_.get_executor(), [done = std::move(done), code = unusable_] { done(code); });
      return;
    }
    const SockAddr address(to);
    stream_.lowest_layer().async_connect(
        net::generic::stream_protocol::endpoint(address.get(), address.length), std::move(done));
  }

  Stream stream_;
  bool closed_ = false;

 private:
  error_code unusable_;
  std::vector<std::uint8_t> out_;
  std::array<std::uint8_t, 8192> in_;
};

class PlainWire final : public WireOf<Socket> {
 public:
  PlainWire(net::io_context& io, UniqueFd fd, int family) : WireOf(io) {
    assign(std::move(fd), family);
  }

  void connect(const Endpoint& to, Step done) override {
    connect_socket(to, [self = shared_from_this(), this, done](error_code code) {
      if (!closed_) done(text(code));
    });
  }
};

ssl::context make_context(const TlsOptions& options) {
  ssl::context context(ssl::context::tls_client);
  error_code ignored;
  context.set_default_verify_paths(ignored);
  context.set_verify_mode(options.verify ? ssl::verify_peer : ssl::verify_none, ignored);
  if (options.verify)
    context.set_verify_callback(ssl::host_name_verification(options.server_name), ignored);
  static constexpr unsigned char kH2[] = {2, 'h', '2'};
  if (options.http2) SSL_CTX_set_alpn_protos(context.native_handle(), kH2, sizeof kH2);
  return context;
}

// The context is made for each attempt: roots may change, and checks are seconds apart.
struct Context {
  explicit Context(const TlsOptions& options) : context(make_context(options)) {}
  ssl::context context;
};

class SecureWire final : private Context, public WireOf<ssl::stream<Socket>> {
 public:
  SecureWire(net::io_context& io, UniqueFd fd, int family, const TlsOptions& options)
      : Context(options), WireOf(io, Context::context) {
    assign(std::move(fd), family);
    if (Address::parse(options.server_name)) return;  // RFC 6066 3: not for addresses
    // What the macro SSL_set_tlsext_host_name does; the name is copied.
    SSL_ctrl(stream_.native_handle(), SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name,
             const_cast<char*>(options.server_name.c_str()));
  }

  void connect(const Endpoint& to, Step done) override {
    connect_socket(to, [self = shared_from_this(), this, done = std::move(done)](error_code code) {
      if (closed_) return;
      if (code) return done(text(code));
      stream_.async_handshake(ssl::stream_base::client, [self, this, done](error_code failed) {
        if (!closed_) done(failed ? "TLS: " + text(failed) : "");
      });
    });
  }
};

}  // namespace

std::shared_ptr<Wire> Wire::plain(net::io_context& io, UniqueFd fd, int family) {
  return std::make_shared<PlainWire>(io, std::move(fd), family);
}

std::shared_ptr<Wire> Wire::secure(net::io_context& io, UniqueFd fd, int family,
                                   const TlsOptions& options) {
  return std::make_shared<SecureWire>(io, std::move(fd), family, options);
}

}  // namespace mesh::health
