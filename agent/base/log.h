// SPDX-License-Identifier: Apache-2.0
// The one place that knows the logging library. Levels by who must act:
//   error  the operator, now          warn  the operator, when convenient (degraded, continues)
//   info   start, stop, config applied, workload found or gone     debug  the developer
// Library code does not log above debug: it returns a Result and the caller that decides logs once.
#pragma once

#include <spdlog/spdlog.h>

#include <string_view>

#include "agent/base/result.h"

namespace mesh::log {

enum class Format { Text, Json };

// Call once, before threads. `level` is one of trace, debug, info, warn, error.
[[nodiscard]] Status init(std::string_view level, Format format);

template <typename... Args>
void error(fmt::format_string<Args...> f, Args&&... args) {
  spdlog::error(fmt::format(f, std::forward<Args>(args)...));
}
template <typename... Args>
void warn(fmt::format_string<Args...> f, Args&&... args) {
  spdlog::warn(fmt::format(f, std::forward<Args>(args)...));
}
template <typename... Args>
void info(fmt::format_string<Args...> f, Args&&... args) {
  spdlog::info(fmt::format(f, std::forward<Args>(args)...));
}
template <typename... Args>
void debug(fmt::format_string<Args...> f, Args&&... args) {
  if (spdlog::should_log(spdlog::level::debug))
    spdlog::debug(fmt::format(f, std::forward<Args>(args)...));
}

}  // namespace mesh::log
