// SPDX-License-Identifier: Apache-2.0
#include "agent/admin/client.h"

#include <fmt/core.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstring>

#include "agent/base/unique_fd.h"

namespace mesh::admin {
namespace {

using nlohmann::json;

std::string bytes_text(std::uint64_t bytes) {
  if (bytes < 10'000) return fmt::format("{} B", bytes);
  if (bytes < 10'000'000) return fmt::format("{:.1f} kB", static_cast<double>(bytes) / 1e3);
  return fmt::format("{:.1f} MB", static_cast<double>(bytes) / 1e6);
}

std::string joined(const json& list) {
  std::string text;
  for (const auto& item : list) text += (text.empty() ? "" : ", ") + item.get<std::string>();
  return text.empty() ? "-" : text;
}

void print_status(const json& status) {
  fmt::print("mesh-agent {} (ABI {}) on {}, pins {}\n", status["version"].get<std::string>(),
             status["abi"].get<int>(), status["node"].get<std::string>(),
             status["pins"].get<std::string>());
  for (const auto& d : status["degraded"])
    fmt::print("degraded: {}: {}\n", d["feature"].get<std::string>(),
               d["reason"].get<std::string>());
  for (const auto& e : status["config_errors"])
    fmt::print("config error: {}\n", e.get<std::string>());
  if (!status["datapath_error"].get<std::string>().empty())
    fmt::print("datapath error: {}\n", status["datapath_error"].get<std::string>());
  if (const auto& store = status["store"]; !store.is_null()) {
    fmt::print("store: {} {}, revision {}, {} keys\n", store["engine"].get<std::string>(),
               store["connected"].get<bool>() ? "connected" : "STALE",
               store["revision"].get<std::int64_t>(), store["keys"].get<std::size_t>());
    for (const char* what : {"reason", "registration_problem"})
      if (const auto text = store[what].get<std::string>(); !text.empty())
        fmt::print("store: {}\n", text);
    for (const auto& refused : store["refused"])
      fmt::print("store: key {} is left out: {}\n", refused["key"].get<std::string>(),
                 refused["reason"].get<std::string>());
  }
  for (const auto& cidr : status["unguarded_cidrs"])
    fmt::print("not covered by --mesh-cidr: {}\n", cidr.get<std::string>());
  if (!status["nodes"].empty()) fmt::print("\n{:<24} {:<40} {}\n", "NODE", "ADDRESS", "PODS");
  for (const auto& n : status["nodes"])
    fmt::print("{:<24} {:<40} {}\n", n["name"].get<std::string>(),
               n["address"].get<std::string>() + (n["self"].get<bool>()   ? " (this node)"
                                                  : n["gone"].get<bool>() ? " (gone)"
                                                                          : ""),
               joined(n["cidrs"]));
  fmt::print("\n{:<24} {:<40} {}\n", "WORKLOAD", "ADDRESSES", "SERVICES");
  for (const auto& w : status["workloads"])
    fmt::print("{:<24} {:<40} {}\n", w["name"].get<std::string>(), joined(w["addresses"]),
               joined(w["services"]));
  fmt::print("\n{:<24} {:<8} {:<16} {:<28} {:<8} {:<8} {:<14} {}\n", "SERVICE", "PROTOCOL", "VIP",
             "VIP6", "PATH", "SOCKMAP", "BALANCE", "ENDPOINTS");
  for (const auto& s : status["services"]) {
    std::string endpoints;
    for (const char* place : {"local", "remote", "unreachable"})
      if (const auto n = s["endpoints"][place].get<std::size_t>(); n != 0)
        endpoints += fmt::format("{}{} {}", endpoints.empty() ? "" : ", ", n, place);
    if (endpoints.empty()) endpoints = "none";
    std::size_t critical = 0;
    for (const auto& instance : s["instances"]) critical += instance["health"] == "critical";
    if (critical != 0) endpoints += fmt::format(" ({} critical)", critical);
    const auto why = s["balance"]["random_because"].get<std::string>();
    fmt::print("{:<24} {:<8} {:<16} {:<28} {:<8} {:<8} {:<14} {}\n", s["name"].get<std::string>(),
               s["protocol"].get<std::string>(), s["vip4"].get<std::string>(),
               s["vip6"].get<std::string>(), s["path"].get<std::string>(),
               s["acceleration"] == "sockmap" ? "yes" : "no",
               s["balance"]["policy"].get<std::string>(), endpoints);
    if (!why.empty()) fmt::print("{:<24} at random: {}\n", "", why);
  }
}

// Who makes the records of the mesh leg behind a connection, by what the kernel says.
std::string_view record_maker(const json& connection) {
  const auto tls = connection.find("tls");
  if (tls == connection.end()) return "-";
  const auto ulp = tls->find("ulp");
  if (ulp == tls->end()) return "unknown";
  if (ulp->is_null() || (*ulp)["name"] != "tls") return "agent";
  if (!ulp->contains("tx") || !ulp->contains("rx")) return "unknown";
  const bool tx = (*ulp)["tx"] != "none", rx = (*ulp)["rx"] != "none";
  return tx && rx ? "kernel" : tx ? "kernel-tx" : rx ? "kernel-rx" : "agent";
}

void print_connections(const json& report) {
  fmt::print("{:<12} {:<18} {:<18} {:<11} {:<24} {:<24} {:<9} {:>10} {:>10}\n", "REPORTER",
             "SOURCE", "DESTINATION", "PATH", "LOCAL", "PEER", "RECORDS", "SENT", "RECEIVED");
  for (const auto& c : report["connections"])
    fmt::print("{:<12} {:<18} {:<18} {:<11} {:<24} {:<24} {:<9} {:>10} {:>10}\n",
               c["reporter"].get<std::string>(), c["source"].get<std::string>(),
               c["destination"].get<std::string>(), c["path"].get<std::string>(),
               c["local"].get<std::string>(), c["peer"].get<std::string>(), record_maker(c),
               bytes_text(c["sent_bytes"].get<std::uint64_t>()),
               bytes_text(c["received_bytes"].get<std::uint64_t>()));
}

}  // namespace

Result<json> ask(const std::string& socket_path, const json& request) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (socket_path.size() >= sizeof address.sun_path) return fail("{}: path too long", socket_path);
  std::memcpy(address.sun_path, socket_path.data(), socket_path.size());
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd) return fail_errno(errno, "socket");
  const timeval deadline{10, 0};
  (void)::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &deadline,
                     sizeof deadline);  // else it waits longer
  (void)::setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &deadline, sizeof deadline);
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    return fail_errno(
        errno, fmt::format("no mesh-agent answers at {} (is it running? give --admin-socket)",
                           socket_path));
  const std::string line = request.dump(-1, ' ', false, json::error_handler_t::replace) + "\n";
  // Who may not ask, or comes when too many do, is not read at all: a close is all that there is to
  // see, and a reset where the question was there before it.
  const auto closed = [] {
    return fail(
        "the agent closed the connection without an answer: only root and the agent's user may "
        "ask, and not too many at a time");
  };
  const ssize_t sent = ::send(fd.get(), line.data(), line.size(), MSG_NOSIGNAL);
  if (sent < 0 && (errno == EPIPE || errno == ECONNRESET)) return closed();
  if (sent != static_cast<ssize_t>(line.size())) return fail_errno(errno, "ask the agent");
  std::string reply;
  char chunk[65536];
  for (;;) {
    const ssize_t n = ::recv(fd.get(), chunk, sizeof chunk, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n == 0 || (n < 0 && errno == ECONNRESET)) break;
    if (n < 0) return fail_errno(errno, "read the agent's answer");
    reply.append(chunk, static_cast<std::size_t>(n));
  }
  if (reply.empty()) return closed();
  auto parsed = json::parse(reply, nullptr, false);
  if (!parsed.is_object() || !(parsed.contains("error") || parsed.contains("result")))
    return reply.ends_with('\n')
               ? fail("what answers at {} is no mesh-agent", socket_path)
               : fail(
                     "the agent's answer was cut off after {} bytes: it was not read in time, or "
                     "the agent has ended",
                     reply.size());
  if (parsed.contains("error")) return fail("{}", parsed["error"].get<std::string>());
  return parsed["result"];
}

int run_client(const Options& options) {
  json request;
  switch (options.command) {
    case Command::ShowStatus:
      request = {{"command", "status"}};
      break;
    case Command::ShowConnections:
      request = {{"command", "connections"}};
      break;
    case Command::Check:
      request = {{"command", "check"},
                 {"check", options.check_id},
                 {"status", options.check_status},
                 {"note", options.check_note}};
      break;
    default:
      request = {{"command", "debug"}, {"set", options.debug_values}};
      break;
  }
  auto answer = ask(options.admin_socket, request);
  if (!answer) {
    fmt::print(stderr, "mesh-agent: {}\n", answer.error().what);
    return 1;
  }
  if (options.json || options.command == Command::Debug || options.command == Command::Check) {
    fmt::print("{}\n", answer->dump(2));
  } else if (options.command == Command::ShowStatus) {
    print_status(*answer);
  } else {
    print_connections(*answer);
  }
  return 0;
}

}  // namespace mesh::admin
