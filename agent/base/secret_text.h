// SPDX-License-Identifier: Apache-2.0
// Text with a secret in it, such as a private key as PEM: its memory is wiped before it is given
// back, also when it grows. It can be moved and not copied.
#pragma once

#include <strings.h>

#include <cstddef>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

namespace mesh {

// The compiler does not leave the wiping out. `Base` is for tests.
template <typename T, typename Base = std::allocator<T>>
struct WipingAllocator {
  using value_type = T;
  T* allocate(std::size_t count) { return base.allocate(count); }
  void deallocate(T* at, std::size_t count) {
    ::explicit_bzero(at, count * sizeof(T));
    base.deallocate(at, count);
  }
  bool operator==(const WipingAllocator&) const = default;
  [[no_unique_address]] Base base;
};

class SecretText {
 public:
  SecretText() = default;
  explicit SecretText(std::string_view text) : bytes_(text.begin(), text.end()) {}
  SecretText(SecretText&&) noexcept = default;
  SecretText& operator=(SecretText&&) noexcept = default;
  SecretText(const SecretText&) = delete;
  SecretText& operator=(const SecretText&) = delete;
  ~SecretText() = default;

  void resize(std::size_t size) { bytes_.resize(size); }
  [[nodiscard]] std::size_t size() const { return bytes_.size(); }
  [[nodiscard]] std::span<char> bytes() { return bytes_; }
  [[nodiscard]] std::string_view view() const { return {bytes_.data(), bytes_.size()}; }

 private:
  std::vector<char, WipingAllocator<char>> bytes_;  // no std::string: short ones are not on a heap
};

}  // namespace mesh
