// SPDX-License-Identifier: Apache-2.0
// Errors as values. Every layer adds one phrase with context(); who decides logs the whole, once.
#pragma once

#include <fmt/format.h>

#include <cerrno>
#include <string>
#include <string_view>
#include <system_error>
#include <tl/expected.hpp>
#include <utility>

namespace mesh {

struct [[nodiscard]] Error {
  std::error_code code;  // system_category for errno values; empty when no system call is to blame
  std::string what;      // "load mesh: map mesh_sk: Operation not permitted"
};

template <typename T>
using Result = tl::expected<T, Error>;
using Status = Result<void>;

// An error without a system call behind it.
template <typename... Args>
[[nodiscard]] tl::unexpected<Error> fail(fmt::format_string<Args...> format, Args&&... args) {
  return tl::unexpected(Error{{}, fmt::format(format, std::forward<Args>(args)...)});
}

// An error of a system call; `errnum` is positive. The message ends with strerror's text.
[[nodiscard]] inline tl::unexpected<Error> fail_errno(int errnum, std::string_view what) {
  std::error_code code(errnum, std::system_category());
  return tl::unexpected(Error{code, fmt::format("{}: {}", what, code.message())});
}

// Puts one phrase before the message: "{phrase}: {what}".
[[nodiscard]] inline tl::unexpected<Error> context(Error error, std::string_view phrase) {
  error.what = fmt::format("{}: {}", phrase, error.what);
  return tl::unexpected(std::move(error));
}

}  // namespace mesh

// Propagates the error of `expr` (a Result) with one phrase in front.
#define MESH_TRY(expr, phrase)                                              \
  do {                                                                      \
    if (auto mesh_try_result = (expr); !mesh_try_result)                    \
      return ::mesh::context(std::move(mesh_try_result).error(), (phrase)); \
  } while (false)
