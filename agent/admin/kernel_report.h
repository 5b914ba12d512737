// SPDX-License-Identifier: Apache-2.0
// What the kernel itself says of mesh legs, whatever the agent believes: the ULP of each leg's
// socket by sock_diag, and /proc/net/tls_stat of each namespace that has some. Never a guess: what
// could not be asked is unknown, with the reason.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "agent/base/result.h"
#include "agent/base/ulp_info.h"
#include "agent/capture/netns_directory.h"

namespace mesh::admin {

// A TCP socket of the agent in a pod's namespace.
struct LegSocket {
  std::uint64_t netns = 0;  // cookie
  TcpTuple tuple;
  auto operator<=>(const LegSocket&) const = default;
};

// The counters of a /proc/net/tls_stat by the kernel's names; null for what is none.
nlohmann::json parse_tls_stat(std::string_view text);

class KernelReport {
 public:
  // What this may take of the control thread.
  static constexpr std::chrono::milliseconds kLimit{250};

  // Looks at the time after each batch of questions; what has not had its turn by then is unknown.
  void ask(const capture::NetnsDirectory& directory, std::span<const LegSocket> legs,
           std::chrono::milliseconds limit = kLimit);

  // Adds to a leg: "ulp", null for a socket without one, or "ulp_unknown" and why.
  void put(const LegSocket& leg, nlohmann::json& into) const;
  // By netns cookie: "tls_stat", absent where the kernel has none, or "tls_stat_unknown" and why.
  [[nodiscard]] nlohmann::json namespaces() const;

 private:
  std::map<LegSocket, Result<std::optional<UlpInfo>>> legs_;
  // Without a value: the kernel has no such file.
  std::map<std::uint64_t, Result<std::optional<std::string>>> stats_;
};

}  // namespace mesh::admin
