// SPDX-License-Identifier: Apache-2.0
#include "tests/support/agent.h"

#include <signal.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#include <array>
#include <cstdlib>
#include <thread>

#include "agent/base/address.h"
#include "tests/support/must.h"

#ifndef MESH_AGENT_BINARY
#define MESH_AGENT_BINARY ""
#endif

namespace mesh::test {
namespace {

constexpr auto kHttpLimit = std::chrono::seconds(30);
constexpr std::size_t kMaxReply = 64u << 20;

std::string agent_binary() {
  // Set to run an installed agent, as the virtual machines do.
  if (const char* other = std::getenv("MESH_AGENT_BINARY"); other != nullptr) return other;
  return MESH_AGENT_BINARY;
}

// Sends the request and reads until the other side closes.
Result<std::string> exchange(const sockaddr* address, socklen_t length, const std::string& request,
                             std::chrono::milliseconds limit) {
  UniqueFd socket(::socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!socket) return fail_errno(errno, "socket");
  timeval time{};
  time.tv_sec = limit.count() / 1000;
  time.tv_usec = limit.count() % 1000 * 1000;
  (void)::setsockopt(socket.get(), SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time);
  (void)::setsockopt(socket.get(), SOL_SOCKET, SO_SNDTIMEO, &time, sizeof time);
  if (::connect(socket.get(), address, length) < 0) return fail_errno(errno, "connect");
  if (::send(socket.get(), request.data(), request.size(), MSG_NOSIGNAL) !=
      static_cast<ssize_t>(request.size()))
    return fail_errno(errno, "send");
  std::string reply;
  std::array<char, 65536> buffer;
  while (reply.size() < kMaxReply) {
    const ssize_t n = ::recv(socket.get(), buffer.data(), buffer.size(), 0);
    if (n < 0) return fail_errno(errno, "recv");
    if (n == 0) return reply;
    reply.append(buffer.data(), static_cast<std::size_t>(n));
  }
  return fail("reply of more than {} bytes", kMaxReply);
}

Result<HttpReply> parse_reply(const std::string& text) {
  const auto split = text.find("\r\n\r\n");
  if (!text.starts_with("HTTP/1.") || split == std::string::npos || text.size() < 12)
    return fail("not an HTTP reply: {}", text.substr(0, 80));
  if (text.find("Transfer-Encoding", 0) < split) return fail("reply in chunks");
  HttpReply reply;
  reply.status = std::atoi(text.c_str() + 9);
  reply.body = text.substr(split + 4);
  return reply;
}

}  // namespace

Result<HttpReply> http_get(const Netns& netns, const std::string& address, std::uint16_t port,
                           const std::string& path, std::chrono::milliseconds limit) {
  auto parsed = Address::parse(address);
  if (!parsed) return tl::unexpected(parsed.error());
  const std::string request =
      fmt::format("GET {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", path, address);
  Result<HttpReply> reply = HttpReply{};
  auto status = netns.run([&]() -> Status {
    const SockAddr to(Endpoint{*parsed, port});
    auto text = exchange(to.get(), to.length, request, limit);
    if (!text) return context(text.error(), fmt::format("GET {}:{}{}", address, port, path));
    reply = parse_reply(*text);
    return {};
  });
  if (!status) return tl::unexpected(status.error());
  return reply;
}

SpawnOptions Agent::spawn_options(const Node& node, const AgentOptions& options) {
  auto cgroup = options.cgroup.empty() ? node.cgroup_root() + "/agent" : options.cgroup;
  must(make_directory(cgroup), "agent");
  SpawnOptions spawn;
  spawn.netns = &node.host().netns();
  spawn.cgroup = cgroup;
  spawn.env = options.env;
  spawn.max_output = 16u << 20;
  return spawn;
}

std::vector<std::string> Agent::arguments(const Node& node, const AgentOptions& options) {
  const std::string socket =
      options.admin_socket.empty() ? node.admin_socket() : options.admin_socket;
  std::vector<std::string> result{agent_binary(),
                                  "--node-name",
                                  node.name(),
                                  "--config-dir",
                                  node.config_dir(),
                                  "--metrics-listen",
                                  fmt::format("0.0.0.0:{}", options.metrics_port),
                                  "--debug-listen",
                                  fmt::format("127.0.0.1:{}", options.debug_port),
                                  "--cgroup-root",
                                  node.cgroup_root(),
                                  "--pin-dir",
                                  node.pin_dir(),
                                  "--admin-socket",
                                  socket,
                                  "--log-level",
                                  options.log_level};
  if (options.node_cidr)
    for (const auto& cidr : {node.cidr4(), node.cidr6()})
      result.insert(result.end(), {"--node-cidr", cidr});
  result.insert(result.end(), options.extra.begin(), options.extra.end());
  result.insert(result.begin(), options.under.begin(), options.under.end());
  return result;
}

Agent::Agent(Node& node, AgentOptions options) : node_(node), options_(std::move(options)) {
  start();
}

void Agent::start() {
  if (process_) earlier_log_ = log();
  process_ =
      must(Process::spawn(arguments(node_, options_), spawn_options(node_, options_)), "agent");
  wait_ready();
}

Process Agent::spawn_successor(const std::string& cgroup) const {
  AgentOptions options = options_;
  if (!cgroup.empty()) options.cgroup = cgroup;
  options.extra.emplace_back("--takeover");
  return must(Process::spawn(arguments(node_, options), spawn_options(node_, options)), "agent");
}

ExitStatus Agent::take_over(std::chrono::milliseconds limit) {
  Process next = spawn_successor();
  const auto end = std::chrono::steady_clock::now() + limit;
  while (process_->running()) {
    if (!next.running())
      throw SetupFailed("the new agent ended: " + next.out() + next.err() + "\n--- old\n" + log());
    if (std::chrono::steady_clock::now() > end)
      throw SetupFailed("no takeover in time: " + next.out() + next.err() + "\n--- old\n" + log());
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  auto status = must(process_->wait(std::chrono::seconds(1)), "agent");
  earlier_log_ = log() + "--- taken over\n";
  process_ = std::move(next);
  wait_ready();
  return status;
}

void Agent::wait_ready() {
  const auto limit = std::chrono::steady_clock::now() + options_.start_limit;
  while (true) {
    const auto reply =
        http_get(node_.host().netns(), "127.0.0.1", options_.metrics_port, "/readyz", kHttpLimit);
    if (reply && options_.not_ready.empty() && reply->status == 200) return;
    if (reply && !options_.not_ready.empty() && reply->status != 200 &&
        reply->body.find(options_.not_ready) != std::string::npos)
      return;
    const std::string last =
        reply ? fmt::format("/readyz: {} {}", reply->status, reply->body) : reply.error().what;
    if (!process_->running()) {
      const auto status = process_->wait(std::chrono::seconds(1));
      throw SetupFailed(
          fmt::format("mesh-agent ended at its start: {}\n{}", status->to_string(), log()));
    }
    if (std::chrono::steady_clock::now() > limit) {
      throw SetupFailed(fmt::format("mesh-agent not ready after {} ms ({})\n{}",
                                    options_.start_limit.count(), last, log()));
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}

ExitStatus Agent::stop(std::chrono::milliseconds limit) {
  process_->signal(SIGTERM);
  auto status = process_->wait(limit);
  if (!status) throw SetupFailed(fmt::format("SIGTERM: {}\n{}", status.error().what, log()));
  return *status;
}

void Agent::kill9() { process_->kill(); }

std::string Agent::log() const {
  return process_ ? earlier_log_ + process_->out() + process_->err() : earlier_log_;
}

HttpReply Agent::get(const std::string& path) const {
  return must(http_get(node_.host().netns(), "127.0.0.1", options_.metrics_port, path, kHttpLimit),
              "agent");
}

Metrics Agent::metrics() const {
  const HttpReply reply = get("/metrics");
  if (reply.status != 200) throw SetupFailed(fmt::format("/metrics: status {}", reply.status));
  return must(Metrics::parse(reply.body), "agent");
}

RunResult Agent::cli(const std::vector<std::string>& arguments) const {
  std::vector<std::string> argv{agent_binary()};
  argv.insert(argv.end(), arguments.begin(), arguments.end());
  SpawnOptions spawn = spawn_options(node_, options_);
  spawn.env.emplace_back("MESH_AGENT_ADMIN_SOCKET", node_.admin_socket());
  spawn.env.emplace_back("MESH_AGENT_PIN_DIR", node_.pin_dir());
  spawn.env.emplace_back("MESH_AGENT_CGROUP_ROOT", node_.cgroup_root());
  return must(test::run(argv, spawn, kRunLimit), "mesh-agent");
}

nlohmann::json Agent::cli_json(const std::string& command) const {
  const RunResult result = cli({command, "--json"});
  if (!result.ok()) throw SetupFailed(fmt::format("mesh-agent {}: {}", command, result.describe()));
  auto parsed = nlohmann::json::parse(result.out, nullptr, false);
  if (parsed.is_discarded())
    throw SetupFailed(fmt::format("mesh-agent {}: not JSON: {}", command, result.out));
  return parsed;
}

// Not by the program, as people ask: most tests wait for something here, and in an emulated guest
// each start of the program is a quarter of a second.
nlohmann::json Agent::status_json() const {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string path = node_.admin_socket();
  if (path.size() >= sizeof address.sun_path) throw SetupFailed(path + ": path too long");
  path.copy(address.sun_path, path.size());
  const auto text = must(exchange(reinterpret_cast<const sockaddr*>(&address), sizeof address,
                                  "{\"command\":\"status\"}\n", kHttpLimit),
                         "mesh-agent status");
  auto parsed = nlohmann::json::parse(text, nullptr, false);
  if (!parsed.is_object() || !parsed.contains("result"))
    throw SetupFailed("mesh-agent status: " + text);
  return parsed["result"];
}
nlohmann::json Agent::connections_report() const { return cli_json("connections"); }
nlohmann::json Agent::connections_json() const { return connections_report().at("connections"); }

RunResult Agent::try_run(const Node& node, const AgentOptions& options,
                         std::chrono::milliseconds limit) {
  return must(test::run(arguments(node, options), spawn_options(node, options), limit), "agent");
}

}  // namespace mesh::test
