// SPDX-License-Identifier: Apache-2.0
#include "ktls/stream_state.h"

#include <limits>

#include "ktls/record.h"

namespace mesh::ktls {
namespace {

constexpr std::uint32_t kVersion = 1;

class Writer {
 public:
  template <typename T>
  void number(T value) {
    for (std::size_t i = 0; i < sizeof(T); ++i) {
      bytes_.push_back(static_cast<std::uint8_t>(static_cast<std::uint64_t>(value) >> (8 * i)));
    }
  }
  void bytes(const void* data, std::size_t size) {
    number(static_cast<std::uint32_t>(size));
    const auto* at = static_cast<const std::uint8_t*>(data);
    bytes_.insert(bytes_.end(), at, at + size);
  }
  void direction(const StreamState::Direction& direction) {
    bytes(direction.keys.key.data(), direction.keys.key.size());
    bytes(direction.keys.iv.data(), direction.keys.iv.size());
    number(direction.sequence);
    number(direction.bytes);
    number(direction.records);
  }
  // Reserved at once, so that no freed block keeps a key.
  explicit Writer(std::size_t size) { bytes_.reserve(size); }
  std::vector<std::uint8_t> take() { return std::move(bytes_); }

 private:
  std::vector<std::uint8_t> bytes_;
};

class Reader {
 public:
  explicit Reader(std::span<const std::uint8_t> bytes) : left_(bytes) {}
  template <typename T>
  void number(T& value) {
    if (left_.size() < sizeof(T)) {
      ok_ = false;
      return;
    }
    std::uint64_t wide = 0;
    for (std::size_t i = 0; i < sizeof(T); ++i) wide |= std::uint64_t{left_[i]} << (8 * i);
    value = static_cast<T>(wide);
    left_ = left_.subspan(sizeof(T));
  }
  void flag(bool& value) {
    std::uint8_t byte = 2;
    number(byte);
    if (byte > 1) ok_ = false;
    value = byte == 1;
  }
  std::span<const std::uint8_t> bytes(std::size_t max) {
    std::uint32_t size = 0;
    number(size);
    if (!ok_ || size > max || size > left_.size()) {
      ok_ = false;
      return {};
    }
    const auto part = left_.first(size);
    left_ = left_.subspan(size);
    return part;
  }
  void secret(SecretBytes& into) { into.assign(bytes(SecretBytes::kCapacity)); }
  void buffer(std::vector<std::byte>& into, std::size_t max) {
    const auto part = bytes(max);
    const auto* at = reinterpret_cast<const std::byte*>(part.data());
    into.assign(at, at + part.size());
  }
  void direction(StreamState::Direction& direction) {
    secret(direction.keys.key);
    secret(direction.keys.iv);
    number(direction.sequence);
    number(direction.bytes);
    number(direction.records);
  }
  [[nodiscard]] bool ok() const { return ok_; }
  [[nodiscard]] bool done() const { return ok_ && left_.empty(); }

 private:
  std::span<const std::uint8_t> left_;
  bool ok_ = true;
};

bool keys_fit(const StreamState& state, const StreamState::Direction& direction) {
  if (state.kernel) return direction.keys.key.empty() && direction.keys.iv.empty();
  return direction.keys.key.size() == traits_of(state.cipher).key_bytes &&
         direction.keys.iv.size() == kIvBytes;
}

}  // namespace

std::vector<std::uint8_t> serialize(const StreamState& state) {
  Writer out(512 + state.cipher_in.size() + state.plain_in.size() + state.cipher_out.size());
  out.number(kVersion);
  out.number(static_cast<std::uint8_t>(state.kernel));
  out.number(static_cast<std::uint8_t>(state.cipher));
  out.direction(state.tx);
  out.direction(state.rx);
  out.number(state.limit_records);
  out.number(static_cast<std::uint8_t>(state.control.client));
  out.number(static_cast<std::uint8_t>(state.control.end_stream_allowed));
  out.number(state.control.alert_level);
  out.number(state.control.header_have);
  out.bytes(state.control.header.data(), state.control.header.size());
  out.number(state.control.body_left);
  out.number(state.control.skipped);
  out.number(state.control.idle_records);
  out.number(static_cast<std::uint8_t>(state.eof));
  out.number(static_cast<std::uint8_t>(state.stream_ended));
  out.number(static_cast<std::uint8_t>(state.close_queued));
  out.number(static_cast<std::uint32_t>(state.rx_failed));
  out.number(static_cast<std::uint32_t>(state.tx_failed));
  out.bytes(state.cipher_in.data(), state.cipher_in.size());
  out.bytes(state.plain_in.data(), state.plain_in.size());
  out.bytes(state.cipher_out.data(), state.cipher_out.size());
  return out.take();
}

Result<StreamState> parse_stream_state(std::span<const std::uint8_t> bytes) {
  Reader in(bytes);
  StreamState state;
  std::uint32_t version = 0;
  in.number(version);
  if (!in.ok() || version != kVersion) return fail("stream state: version {}", version);
  in.flag(state.kernel);
  std::uint8_t cipher = 0xff;
  in.number(cipher);
  if (cipher > static_cast<std::uint8_t>(Cipher::ChaCha20Poly1305)) {
    return fail("stream state: cipher {}", cipher);
  }
  state.cipher = static_cast<Cipher>(cipher);
  in.direction(state.tx);
  in.direction(state.rx);
  in.number(state.limit_records);
  in.flag(state.control.client);
  in.flag(state.control.end_stream_allowed);
  in.number(state.control.alert_level);
  in.number(state.control.header_have);
  const auto header = in.bytes(state.control.header.size());
  std::copy(header.begin(), header.end(), state.control.header.begin());
  in.number(state.control.body_left);
  in.number(state.control.skipped);
  in.number(state.control.idle_records);
  in.flag(state.eof);
  in.flag(state.stream_ended);
  in.flag(state.close_queued);
  in.number(state.rx_failed);
  in.number(state.tx_failed);
  // Behind an end of stream all stays that was received with it.
  in.buffer(state.cipher_in, kMaxBatch);
  in.buffer(state.plain_in, kMaxPlain);
  in.buffer(state.cipher_out, kMaxCipherOut);
  if (!in.done()) return fail("stream state: malformed");
  if (!keys_fit(state, state.tx) || !keys_fit(state, state.rx)) {
    return fail("stream state: keys do not fit the cipher");
  }
  if (header.size() != state.control.header.size() ||
      state.control.header_have >= state.control.header.size() || state.control.alert_level > 2 ||
      state.control.body_left > ControlReader::kMaxSkipped ||
      state.control.skipped > ControlReader::kMaxSkipped) {
    return fail("stream state: control reader out of range");
  }
  return state;
}

KeyLimit::KeyLimit(Cipher cipher, std::uint64_t limit_records)
    : blocks_(std::numeric_limits<std::uint64_t>::max()) {
  if (traits_of(cipher).gcm) blocks_ = (limit_records - limit_records / 64) * (kMaxPlain / 16);
}

}  // namespace mesh::ktls
