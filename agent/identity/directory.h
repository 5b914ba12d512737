// SPDX-License-Identifier: Apache-2.0
// The identities of this node as any thread sees them: service -> SVID, and the roots. Written by
// the identity source on the control thread; readers hold a shared lock for the length of a lookup.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <string_view>
#include <vector>

#include "agent/base/result.h"
#include "ktls/fwd.h"

namespace mesh::identity {

inline constexpr std::size_t kMaxWaiting = 16'384;  // requests that wait for a first SVID

// What one moment had: a handshake takes all of it from one lookup, so that a PSK is never kept
// under an epoch other than that of the roots that verified the peer.
struct Identity {
  ktls::SvidPtr svid;           // null: this service has no identity (any more, or yet)
  ktls::TrustBundlePtr bundle;  // null: no roots yet
  std::uint64_t epoch = 0;      // rises with every change of the bundle; 0: none yet
};

class Directory {
 public:
  Directory() = default;
  Directory(const Directory&) = delete;
  Directory& operator=(const Directory&) = delete;

  // --- any thread ---

  // Does not allocate and does not ask the source. An SVID that has ended is taken out within about
  // a second of its end.
  [[nodiscard]] Identity find(std::string_view service) const;
  [[nodiscard]] ktls::TrustBundlePtr bundle() const;
  [[nodiscard]] std::uint64_t epoch() const { return epoch_.load(std::memory_order_acquire); }
  [[nodiscard]] std::size_t size() const;

  // First use: `ready` is called exactly once. At once and on this thread if there is an SVID or
  // too many wait; else on the control thread when the SVID has been made or the source refused (no
  // workload of this node, no file, too many identities, stopped). It must not block or throw.
  using Ready = std::function<void(Result<Identity>)>;
  void request(const std::string& service, Ready ready);

  // --- control thread, by the source ---

  void put(const std::string& service, ktls::SvidPtr svid);
  void remove(const std::string& service);  // waiting requests go on waiting
  void set_bundle(ktls::TrustBundlePtr bundle);
  // Ends the waiting requests of one service, or of all, with an error.
  void refuse(const std::string& service, const Error& error);
  void refuse_all(const Error& error);
  // Called without a lock on the thread of request() for a service without an SVID. Null: requests
  // for unknown services fail at once.
  using Demand = std::function<void(const std::string& service)>;
  void on_demand(Demand demand);

 private:
  std::vector<Ready> take_waiting(const std::string& service);  // under the lock

  mutable std::shared_mutex mutex_;
  std::map<std::string, ktls::SvidPtr, std::less<>> svids_;
  std::map<std::string, std::vector<Ready>> waiting_;
  std::size_t waiters_ = 0;
  ktls::TrustBundlePtr bundle_;
  std::atomic<std::uint64_t> epoch_{0};
  std::shared_ptr<const Demand> demand_;
};

}  // namespace mesh::identity
