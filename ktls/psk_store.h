// SPDX-License-Identifier: Apache-2.0
// Resumption PSKs that both sides derive from the exporter of a full handshake (RFC 8446 7.5), so
// that the next connection between the same two identities needs no certificates. A PSK handshake
// carries none, so the entry holds what the certificates said.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <list>
#include <map>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "ktls/cipher.h"
#include "ktls/key_schedule.h"
#include "ktls/peer.h"

namespace mesh::ktls {

constexpr std::size_t kPskIdentityBytes = 32;
using PskIdentity = std::array<std::uint8_t, kPskIdentityBytes>;

struct PskEntry {
  PskIdentity identity{};             // public, sent in the ClientHello
  SecretBytes secret;                 // length of the cipher's hash
  Cipher cipher = Cipher::Aes128Gcm;  // it was made with
  SpiffeId own;                       // our identity in that handshake
  Peer peer;                          // the other side's
  std::chrono::sys_seconds expires;   // of both SVIDs, whichever ends first
  std::uint64_t epoch = 0;            // of the trust bundle; another epoch is not used
};

struct PskKey {  // of the client's side: whom it wants to reach
  std::string own_id;
  std::string peer_id;
  std::string peer_node;
  auto operator<=>(const PskKey&) const = default;
};

// Any thread. Bounded: the least recently used entry goes first and is counted.
class PskStore {
 public:
  explicit PskStore(std::size_t max_entries = 16384) : max_entries_(max_entries) {}

  // An entry of another epoch than the current one is not taken: its handshake began with other
  // roots.
  void put_client(const PskKey& key, PskEntry entry);
  void put_server(PskEntry entry);
  [[nodiscard]] std::optional<PskEntry> find_client(const PskKey& key,
                                                    std::chrono::sys_seconds now);
  [[nodiscard]] std::optional<PskEntry> find_server(std::span<const std::uint8_t> identity,
                                                    std::chrono::sys_seconds now);
  // A handshake showed that the other side does not have this entry any more. Another that has been
  // put since is kept.
  void drop_client(const PskKey& key, const PskIdentity& identity);
  // All entries of one of our identities: its SVID is gone.
  void drop_identity(const SpiffeId& own);
  // All there are: the roots changed. To be called when everybody finds the new bundle, and before
  // make_context() with it.
  void new_epoch();
  [[nodiscard]] std::uint64_t epoch() const;

  struct Counts {
    std::size_t entries = 0;
    std::uint64_t evicted = 0;
    std::uint64_t expired = 0;
  };
  [[nodiscard]] Counts counts() const;

 private:
  struct Slot {
    PskEntry entry;
    std::optional<PskKey> client;  // of the client's side
  };
  using Slots = std::list<Slot>;  // the least recently used one is last
  void insert(Slot slot);
  void erase(Slots::iterator slot);
  std::optional<PskEntry> use(Slots::iterator slot, std::chrono::sys_seconds now);

  const std::size_t max_entries_;
  mutable std::mutex mutex_;
  Slots slots_;
  std::map<PskKey, Slots::iterator> clients_;
  std::map<PskIdentity, Slots::iterator> servers_;
  std::uint64_t epoch_ = 0;
  std::uint64_t evicted_ = 0;
  std::uint64_t expired_ = 0;
};

}  // namespace mesh::ktls
