// SPDX-License-Identifier: Apache-2.0
#include "metrics/server.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/dispatch.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <map>
#include <set>
#include <string_view>
#include <utility>

#include "agent/base/await.h"
#include "agent/base/log.h"
#include "metrics/listener.h"
#include "metrics/server_metrics.h"

namespace mesh::metrics {
namespace {

namespace net = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using tcp = net::ip::tcp;
using boost::system::error_code;
using Clock = std::chrono::steady_clock;

constexpr std::size_t kHeaderLimit = 8192;
constexpr std::size_t kLingerBytes = 64 * 1024;
constexpr auto kLingerTime = std::chrono::seconds(1);
constexpr auto kAcceptRetry = std::chrono::milliseconds(100);
constexpr std::string_view kPlain = "text/plain; charset=utf-8";
constexpr std::string_view kExposition = "text/plain; version=0.0.4; charset=utf-8";

using Body = std::shared_ptr<const std::string>;

Body make_body(std::string text) { return std::make_shared<const std::string>(std::move(text)); }

struct Reply {
  http::status status = http::status::ok;
  std::string content_type{kPlain};
  Body body;
  bool allow_header = false;  // 405 must say what is allowed
};

Reply plain(http::status status, std::string text) {
  return {status, std::string(kPlain), make_body(std::move(text)), false};
}

// What of a request is needed to answer it.
struct Exchange {
  unsigned version = 11;
  bool keep_alive = false;
  bool head = false;
};

// One collection and everybody who waits for it.
struct Batch {
  Batch(const net::any_io_executor& executor, std::chrono::milliseconds deadline)
      : done(executor, deadline) {}
  net::steady_timer done;  // cancelled when `text` is there, expires when it comes too late
  Body text;
};

}  // namespace

class Server::Impl : public std::enable_shared_from_this<Server::Impl> {
 public:
  Impl(net::io_context& io, Registry& registry, ServerOptions options)
      : strand_(net::make_strand(io)), registry_(registry), options_(std::move(options)) {}

  Status listen(FormerListeners former);
  void start();
  void stop(bool keep_listening = false);
  void release();  // the owner goes: wait for the collection thread and let go of the registry

  Listener& main_listener() { return *listeners_.front(); }
  Listener* debug_listener() { return listeners_.size() > 1 ? listeners_.back().get() : nullptr; }

  std::map<std::string, DebugHandler> debug_;
  std::atomic<std::size_t> connections_{0};
  ServerMetrics own_;

 private:
  // A served connection. Alive as long as its coroutine.
  struct Session {
    Session(std::shared_ptr<Impl> owner, Listener& from, tcp::socket socket)
        : impl(std::move(owner)), listener(from), stream(std::move(socket)) {
      impl->sessions_.insert(this);
      impl->connections_.fetch_add(1, std::memory_order_relaxed);
      ++listener.active;
    }
    ~Session() {
      impl->sessions_.erase(this);
      impl->connections_.fetch_sub(1, std::memory_order_relaxed);
      --listener.active;
    }
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;

    std::shared_ptr<Impl> impl;
    Listener& listener;
    beast::tcp_stream stream;
    bool reading = false;  // no request in progress: stop() may cut it off
  };

  net::awaitable<void> accept_loop(Listener& listener);
  net::awaitable<void> serve(std::unique_ptr<Session> session);
  net::awaitable<void> turn_away(std::shared_ptr<Impl> self, Listener& listener,
                                 tcp::socket socket);
  net::awaitable<Reply> route(const Listener& listener, http::verb method, std::string target);
  Reply debug_page(std::string_view path);
  net::awaitable<Reply> scrape();
  void launch();
  net::awaitable<bool> send(beast::tcp_stream& stream, Exchange exchange, Reply reply);
  net::awaitable<void> linger(beast::tcp_stream& stream);
  Reply refuse(Rejection why, http::status status, std::string text);
  std::optional<Reply> reply_to_read_error(error_code ec, bool first, bool partial);
  void spawn(net::awaitable<void> coroutine);

  net::strand<net::io_context::executor_type> strand_;
  Registry& registry_;
  const ServerOptions options_;
  std::vector<std::unique_ptr<Listener>> listeners_;  // the first is public
  std::set<Session*> sessions_;
  std::shared_ptr<Batch> running_;
  std::shared_ptr<Batch> next_;
  std::optional<net::thread_pool> pool_;  // empty after release()
  bool stopping_ = false;
  bool registered_ = false;
};

Status Server::Impl::listen(FormerListeners former) {
  if (options_.debug_listen && !options_.debug_listen->address.is_loopback())
    return fail(
        "the debug listener shows internals of the agent and {} is not a loopback address: "
        "choose one with --debug-listen, as in 127.0.0.1:15021",
        options_.debug_listen->to_string());
  listeners_.push_back(std::make_unique<Listener>(strand_, false));
  MESH_TRY(
      listen_on(*listeners_.back(), options_.listen, "--metrics-listen", std::move(former.listen)),
      "metrics");
  if (options_.debug_listen) {
    listeners_.push_back(std::make_unique<Listener>(strand_, true));
    MESH_TRY(listen_on(*listeners_.back(), *options_.debug_listen, "--debug-listen",
                       std::move(former.debug_listen)),
             "debug pages");
  }
  MESH_TRY(registry_.add(own_), "metrics");
  registered_ = true;
  pool_.emplace(1);
  return {};
}

void Server::Impl::spawn(net::awaitable<void> coroutine) {
  net::co_spawn(strand_, std::move(coroutine), [](const std::exception_ptr& e) {
    // Asio is used in its error_code forms: only memory exhaustion and a throwing callback get
    // here.
    try {
      if (e) std::rethrow_exception(e);
    } catch (const std::exception& what) {
      log::error("metrics endpoint: a connection was dropped: {}", what.what());
    }
  });
}

void Server::Impl::start() {
  for (auto& listener : listeners_)
    spawn([](std::shared_ptr<Impl> self, Listener& from) -> net::awaitable<void> {
      co_await self->accept_loop(from);
    }(shared_from_this(), *listener));
}

void Server::Impl::stop(bool keep_listening) {
  net::dispatch(strand_, [self = shared_from_this(), keep_listening] {
    self->stopping_ = true;
    error_code ignored;  // closing a listener cannot fail in a way that matters
    for (auto& listener : self->listeners_) {
      // Out of the reactor first, which a mere close of a shared socket would not do.
      if (keep_listening && listener->acceptor.is_open())
        (void)UniqueFd(listener->acceptor.release(ignored));
      else
        listener->acceptor.close(ignored);
    }
    for (Session* session : self->sessions_)
      if (session->reading) session->stream.cancel();
  });
}

void Server::Impl::release() {
  if (pool_) pool_->join();
  pool_.reset();
  if (registered_) registry_.remove(own_);
  registered_ = false;
  // Whoever still waits is answered 503: there is no thread left that could collect.
  if (next_) next_->done.cancel();
}

net::awaitable<void> Server::Impl::accept_loop(Listener& listener) {
  net::steady_timer pause(strand_);
  while (!stopping_) {
    auto [ec, socket] = co_await listener.acceptor.async_accept(kAwait);
    if (stopping_ || ec == net::error::operation_aborted) co_return;
    if (ec) {
      own_.count(Rejection::AcceptFailed);
      // Out of descriptors or memory: the connection waits in the backlog, so do not spin on it.
      pause.expires_after(kAcceptRetry);
      (void)co_await pause.async_wait(kAwait);  // an early end only means an early retry
      continue;
    }
    if (listener.active < options_.max_connections) {
      spawn(serve(std::make_unique<Session>(shared_from_this(), listener, std::move(socket))));
      continue;
    }
    own_.count(Rejection::ConnectionLimit);
    // The polite refusal costs a descriptor for a moment, so it is bounded as well.
    if (listener.turned_away < options_.max_connections)
      spawn(turn_away(shared_from_this(), listener, std::move(socket)));
  }
}

net::awaitable<void> Server::Impl::turn_away(std::shared_ptr<Impl> self, Listener& listener,
                                             tcp::socket socket) {
  struct Slot {
    std::size_t& count;
    explicit Slot(std::size_t& c) : count(c) { ++count; }
    ~Slot() { --count; }
  } slot(listener.turned_away);
  beast::tcp_stream stream(std::move(socket));
  bool sent = co_await send(stream, {},
                            plain(http::status::service_unavailable,
                                  fmt::format("all {} connections are in use, try again later\n",
                                              options_.max_connections)));
  if (sent) co_await linger(stream);
  (void)self;  // only keeps the slot's counter alive
}

net::awaitable<void> Server::Impl::serve(std::unique_ptr<Session> session) {
  beast::tcp_stream& stream = session->stream;
  // A header of the full size and the start of a pipelined request.
  beast::flat_buffer buffer(2 * kHeaderLimit);
  for (bool first = true;; first = false) {
    if (stopping_) co_return;
    http::request_parser<http::empty_body> parser;
    parser.header_limit(kHeaderLimit);
    stream.expires_after(options_.deadline);
    session->reading = true;
    auto [ec, bytes] = co_await http::async_read_header(stream, buffer, parser, kAwait);
    session->reading = false;
    (void)bytes;  // the parser knows
    if (ec) {
      auto reply = reply_to_read_error(ec, first, parser.got_some() || buffer.size() > 0);
      if (reply && co_await send(stream, {}, std::move(*reply))) co_await linger(stream);
      co_return;
    }
    const auto& request = parser.get();
    Exchange exchange{request.version(), request.keep_alive() && !stopping_,
                      request.method() == http::verb::head};
    // Beast takes some broken Transfer-Encodings for "no body". Nothing here wants a body, so any
    // is refused.
    bool has_body = request.count(http::field::transfer_encoding) != 0 ||
                    parser.content_length().value_or(0) != 0;
    bool no_host = request.version() == 11 && request.count(http::field::host) != 1;
    Reply reply;
    if (has_body) {
      reply = refuse(Rejection::Body, http::status::payload_too_large, "no request body, please\n");
    } else if (no_host) {
      reply = refuse(Rejection::Malformed, http::status::bad_request, "one Host header, please\n");
    } else {
      reply = co_await route(session->listener, request.method(), std::string(request.target()));
    }
    if (has_body || no_host || stopping_) exchange.keep_alive = false;
    if (!co_await send(stream, exchange, std::move(reply))) co_return;
    if (!exchange.keep_alive) {
      co_await linger(stream);
      co_return;
    }
  }
}

// Nothing to say when the connection just ended.
std::optional<Reply> Server::Impl::reply_to_read_error(error_code ec, bool first, bool partial) {
  if (ec == beast::error::timeout) {
    // The stream is closed already. An idle kept connection that ends is no rejection.
    if (first || partial) own_.count(Rejection::Deadline);
    return std::nullopt;
  }
  if (ec == http::error::header_limit || ec == http::error::buffer_overflow)
    return refuse(Rejection::HeaderTooLarge, http::status::request_header_fields_too_large,
                  fmt::format("the header is larger than {} bytes\n", kHeaderLimit));
  if (ec == http::error::end_of_stream || ec == http::error::partial_message) return std::nullopt;
  if (ec.category() == http::make_error_code(http::error::bad_method).category())
    return refuse(Rejection::Malformed, http::status::bad_request,
                  fmt::format("not a HTTP/1 request: {}\n", ec.message()));
  return std::nullopt;
}

Reply Server::Impl::refuse(Rejection why, http::status status, std::string text) {
  own_.count(why);
  return plain(status, std::move(text));
}

net::awaitable<Reply> Server::Impl::route(const Listener& listener, http::verb method,
                                          std::string target) {
  // absolute-form (RFC 9112, 3.2.2) must be understood; the authority does not matter here.
  std::string_view path = target;
  if (path.starts_with("http://")) {
    path.remove_prefix(std::string_view("http://").size());
    auto slash = path.find('/');
    path = slash == std::string_view::npos ? "/" : path.substr(slash);
  }
  path = path.substr(0, path.find('?'));
  bool known = listener.debug ? path == "/debug" || path.starts_with("/debug/")
                              : path == "/metrics" || path == "/healthz" || path == "/readyz";
  if (!known) {
    auto what = listener.debug ? "/debug/" : "/metrics, /healthz and /readyz";
    co_return refuse(Rejection::NotFound, http::status::not_found,
                     fmt::format("not found; this listener serves {}\n", what));
  }
  if (method != http::verb::get && method != http::verb::head) {
    Reply reply = refuse(Rejection::Method, http::status::method_not_allowed, "GET or HEAD only\n");
    reply.allow_header = true;
    co_return reply;
  }
  if (listener.debug) co_return debug_page(path);
  if (path == "/healthz") co_return plain(http::status::ok, "ok\n");
  if (path == "/readyz") {
    auto reason = stopping_            ? std::optional<std::string>("the agent is stopping")
                  : options_.not_ready ? options_.not_ready()
                                       : std::nullopt;
    if (reason) co_return plain(http::status::service_unavailable, *reason + "\n");
    co_return plain(http::status::ok, "ready\n");
  }
  own_.scrapes.add();
  co_return co_await scrape();
}

Reply Server::Impl::debug_page(std::string_view path) {
  std::string name(path.size() > 7 ? path.substr(7) : "");  // after "/debug/"
  if (name.empty()) {
    std::string list;
    for (const auto& [page, handler] : debug_) list += fmt::format("/debug/{}\n", page);
    return plain(http::status::ok, std::move(list));
  }
  auto at = debug_.find(name);
  if (at == debug_.end())
    return refuse(Rejection::NotFound, http::status::not_found, "not found; /debug/ lists pages\n");
  auto page = at->second();
  if (!page) return plain(http::status::internal_server_error, page.error().what + "\n");
  return {http::status::ok, std::move(page->content_type), make_body(std::move(page->body)), false};
}

net::awaitable<Reply> Server::Impl::scrape() {
  if (!next_) next_ = std::make_shared<Batch>(strand_, options_.deadline);
  auto batch = next_;
  if (!running_) launch();
  // Cancelled when the text is there; both run on the strand, so the wake-up cannot be missed.
  if (pool_) (void)co_await batch->done.async_wait(kAwait);
  if (batch->text) co_return Reply{http::status::ok, std::string(kExposition), batch->text, false};
  co_return refuse(Rejection::CollectionDeadline, http::status::service_unavailable,
                   "the collection of metrics did not finish in time\n");
}

// Hands the waiting batch to the collection thread. One at a time.
void Server::Impl::launch() {
  running_ = std::exchange(next_, nullptr);
  if (!pool_) return;
  // The owner joins the pool before it lets go of this object, so the thread never holds the last
  // reference.
  net::post(*pool_, [self = shared_from_this()] {
    auto start = Clock::now();
    Body text = make_body(self->registry_.render());
    auto took = std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - start);
    self->own_.duration_ns.store(static_cast<std::uint64_t>(took.count()),
                                 std::memory_order_relaxed);
    net::post(self->strand_, [self, text] {
      self->running_->text = text;
      self->running_->done.cancel();
      self->running_.reset();
      if (self->next_) self->launch();
    });
  });
}

net::awaitable<bool> Server::Impl::send(beast::tcp_stream& stream, Exchange exchange, Reply reply) {
  auto fill = [&](auto& response) {
    response.set(http::field::content_type, reply.content_type);
    if (reply.allow_header) response.set(http::field::allow, "GET, HEAD");
    response.keep_alive(exchange.keep_alive);
    response.content_length(reply.body->size());
  };
  stream.expires_after(options_.deadline);
  error_code result;
  if (exchange.head) {
    http::response<http::empty_body> response(reply.status, exchange.version);
    fill(response);
    auto [ec, bytes] = co_await http::async_write(stream, response, kAwait);
    (void)bytes;  // all or an error
    result = ec;
  } else {
    // A span: the text of one collection is shared by everybody who asked, not copied.
    http::response<http::span_body<const char>> response(reply.status, exchange.version);
    response.body() = {reply.body->data(), reply.body->size()};
    fill(response);
    auto [ec, bytes] = co_await http::async_write(stream, response, kAwait);
    (void)bytes;  // all or an error
    result = ec;
  }
  if (result == beast::error::timeout) own_.count(Rejection::Deadline);
  co_return !result;
}

// Closing while unread bytes are queued sends RST, which may overtake the answer: read the rest
// first.
net::awaitable<void> Server::Impl::linger(beast::tcp_stream& stream) {
  error_code ec;
  stream.socket().shutdown(tcp::socket::shutdown_send, ec);
  if (ec) co_return;
  stream.expires_after(std::min<std::chrono::milliseconds>(options_.deadline, kLingerTime));
  std::array<char, 4096> scrap;
  for (std::size_t total = 0; total < kLingerBytes;) {
    auto [read_error, bytes] = co_await stream.async_read_some(net::buffer(scrap), kAwait);
    if (read_error) co_return;
    total += bytes;
  }
}

Result<std::unique_ptr<Server>> Server::create(net::io_context& io, Registry& registry,
                                               ServerOptions options, FormerListeners former) {
  auto impl = std::make_shared<Impl>(io, registry, std::move(options));
  std::unique_ptr<Server> server(new Server(impl));
  if (auto status = impl->listen(std::move(former)); !status)
    return tl::unexpected(std::move(status).error());
  return server;
}

Server::Server(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}

Server::~Server() {
  stop();
  impl_->release();
}

Status Server::add_debug(std::string name, DebugHandler handler) {
  bool good =
      !name.empty() && name.front() != '/' && std::all_of(name.begin(), name.end(), [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
               c == '-' || c == '_' || c == '/';
      });
  if (!good) return fail("'{}' is not a name for a debug page", name);
  auto [at, fresh] = impl_->debug_.try_emplace(std::move(name), std::move(handler));
  if (!fresh) return fail("there is a debug page {} already", at->first);
  return {};
}

void Server::start() { impl_->start(); }
void Server::stop() { impl_->stop(); }
void Server::release() { impl_->stop(/*keep_listening=*/true); }
int Server::listening() const { return impl_->main_listener().acceptor.native_handle(); }
int Server::debug_listening() const {
  auto* debug = impl_->debug_listener();
  return debug != nullptr ? debug->acceptor.native_handle() : -1;
}

Endpoint Server::endpoint() const { return impl_->main_listener().bound; }

std::optional<Endpoint> Server::debug_endpoint() const {
  if (const Listener* listener = impl_->debug_listener()) return listener->bound;
  return std::nullopt;
}

std::size_t Server::connections() const {
  return impl_->connections_.load(std::memory_order_relaxed);
}

}  // namespace mesh::metrics
