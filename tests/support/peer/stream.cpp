// SPDX-License-Identifier: Apache-2.0
// The sub-commands that connect and exchange text or fill a pipe: client, source.
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <iostream>
#include <thread>

#include "tests/support/peer/commands.h"

namespace mesh::peer {
namespace {

constexpr std::size_t kMaxReply = 1 << 20;

// Reads until `enough(text)`, the end or an error; 0 or the errno.
template <typename Enough>
int read_until(int fd, const ConnectOptions& options, std::string& text, Enough enough) {
  std::array<char, 4096> buffer;
  while (!enough(text) && text.size() < kMaxReply) {
    const ssize_t n = receive(fd, buffer.data(), buffer.size(), options);
    if (n <= 0) return static_cast<int>(-n);
    text.append(buffer.data(), static_cast<std::size_t>(n));
  }
  return 0;
}

bool has_line(const std::string& text) { return text.find('\n') != std::string::npos; }

int interact(int fd, const ConnectOptions& options) {
  std::string line;
  int code = 0;
  while (std::getline(std::cin, line)) {
    int error = send_all(fd, line + "\n");
    std::string reply;
    if (error == 0) error = read_until(fd, options, reply, has_line);
    if (error == 0 && reply.empty()) {
      emit({{"ok", false}, {"stage", "recv"}, {"errno", "EOF"}});
      code = 1;
    } else if (error != 0) {
      code = emit_failure("exchange", error);
    } else {
      if (reply.back() == '\n') reply.pop_back();
      emit({{"ok", true}, {"reply", reply}});
    }
  }
  return code;
}

int one_client(const ClientOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  auto fd = connect_to(options.connect);
  if (!fd && options.brief) return 1;
  if (!fd) return emit_failure("connect", fd.error().code.value());
  const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - start;
  nlohmann::json result{{"getpeername", peer_name(fd->get())},
                        {"getsockname", own_name(fd->get())},
                        {"connect_ms", took.count()}};
  if (options.interactive) {
    result["ok"] = true;
    emit(result);
    return interact(fd->get(), options.connect);
  }
  const auto finish = [&](std::string_view stage, int error) {
    if (options.brief) return error == 0 ? 0 : 1;
    result["ok"] = error == 0;
    if (error != 0) {
      result["stage"] = stage;
      result["errno"] = errno_name(error);
    }
    emit(result);
    return error == 0 ? 0 : 1;
  };
  if (options.read_first) {
    std::string greeting;
    if (const int error = read_until(fd->get(), options.connect, greeting, has_line); error != 0)
      return finish("greeting", error);
    result["greeting"] = greeting;
  }
  if (const int error = send_all(fd->get(), options.text); error != 0) return finish("send", error);
  // Not connected any more: what became of it is told by recv(2).
  if (!options.no_shutdown && ::shutdown(fd->get(), SHUT_WR) < 0 && errno != ENOTCONN)
    return finish("shutdown", errno);
  std::string reply;
  const int error = read_until(fd->get(), options.connect, reply, [&](const std::string& text) {
    return options.no_shutdown && text.size() >= options.text.size();
  });
  if (options.brief && reply != options.text) return 1;
  result["reply"] = reply;
  return finish("recv", error);
}

// As many times the text as a write may have, or once.
std::string chunk_of(const SourceOptions& options) {
  std::string chunk = options.text;
  while (chunk.size() + options.text.size() <= options.write_size) chunk += options.text;
  return chunk;
}

// Sends until nothing can be queued for `until_blocked_ms`, then holds the connection.
int fill(int fd, const SourceOptions& options) {
  const std::string chunk = chunk_of(options);
  set_nonblocking(fd, true);
  std::uint64_t queued = 0;
  while (queued < options.bytes) {
    pollfd wait{fd, POLLOUT, 0};
    if (::poll(&wait, 1, static_cast<int>(options.until_blocked_ms)) == 0) break;
    const std::size_t room =
        static_cast<std::size_t>(std::min<std::uint64_t>(chunk.size(), options.bytes - queued));
    const ssize_t n = ::send(fd, chunk.data(), room, MSG_NOSIGNAL);
    if (n < 0 && errno == EAGAIN) continue;
    if (n < 0) return emit_failure("send", errno);
    queued += static_cast<std::uint64_t>(n);
  }
  emit({{"ok", true}, {"event", "filled"}, {"bytes", queued}, {"blocked", queued < options.bytes}});
  wait_stdin_eof();
  return 0;
}

int one_source(const SourceOptions& options) {
  auto fd = connect_to(options.connect);
  if (!fd) return emit_failure("connect", fd.error().code.value());
  if (options.until_blocked_ms > 0) return fill(fd->get(), options);
  const std::string chunk = chunk_of(options);
  std::uint64_t sent = 0;
  const auto failed = [&](std::string_view stage, int error) {
    emit({{"ok", false}, {"stage", stage}, {"errno", errno_name(error)}, {"bytes", sent}});
    return 1;
  };
  while (sent < options.bytes) {
    const std::size_t size =
        static_cast<std::size_t>(std::min<std::uint64_t>(chunk.size(), options.bytes - sent));
    if (const int error = send_all(fd->get(), std::string_view(chunk).substr(0, size)); error != 0)
      return failed("send", error);
    sent += size;
  }
  if (::shutdown(fd->get(), SHUT_WR) < 0) return failed("shutdown", errno);
  std::string rest;
  const int error =
      read_until(fd->get(), options.connect, rest, [](const std::string&) { return false; });
  if (error != 0) return failed("recv", error);
  emit({{"ok", true}, {"bytes", sent}});
  return 0;
}

}  // namespace

int client(const ClientOptions& options) {
  int code = 0;
  for (unsigned i = 0; i < options.repeat; ++i) {
    if (i > 0 && options.pause_ms > 0)
      std::this_thread::sleep_for(std::chrono::milliseconds(options.pause_ms));
    const int one = one_client(options);
    if (options.brief) std::cout << (one == 0 ? '+' : '-') << std::flush;
    code = std::max(code, one);
  }
  return code;
}

int source(const SourceOptions& options) {
  int code = 0;
  for (unsigned i = 0; i < options.repeat; ++i) {
    if (i > 0) std::this_thread::sleep_for(std::chrono::milliseconds(options.pause_ms));
    code = std::max(code, one_source(options));
  }
  return code;
}

}  // namespace mesh::peer
