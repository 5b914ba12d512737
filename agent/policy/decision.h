// SPDX-License-Identifier: Apache-2.0
// Who may talk to whom. One function decides for every path; what it decides by comes from the
// configuration and never from an address.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace mesh::policy {

struct Request {
  std::string_view source;       // service name of the authenticated client identity
  std::string_view destination;  // service name, or empty for a workload's port that no service has
  std::uint16_t port = 0;        // of the destination workload, host byte order
};

enum class Verdict : std::uint8_t { Allow, Deny };

struct Decision {
  Verdict verdict = Verdict::Deny;
  std::string_view reason;  // static text: which rule decided
};

// Until there are intentions the default policy decides, and that is allow. Any thread.
Decision decide(const Request& request);

}  // namespace mesh::policy
