// SPDX-License-Identifier: Apache-2.0
// Little-endian fields one after the other; a reader that has failed once gives nothing more.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "agent/base/address.h"

namespace mesh::takeover {

class Writer {
 public:
  // Reserved at once, so that no freed block keeps a key.
  explicit Writer(std::size_t size = 512) { bytes_.reserve(size); }
  template <typename T>
  void number(T value) {
    for (std::size_t i = 0; i < sizeof(T); ++i)
      bytes_.push_back(static_cast<std::uint8_t>(static_cast<std::uint64_t>(value) >> (8 * i)));
  }
  void flag(bool value) { number(static_cast<std::uint8_t>(value)); }
  void bytes(const void* data, std::size_t size) {
    number(static_cast<std::uint32_t>(size));
    const auto* at = static_cast<const std::uint8_t*>(data);
    bytes_.insert(bytes_.end(), at, at + size);
  }
  void text(std::string_view text) { bytes(text.data(), text.size()); }
  void endpoint(const Endpoint& endpoint) {
    const auto& address = endpoint.address.bytes();
    bytes_.insert(bytes_.end(), address.begin(), address.end());
    number(endpoint.port);
  }
  std::vector<std::uint8_t> take() { return std::move(bytes_); }

 private:
  std::vector<std::uint8_t> bytes_;
};

class Reader {
 public:
  explicit Reader(std::span<const std::uint8_t> bytes) : left_(bytes) {}
  template <typename T>
  T number() {
    if (!need(sizeof(T))) return {};
    std::uint64_t wide = 0;
    for (std::size_t i = 0; i < sizeof(T); ++i) wide |= std::uint64_t{left_[i]} << (8 * i);
    left_ = left_.subspan(sizeof(T));
    return static_cast<T>(wide);
  }
  bool flag() { return number_below<std::uint8_t>(2) == 1; }
  template <typename T>
  T number_below(T limit) {
    const T value = number<T>();
    if (value < limit) return value;
    ok_ = false;
    return {};
  }
  std::span<const std::uint8_t> bytes(std::size_t max) {
    const auto size = number<std::uint32_t>();
    if (size > max || !need(size)) {
      ok_ = false;
      return {};
    }
    const auto part = left_.first(size);
    left_ = left_.subspan(size);
    return part;
  }
  std::string text(std::size_t max) {
    const auto part = bytes(max);
    return {part.begin(), part.end()};
  }
  Endpoint endpoint() {
    Endpoint endpoint;
    std::array<std::uint8_t, 16> address{};
    if (!need(address.size())) return endpoint;
    std::copy_n(left_.begin(), address.size(), address.begin());
    left_ = left_.subspan(address.size());
    endpoint.address = Address(address);
    endpoint.port = number<std::uint16_t>();
    return endpoint;
  }
  void refuse() { ok_ = false; }
  [[nodiscard]] bool ok() const { return ok_; }
  [[nodiscard]] bool done() const { return ok_ && left_.empty(); }

 private:
  bool need(std::size_t size) {
    ok_ = ok_ && left_.size() >= size;
    return ok_;
  }
  std::span<const std::uint8_t> left_;
  bool ok_ = true;
};

}  // namespace mesh::takeover
