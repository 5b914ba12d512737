// SPDX-License-Identifier: Apache-2.0
// The coroutine type of the relay: starts at once, frees its frame when it ends, is awaited by
// nobody. Who needs to know that it ended is told by the coroutine's last statement.
#pragma once

#include <coroutine>
#include <exception>

namespace mesh::relay {

struct Detached {
  struct promise_type {
    Detached get_return_object() noexcept { return {}; }
    std::suspend_never initial_suspend() noexcept { return {}; }
    std::suspend_never final_suspend() noexcept { return {}; }
    void return_void() noexcept {}
    // The relay throws nothing; what can arrive here is std::bad_alloc, and that is fatal.
    [[noreturn]] void unhandled_exception() noexcept { std::terminate(); }
  };
};

}  // namespace mesh::relay
