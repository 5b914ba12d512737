// SPDX-License-Identifier: Apache-2.0
#include "agent/takeover/successor.h"

#include <sys/socket.h>
#include <sys/un.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>

#include "agent/base/log.h"
#include "agent/takeover/limits.h"
#include "agent/takeover/receive.h"
#include "agent/takeover/wire_bytes.h"

namespace mesh::takeover {
namespace {

using nlohmann::json;

constexpr std::size_t kMaxAnswer = 4096;

// The answer to a request is one line; what follows it are frames, so not a byte more is read.
Result<std::string> read_line(int fd) {
  std::string line;
  for (;;) {
    char byte = 0;
    const ssize_t n = ::recv(fd, &byte, 1, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN)
      return fail(
          "the running agent does not answer within {} s: look at it, or kill it and start "
          "without --takeover",
          kAnswer.count() / 1000);
    if (n < 0) return fail_errno(errno, "read the running agent's answer");
    if (n == 0) return fail("the running agent closed the connection: only root may take over");
    if (byte == '\n') return line;
    if (line.size() == kMaxAnswer) return fail("the running agent's answer is too long");
    line.push_back(byte);
  }
}

Status connect_to(int fd, const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) return fail("{}: path too long", path);
  std::memcpy(address.sun_path, path.data(), path.size());
  if (::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    return fail_errno(errno, path);
  // What is taken over must be root's or ours.
  ucred peer{};
  socklen_t length = sizeof peer;
  if (::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0 ||
      (peer.uid != 0 && peer.uid != ::geteuid()))
    return fail("{} belongs to somebody else", path);
  return {};
}

}  // namespace

Result<std::unique_ptr<Successor>> Successor::ask(const std::string& admin_socket, int abi,
                                                  const std::string& version) {
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd) return fail_errno(errno, "socket");
  const timeval limit{kAnswer.count() / 1000, 0};
  (void)::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  (void)::setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
  if (auto connected = connect_to(fd.get(), admin_socket); !connected) {
    const int errnum = connected.error().code.value();
    if (errnum == ENOENT || errnum == ECONNREFUSED) return nullptr;
    return context(std::move(connected).error(), "ask the running agent");
  }
  const std::string line =
      json{{"command", "takeover"}, {"protocol", kProtocol}, {"abi", abi}, {"version", version}}
          .dump() +
      "\n";
  if (::send(fd.get(), line.data(), line.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(line.size()))
    return fail_errno(errno, "ask the running agent");
  auto answer = read_line(fd.get());
  if (!answer) return tl::unexpected(std::move(answer).error());
  const auto parsed = json::parse(*answer, nullptr, false);
  if (!parsed.is_object()) return fail("the running agent's answer is not JSON");
  if (parsed.contains("error")) {
    const auto& why = parsed["error"];
    if (why == "unknown command")
      return fail(
          "the running agent is too old to be taken over: stop it (SIGTERM), then start this one");
    return fail("{}", why.is_string() ? why.get<std::string>() : "the running agent refuses");
  }
  return over(std::move(fd));
}

Result<std::unique_ptr<Successor>> Successor::over(UniqueFd connection) {
  std::unique_ptr<Successor> successor(new Successor(std::move(connection)));
  MESH_TRY(successor->read_offer(), "takeover");
  return successor;
}

Status Successor::read_offer() {
  auto frame = channel_.expect(FrameType::Offer, kAnswer);
  if (!frame) return tl::unexpected(std::move(frame).error());
  Reader in(frame->payload);
  offer_.generation = in.number<std::uint64_t>();
  if (!in.done() || frame->fds.size() != 4) return fail("the offer is malformed");
  UniqueFd* const places[] = {&offer_.lock, &offer_.admin, &offer_.metrics, &offer_.debug};
  for (std::size_t i = 0; i < frame->fds.size(); ++i) *places[i] = std::move(frame->fds[i]);
  return {};
}

Result<std::vector<relay::HandedListener>> Successor::freeze() {
  MESH_TRY(channel_.send(FrameType::Freeze, kAnswer), "takeover");
  return receive_listeners(channel_);
}

Result<std::vector<relay::TakenOver>> Successor::take() {
  MESH_TRY(channel_.send(FrameType::Give, kAnswer), "takeover");
  std::vector<relay::TakenOver> all;
  MESH_TRY(receive_connections(channel_,
                               [&](Result<relay::TakenOver> one) -> Status {
                                 if (!one) return tl::unexpected(std::move(one).error());
                                 all.push_back(std::move(*one));
                                 return {};
                               }),
           "takeover");
  taken_ = static_cast<std::uint32_t>(all.size());
  return all;
}

Status Successor::ready() {
  Writer out;
  out.number(taken_);
  MESH_TRY(channel_.send(FrameType::Ready, out.take(), {}, kAnswer), "takeover");
  auto go = channel_.expect(FrameType::Go, kAnswer);
  if (!go && go.error().code == std::errc::timed_out) {
    // It says Go and gives up its connections only if that could be sent: after this it cannot, and
    // what is in the queue decides.
    channel_.shut();
    go = channel_.expect(FrameType::Go, std::chrono::milliseconds(1));
  }
  if (!go) return tl::unexpected(std::move(go).error());
  return {};
}

void Successor::follow(const std::function<void(relay::TakenOver)>& adopt) {
  for (;;) {
    auto frame = channel_.receive(kFollow);
    if (!frame) {
      log::warn("takeover: the former agent ended early: {}", frame.error().what);
      return;
    }
    if (frame->type == FrameType::Done) return;
    if (frame->type != FrameType::Connection) {
      log::warn("takeover: an unexpected frame of the former agent");
      return;
    }
    auto taken = parse_connection(std::move(*frame));
    if (taken) {
      adopt(std::move(*taken));
      continue;
    }
    // The former agent has let go of it.
    for (const auto& fd : frame->fds) relay::close_by_reset(fd);
    log::error("takeover: a connection is lost: {}", taken.error().what);
  }
}

}  // namespace mesh::takeover
