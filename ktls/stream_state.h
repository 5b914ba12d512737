// SPDX-License-Identifier: Apache-2.0
// All that user space knows of a stream, so that a successor process can go on with the socket. For
// a kernel stream the keys and the true sequence numbers stay in the socket.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "agent/base/result.h"
#include "ktls/cipher.h"
#include "ktls/control.h"
#include "ktls/key_schedule.h"

namespace mesh::ktls {

struct StreamState {
  struct Direction {
    TrafficKeys keys;            // empty for a kernel stream
    std::uint64_t sequence = 0;  // of the next record; of a kernel stream the number known last
    std::uint64_t bytes = 0;     // content so far
    std::uint64_t records = 0;   // upper bound; equal to sequence for a user-space stream
  };
  bool kernel = false;
  Cipher cipher = Cipher::Aes128Gcm;
  Direction tx;
  Direction rx;
  std::uint64_t limit_records = 0;  // see KeyLimit
  ControlReader::State control;
  bool eof = false;            // close_notify has come
  bool stream_ended = false;   // end_stream has come and read() has not said so yet
  bool close_queued = false;   // ours is sealed or sent
  std::int32_t rx_failed = 0;  // errno that ended this direction
  std::int32_t tx_failed = 0;
  std::vector<std::byte> cipher_in;   // received, not a whole record yet or not opened yet
  std::vector<std::byte> plain_in;    // opened, not delivered yet
  std::vector<std::byte> cipher_out;  // sealed, not taken by the socket yet
};

// Little-endian, begins with a version. The result has keys in it: wipe it (OPENSSL_cleanse) after
// it has been handed over.
std::vector<std::uint8_t> serialize(const StreamState& state);
// Refuses another version, values out of range, buffers longer than a stream can have, and bytes
// behind the end.
Result<StreamState> parse_stream_state(std::span<const std::uint8_t> bytes);

// How much one key may protect. RFC 8446 5.5 allows AES-GCM 2^24.5 full-size records; the bound
// behind it counts blocks of 16 bytes, so small records count by their size, and three blocks for
// what every record adds. ChaCha20-Poly1305 needs no limit.
class KeyLimit {
 public:
  static constexpr std::uint64_t kGcmRecords = 23'726'566;
  KeyLimit(Cipher cipher, std::uint64_t limit_records);
  // Near the limit: a 64th of it is left for what is under way and for close_notify.
  [[nodiscard]] bool near(std::uint64_t bytes, std::uint64_t records) const {
    return blocks(bytes, records) >= blocks_;
  }
  // Half of it is used.
  [[nodiscard]] bool half(std::uint64_t bytes, std::uint64_t records) const {
    return blocks(bytes, records) >= blocks_ / 2;
  }

 private:
  static std::uint64_t blocks(std::uint64_t bytes, std::uint64_t records) {
    return bytes / 16 + 3 * records;
  }
  std::uint64_t blocks_;
};

}  // namespace mesh::ktls
