// SPDX-License-Identifier: Apache-2.0
#include "agent/admin/server.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <filesystem>

#include "agent/base/await.h"
#include "agent/base/log.h"

namespace mesh::admin {
namespace net = boost::asio;
namespace {

constexpr std::size_t kMaxRequest = 4096;
constexpr std::size_t kMaxClients = 16;

bool may_talk(int fd) {
  ucred peer{};
  socklen_t length = sizeof peer;
  if (::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0) return false;
  return peer.uid == 0 || peer.uid == ::geteuid();
}

struct Command {
  Handler handler;
  Taker take;  // empty: the connection is closed after the answer
};

// The answer, and who gets the connection after it.
std::pair<nlohmann::json, const Taker*> answer(const std::map<std::string, Command>& commands,
                                               const std::string& line) {
  using nlohmann::json;
  const auto request = json::parse(line, nullptr, false);
  if (!request.is_object() || !request.contains("command") || !request["command"].is_string())
    return {json{{"error", "a request is a JSON object with a command"}}, nullptr};
  const auto command = commands.find(request["command"].get<std::string>());
  if (command == commands.end()) return {json{{"error", "unknown command"}}, nullptr};
  auto result = command->second.handler(request);
  if (!result) return {json{{"error", result.error().what}}, nullptr};
  return {json{{"result", std::move(*result)}},
          command->second.take ? &command->second.take : nullptr};
}

}  // namespace

class Server::Impl : public std::enable_shared_from_this<Impl> {
 public:
  Impl(net::io_context& io, std::string path, std::chrono::milliseconds deadline)
      : io_(io), path_(std::move(path)), deadline_(deadline), acceptor_(io) {}

  Status open(UniqueFd listening) {
    if (listening) {
      boost::system::error_code failed;
      acceptor_.assign(net::local::stream_protocol(), listening.get(), failed);
      if (failed) return fail("admin socket {}: {}", path_, failed.message());
      (void)listening.release();  // the acceptor's now
      owns_path_ = false;         // until it is served from here
      return {};
    }
    std::error_code ignored;
    std::filesystem::create_directories(std::filesystem::path(path_).parent_path(), ignored);
    boost::system::error_code code;
    const net::local::stream_protocol::endpoint endpoint(path_);
    if (!replace_stale(endpoint))
      return fail("admin socket {}: another mesh-agent answers there", path_);
    acceptor_.open(endpoint.protocol(), code);
    const auto old = ::umask(0177);
    if (!code) acceptor_.bind(endpoint, code);
    ::umask(old);
    if (!code) acceptor_.listen(static_cast<int>(kMaxClients), code);
    if (code) return fail("admin socket {}: {} (give --admin-socket)", path_, code.message());
    return {};
  }

  net::awaitable<void> accept_loop() {
    for (;;) {
      auto [code, socket] = co_await acceptor_.async_accept(kAwait);
      if (code == net::error::operation_aborted || !acceptor_.is_open()) co_return;
      if (code) {
        net::steady_timer pause(io_,
                                std::chrono::milliseconds(100));  // out of descriptors, most likely
        (void)co_await pause.async_wait(kAwait);
        continue;
      }
      if (clients_ >= kMaxClients || !may_talk(socket.native_handle())) continue;  // closed at once
      net::co_spawn(io_, serve(shared_from_this(), std::move(socket)), net::detached);
    }
  }

  static net::awaitable<void> serve(std::shared_ptr<Impl> self,
                                    net::local::stream_protocol::socket accepted) {
    ++self->clients_;
    // Shared with the timer: its handler may be queued already when this coroutine ends.
    auto shared = std::make_shared<net::local::stream_protocol::socket>(std::move(accepted));
    auto& socket = *shared;
    net::steady_timer deadline(self->io_, self->deadline_);
    deadline.async_wait([shared](boost::system::error_code code) {
      boost::system::error_code ignored;
      if (!code) shared->close(ignored);
    });
    std::string line;
    auto [code, n] = co_await net::async_read_until(socket, net::dynamic_buffer(line, kMaxRequest),
                                                    '\n', kAwait);
    if (!code) {
      line.resize(n);
      const auto [result, take] = answer(self->commands_, line);
      const std::string reply =
          result.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
      // A client that left is its own fault.
      auto [failed, written] = co_await net::async_write(socket, net::buffer(reply), kAwait);
      boost::system::error_code ignored;
      if (!failed && take != nullptr) (*take)(UniqueFd(socket.release(ignored)));
    }
    deadline.cancel();
    --self->clients_;
  }

  void release() {
    boost::system::error_code ignored;
    // Out of the reactor first, which a mere close of a shared socket would not do.
    if (acceptor_.is_open()) (void)UniqueFd(acceptor_.release(ignored));
  }

  void stop() {
    boost::system::error_code ignored;
    if (!acceptor_.is_open()) return;
    acceptor_.close(ignored);
    if (owns_path_)
      (void)::unlink(path_.c_str());  // nothing to do about a file that somebody else removed
  }

  net::io_context& io_;
  std::string path_;
  std::chrono::milliseconds deadline_;
  net::local::stream_protocol::acceptor acceptor_;
  std::map<std::string, Command> commands_;
  std::size_t clients_ = 0;
  bool owns_path_ = true;

 private:
  // False if somebody listens.
  bool replace_stale(const net::local::stream_protocol::endpoint& endpoint) {
    net::local::stream_protocol::socket probe(io_);
    boost::system::error_code code;
    probe.connect(endpoint, code);
    if (!code) return false;
    struct stat file {};
    // Only a socket: whatever else has this name is not ours to remove, and bind(2) says so.
    if (code == boost::system::errc::connection_refused && ::lstat(path_.c_str(), &file) == 0 &&
        S_ISSOCK(file.st_mode))
      (void)::unlink(path_.c_str());
    return true;
  }
};

Result<std::unique_ptr<Server>> Server::create(net::io_context& io, const std::string& path,
                                               std::chrono::milliseconds deadline,
                                               UniqueFd listening) {
  if (path.size() >= sizeof(sockaddr_un{}.sun_path))
    return fail("admin socket path {} is longer than {} characters", path,
                sizeof(sockaddr_un{}.sun_path) - 1);
  auto impl = std::make_shared<Impl>(io, path, deadline);
  if (auto status = impl->open(std::move(listening)); !status)
    return tl::unexpected(std::move(status).error());
  return std::unique_ptr<Server>(new Server(std::move(impl)));
}

Server::Server(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
Server::~Server() { stop(); }
void Server::handle(std::string name, Handler handler) {
  impl_->commands_.emplace(std::move(name), Command{std::move(handler), {}});
}
void Server::handle_connection(std::string name, Handler check, Taker take) {
  impl_->commands_.emplace(std::move(name), Command{std::move(check), std::move(take)});
}
int Server::listening() const { return impl_->acceptor_.native_handle(); }
void Server::release() { impl_->release(); }
void Server::start() {
  impl_->owns_path_ = true;
  net::co_spawn(impl_->io_, impl_->accept_loop(), net::detached);
}
void Server::stop() { impl_->stop(); }

}  // namespace mesh::admin
