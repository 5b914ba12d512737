// SPDX-License-Identifier: Apache-2.0
#include "agent/store/http.h"

#include <netinet/tcp.h>
#include <sys/socket.h>

#include <array>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/host_name_verification.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/buffers_to_string.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http.hpp>
#include <optional>

#include "agent/base/await.h"

namespace mesh::store {
namespace {

namespace net = boost::asio;
namespace ssl = boost::asio::ssl;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using tcp = net::ip::tcp;

constexpr std::size_t kBufferBytes = 64 * 1024;

tl::unexpected<Error> failed(std::string_view what, const beast::error_code& code) {
  return fail("{}: {}", what,
              code == beast::error::timeout ? std::string("no answer in time") : code.message());
}

// A peer that vanished without a word is noticed, also where nothing is ever sent.
void watch_peer(tcp::socket& socket) {
  const int on = 1, idle = 5, interval = 2, count = 3, user_timeout_ms = 10'000;
  const int fd = socket.native_handle();
  // They only make it quicker: probes of the engine notice as well.
  (void)::setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
  (void)::setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
  (void)::setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof interval);
  (void)::setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof count);
  (void)::setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &user_timeout_ms, sizeof user_timeout_ms);
  (void)::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

}  // namespace

struct HttpConnection::Impl {
  using Plain = beast::tcp_stream;
  using Secure = ssl::stream<beast::tcp_stream>;

  Impl(const net::any_io_executor& executor, StoreEndpoint where,
       std::shared_ptr<ssl::context> context)
      : endpoint(std::move(where)), tls(std::move(context)) {
    if (tls)
      secure.emplace(executor, *tls);
    else
      plain.emplace(executor);
  }

  Plain& lowest() { return secure ? secure->next_layer() : *plain; }

  template <typename Stream>
  net::awaitable<Result<HttpAnswer>> exchange(Stream& stream, HttpRequest wanted,
                                              std::size_t max_body, Limit limit, bool streaming) {
    http::request<http::string_body> request(http::verb::post, wanted.path, 11);
    request.set(http::field::host, endpoint.to_string());
    request.set(http::field::content_type, "application/json");
    request.set(http::field::user_agent, "mesh-agent/" MESH_VERSION);
    if (!wanted.token.empty()) request.set(http::field::authorization, wanted.token);
    if (wanted.require_leader) request.set("Grpc-Metadata-hasleader", "true");
    request.body() = std::move(wanted.body);
    request.prepare_payload();

    usable = false;
    lowest().expires_after(limit);
    auto [sent, sent_bytes] = co_await http::async_write(stream, request, kAwait);
    if (sent) co_return failed("send", sent);

    HttpAnswer answer;
    stream_parser.reset();
    http::response_parser<http::empty_body> head;
    head.header_limit(16 * 1024);
    if (streaming)
      head.body_limit(boost::none);
    else
      head.body_limit(max_body);
    auto [headed, head_bytes] = co_await http::async_read_header(stream, buffer, head, kAwait);
    if (headed == http::error::body_limit) co_return too_large();
    if (headed) co_return failed("answer", headed);
    answer.status = head.get().result_int();
    if (streaming && answer.status == 200) {
      stream_parser.emplace(std::move(head));
      stream_parser->body_limit(boost::none);
      lowest().expires_never();
      co_return answer;
    }
    http::response_parser<http::string_body> whole(std::move(head));
    whole.body_limit(max_body);
    auto [done, body_bytes] = co_await http::async_read(stream, buffer, whole, kAwait);
    if (done == http::error::body_limit) co_return too_large();
    if (done) co_return failed("answer", done);
    lowest().expires_never();
    answer.body = std::move(whole.get().body());
    usable = whole.keep_alive() && !closed;
    co_return answer;
  }

  template <typename Stream>
  net::awaitable<Result<std::string_view>> read_some(Stream& stream, Limit limit) {
    auto& parser = *stream_parser;
    while (!parser.is_done()) {
      parser.get().body().data = chunk.data();
      parser.get().body().size = chunk.size();
      if (limit.count() > 0)
        lowest().expires_after(limit);
      else
        lowest().expires_never();
      auto [code, bytes] = co_await http::async_read_some(stream, buffer, parser, kAwait);
      const std::size_t size = chunk.size() - parser.get().body().size;
      if (code && code != http::error::need_buffer) co_return failed("stream", code);
      if (size > 0) co_return std::string_view(chunk.data(), size);
    }
    co_return fail("the stream has ended");
  }

  HttpAnswer too_large() {
    close();
    return {.status = 0, .body = {}, .too_large = true};
  }

  void close() {
    closed = true;
    usable = false;
    lowest().cancel();
    beast::error_code ignored;  // closing: nothing is left to do about a failure
    (void)lowest().socket().close(ignored);
  }

  StoreEndpoint endpoint;
  std::shared_ptr<ssl::context> tls;
  std::optional<Plain> plain;
  std::optional<Secure> secure;
  beast::flat_buffer buffer{kBufferBytes + 16 * 1024};
  std::optional<http::response_parser<http::buffer_body>> stream_parser;
  std::array<char, kBufferBytes> chunk{};
  Address local;
  bool usable = false;
  bool closed = false;
};

HttpConnection::HttpConnection(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
HttpConnection::~HttpConnection() = default;

net::awaitable<Result<std::shared_ptr<HttpConnection>>> HttpConnection::open(
    net::any_io_executor executor, StoreEndpoint endpoint, std::shared_ptr<ssl::context> tls,
    Limit limit) {
  const std::string name = endpoint.to_string();
  std::shared_ptr<HttpConnection> connection(
      new HttpConnection(std::make_unique<Impl>(executor, std::move(endpoint), std::move(tls))));
  Impl& impl = *connection->impl_;

  // Shared: a timer that has expired may have its handler in the queue still.
  auto resolver = std::make_shared<tcp::resolver>(executor);
  net::steady_timer timer(executor, limit);
  timer.async_wait([resolver](const beast::error_code& code) {
    if (!code) resolver->cancel();
  });
  auto [resolved, addresses] =
      co_await resolver->async_resolve(impl.endpoint.host, impl.endpoint.port, kAwait);
  timer.cancel();
  if (resolved) co_return failed(name, resolved);

  impl.lowest().expires_after(limit);
  auto [connected, where] = co_await impl.lowest().async_connect(addresses, kAwait);
  if (connected) co_return failed(name, connected);
  watch_peer(impl.lowest().socket());
  if (auto local = mesh::local_endpoint(impl.lowest().socket().native_handle()))
    impl.local = local->address;

  if (impl.secure) {
    auto& stream = *impl.secure;
    beast::error_code code;
    (void)stream.set_verify_callback(ssl::host_name_verification(impl.endpoint.host), code);
    if (code) co_return failed(name, code);
    const bool is_name = !Address::parse(impl.endpoint.host);
    // The macro SSL_set_tlsext_host_name, without its cast.
    if (is_name && ::SSL_ctrl(stream.native_handle(), SSL_CTRL_SET_TLSEXT_HOSTNAME,
                              TLSEXT_NAMETYPE_host_name, impl.endpoint.host.data()) != 1)
      co_return fail("{}: TLS: no memory", name);
    impl.lowest().expires_after(limit);
    auto [shaken] = co_await stream.async_handshake(ssl::stream_base::client, kAwait);
    if (shaken) co_return failed(name + ": TLS", shaken);
  }
  impl.lowest().expires_never();
  impl.usable = true;
  co_return connection;
}

net::awaitable<Result<HttpAnswer>> HttpConnection::post(HttpRequest request, std::size_t max_body,
                                                        Limit limit) {
  if (impl_->secure)
    co_return co_await impl_->exchange(*impl_->secure, std::move(request), max_body, limit, false);
  co_return co_await impl_->exchange(*impl_->plain, std::move(request), max_body, limit, false);
}

net::awaitable<Result<HttpAnswer>> HttpConnection::open_stream(HttpRequest request,
                                                               std::size_t max_body, Limit limit) {
  if (impl_->secure)
    co_return co_await impl_->exchange(*impl_->secure, std::move(request), max_body, limit, true);
  co_return co_await impl_->exchange(*impl_->plain, std::move(request), max_body, limit, true);
}

net::awaitable<Result<std::string_view>> HttpConnection::read(Limit limit) {
  if (impl_->secure) co_return co_await impl_->read_some(*impl_->secure, limit);
  co_return co_await impl_->read_some(*impl_->plain, limit);
}

void HttpConnection::close() { impl_->close(); }
bool HttpConnection::usable() const { return impl_->usable; }
Address HttpConnection::local_address() const { return impl_->local; }

}  // namespace mesh::store
