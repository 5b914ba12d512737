// SPDX-License-Identifier: Apache-2.0
// The coroutine types of the relay. Detached starts at once, frees its frame when it ends and is
// awaited by nobody: who needs to know that it ended is told by its last statement. Task is a part
// of one, awaited where it is called.
#pragma once

#include <coroutine>
#include <exception>
#include <utility>

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

// Starts when it is awaited, and must be awaited before it is destroyed.
template <typename T>
class [[nodiscard]] Task {
 public:
  struct promise_type {
    Task get_return_object() noexcept {
      return Task(std::coroutine_handle<promise_type>::from_promise(*this));
    }
    std::suspend_always initial_suspend() noexcept { return {}; }
    struct Resume {
      [[nodiscard]] bool await_ready() const noexcept { return false; }
      std::coroutine_handle<> await_suspend(std::coroutine_handle<promise_type> done) noexcept {
        return done.promise().caller;
      }
      void await_resume() const noexcept {}
    };
    Resume final_suspend() noexcept { return {}; }
    void return_value(T result) noexcept { value = std::move(result); }
    [[noreturn]] void unhandled_exception() noexcept { std::terminate(); }

    std::coroutine_handle<> caller;
    T value{};
  };

  Task(Task&& other) noexcept : handle_(std::exchange(other.handle_, {})) {}
  Task& operator=(Task&&) = delete;
  ~Task() {
    if (handle_) handle_.destroy();
  }

  [[nodiscard]] bool await_ready() const noexcept { return false; }
  std::coroutine_handle<> await_suspend(std::coroutine_handle<> caller) noexcept {
    handle_.promise().caller = caller;
    return handle_;
  }
  T await_resume() noexcept { return std::move(handle_.promise().value); }

 private:
  explicit Task(std::coroutine_handle<promise_type> handle) : handle_(handle) {}
  std::coroutine_handle<promise_type> handle_;
};

}  // namespace mesh::relay
