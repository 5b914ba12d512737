// SPDX-License-Identifier: Apache-2.0
#include "agent/policy/decision.h"

namespace mesh::policy {

Decision decide(const Request& request) {
  // Nobody is not somebody: an unnamed source never passes, whatever the default is.
  if (request.source.empty()) return {Verdict::Deny, "no identity"};
  return {Verdict::Allow, "default policy"};
}

}  // namespace mesh::policy
