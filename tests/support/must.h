// SPDX-License-Identifier: Apache-2.0
// The one place where test support throws: a fixture that cannot be set up ends its test, and the
// unwinding takes down what was already made. gtest reports the text as the failure of that test.
#pragma once

#include <stdexcept>
#include <string>
#include <utility>

#include "agent/base/result.h"

namespace mesh::test {

class SetupFailed : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

template <typename T>
T must(Result<T> result, std::string_view phrase) {
  if (!result) throw SetupFailed(fmt::format("{}: {}", phrase, result.error().what));
  return std::move(*result);
}

inline void must(Status status, std::string_view phrase) {
  if (!status) throw SetupFailed(fmt::format("{}: {}", phrase, status.error().what));
}

}  // namespace mesh::test
