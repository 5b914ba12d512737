// SPDX-License-Identifier: Apache-2.0
// Runs mesh-test-peer, the program that plays the application side, and reads its JSON lines.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/support/node.h"

namespace mesh::test {

// argv of the program with `arguments`.
std::vector<std::string> peer(const std::vector<std::string>& arguments);

// Starts a serving sub-command and waits until it listens.
Process start_server(const Place& place, const std::vector<std::string>& arguments);

// The complete lines of a peer's stdout so far.
std::vector<nlohmann::json> json_lines(const std::string& out);

// The lines whose "event" is `event`, once there are at least `count`; throws when they do not
// come.
std::vector<nlohmann::json> wait_events(Process& process, const std::string& event,
                                        std::size_t count,
                                        std::chrono::milliseconds limit = std::chrono::seconds(5));

// Runs a sub-command to its end and gives its last line; throws if it printed none.
nlohmann::json run_peer(const Place& place, const std::vector<std::string>& arguments,
                        std::chrono::milliseconds limit = kRunLimit);

// `client --to TO --port PORT` and more.
nlohmann::json run_client(const Place& place, const std::string& to, std::uint16_t port,
                          const std::vector<std::string>& more = {});

// A client that stays: `client --interactive`.
class InteractiveClient {
 public:
  InteractiveClient(const Place& place, const std::string& to, std::uint16_t port,
                    const std::vector<std::string>& more = {});
  [[nodiscard]] const nlohmann::json& connected() const { return connected_; }  // its first line
  nlohmann::json say(const std::string& text);  // sends a line, gives the result
  Process& process() { return process_; }

 private:
  Process process_;
  std::size_t lines_ = 1;
  nlohmann::json connected_;
};

}  // namespace mesh::test
