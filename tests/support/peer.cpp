// SPDX-License-Identifier: Apache-2.0
#include "tests/support/peer.h"

#include <cstdlib>
#include <sstream>

#include "tests/support/must.h"

namespace mesh::test {
namespace {

constexpr auto kLineLimit = std::chrono::seconds(60);

[[noreturn]] void give_up(const std::string& awaited, const Process& process) {
  throw SetupFailed(
      fmt::format("peer: {}\n--- stdout\n{}--- stderr\n{}", awaited, process.out(), process.err()));
}

}  // namespace

std::vector<std::string> peer(const std::vector<std::string>& arguments) {
  const char* other = std::getenv("MESH_TEST_PEER_BINARY");  // the virtual machines install it
  std::vector<std::string> argv{other != nullptr ? other : MESH_TEST_PEER_BINARY};
  argv.insert(argv.end(), arguments.begin(), arguments.end());
  return argv;
}

Process start_server(const Place& place, const std::vector<std::string>& arguments) {
  Process process = place.spawn(peer(arguments), true);
  if (!process.wait_output("\"listening\"", kLineLimit)) give_up("does not listen", process);
  return process;
}

std::vector<nlohmann::json> json_lines(const std::string& out) {
  std::vector<nlohmann::json> lines;
  const std::string complete =
      out.substr(0, out.rfind('\n') == std::string::npos ? 0 : out.rfind('\n'));
  std::istringstream stream(complete);
  std::string line;
  while (std::getline(stream, line)) {
    auto parsed = nlohmann::json::parse(line, nullptr, false);
    if (parsed.is_discarded()) throw SetupFailed("peer: not JSON: " + line);
    lines.push_back(std::move(parsed));
  }
  return lines;
}

std::vector<nlohmann::json> wait_events(Process& process, const std::string& event,
                                        std::size_t count, std::chrono::milliseconds limit) {
  const auto end = std::chrono::steady_clock::now() + limit;
  while (true) {
    std::vector<nlohmann::json> found;
    const auto lines = json_lines(process.out());
    for (const auto& line : lines)
      if (line.value("event", "") == event) found.push_back(line);
    if (found.size() >= count) return found;
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
        end - std::chrono::steady_clock::now());
    if (left.count() <= 0 || !process.wait_lines(lines.size() + 1, left))
      give_up(fmt::format("{} of {} events \"{}\"", found.size(), count, event), process);
  }
}

nlohmann::json run_peer(const Place& place, const std::vector<std::string>& arguments,
                        std::chrono::milliseconds limit) {
  const RunResult result = place.run(peer(arguments), limit);
  const auto lines = json_lines(result.out);
  if (lines.empty() || result.timed_out)
    throw SetupFailed(fmt::format("peer {}: {}", fmt::join(arguments, " "), result.describe()));
  return lines.back();
}

nlohmann::json run_client(const Place& place, const std::string& to, std::uint16_t port,
                          const std::vector<std::string>& more) {
  std::vector<std::string> arguments{"client", "--to", to, "--port", std::to_string(port)};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return run_peer(place, arguments);
}

InteractiveClient::InteractiveClient(const Place& place, const std::string& to, std::uint16_t port,
                                     const std::vector<std::string>& more)
    : process_([&] {
        std::vector<std::string> arguments{"client", "--interactive", "--to",
                                           to,       "--port",        std::to_string(port)};
        arguments.insert(arguments.end(), more.begin(), more.end());
        return place.spawn(peer(arguments), true);
      }()) {
  if (!process_.wait_lines(1, kLineLimit)) give_up("says nothing", process_);
  connected_ = json_lines(process_.out()).at(0);
}

nlohmann::json InteractiveClient::say(const std::string& text) {
  must(process_.write_stdin(text + "\n"), "peer");
  if (!process_.wait_lines(++lines_, kLineLimit)) give_up("no reply", process_);
  return json_lines(process_.out()).at(lines_ - 1);
}

}  // namespace mesh::test
