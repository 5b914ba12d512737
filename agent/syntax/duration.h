// SPDX-License-Identifier: Apache-2.0
// Durations as Go writes them: "1m30s", "1.5h", "-100us", "0".
#pragma once

#include <chrono>
#include <string>
#include <string_view>

#include "agent/base/result.h"

namespace mesh::syntax {

// The syntax and the range of Go's time.ParseDuration (int64 nanoseconds); what is finer than a
// nanosecond is cut off.
Result<std::chrono::nanoseconds> parse_duration(std::string_view text);

}  // namespace mesh::syntax
